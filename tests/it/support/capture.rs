//! What is sent between the two Docker hosts, recorded by tcpdump.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};

use super::names::unique;
use super::{Hosts, eventually};

/// A discard service (RFC 863) that no host has.
const DISCARD_PORT: u16 = 9;

/// A recording of the link between the hosts; ends when dropped.
pub(crate) struct Capture<'h> {
    hosts: &'h Hosts,
    tcpdump: Child,
    file: tempfile::NamedTempFile,
}

impl<'h> Capture<'h> {
    /// Starts to record; returns the reason if that is impossible.
    pub(crate) fn start(hosts: &'h Hosts) -> Result<Capture<'h>, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut tcpdump = Command::new("nsenter")
            .arg(format!("--net={}", hosts.a.namespace.path().display()))
            .args("tcpdump -i eth0 --immediate-mode -U -s 0 -w -".split(' '))
            .stdout(file.reopen().expect("our file"))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("nsenter: {error}"))?;
        let log = BufReader::new(tcpdump.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let has_begun = log.into_iter().any(|line| line.contains("listening on"));
        let capture = Capture { hosts, tcpdump, file };
        if has_begun { Ok(capture) } else { Err("no tcpdump here".to_owned()) }
    }

    /// Returns whether the text has been sent between the hosts in plain.
    pub(crate) fn has_seen(&self, text: &str) -> bool {
        let end = unique("end-of-capture");
        self.hosts.b.namespace.run(|| {
            let socket = UdpSocket::bind(self.hosts.b.address(0)).expect("the address of the host");
            socket.send_to(end.as_bytes(), self.hosts.a.address(DISCARD_PORT)).expect("a datagram");
        });
        eventually(
            "the recording is complete",
            || if self.contains(&end) { Ok(()) } else { Err("it is not") },
        );
        self.contains(text)
    }

    fn contains(&self, text: &str) -> bool {
        let mut recorded = Vec::new();
        File::open(self.file.path()).and_then(|mut file| file.read_to_end(&mut recorded)).expect("our file");
        recorded.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        self.tcpdump.kill().ok();
        self.tcpdump.wait().ok();
    }
}
