//! The other end of a proxy with one TLS side: HAProxy, the same for every subject. It requires TLS 1.3 with AES-128-GCM,
//! and counts the sessions that were resumed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::child::Process;
use super::subject::{End, Handshake, Kind, Side, Splice, Subject};

/// HAProxy's socket for commands, in its directory.
pub(super) const STATS: &str = "stats.sock";
const LIMIT: Duration = Duration::from_secs(5);

/// The program as a subject that is started, but not measured.
pub(super) fn subject(program: PathBuf) -> Subject {
    let name = "opposite".to_owned();
    Subject { name, kind: Kind::Haproxy(Splice::Off), program, version: String::new() }
}

/// Returns the options of `bind` and `server` for the handshakes of a row.
pub(super) fn options(end: End) -> &'static str {
    match end {
        End::Opposite(Side::Accept, Handshake::Full) => "no-tls-tickets",
        End::Opposite(Side::Connect, Handshake::Full) => "no-ssl-reuse",
        _ => "",
    }
}

/// The running program.
pub(super) struct Opposite {
    _process: Process,
    stats: PathBuf,
}

impl Opposite {
    pub(super) fn new(process: Process, dir: &Path) -> Opposite {
        Opposite { _process: process, stats: dir.join(STATS) }
    }

    /// Returns how many of its TLS connections were resumed, in percent.
    pub(super) fn resumed_percent(&self) -> Result<f64> {
        let mut socket = UnixStream::connect(&self.stats).context("no socket of HAProxy")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.write_all(b"show stat\n")?;
        let mut table = String::new();
        socket.read_to_string(&mut table)?;
        resumed_percent(&table).with_context(|| format!("unexpected output: {table}"))
    }
}

/// Sums up all lines: a server's connections are also those of its backend, which does not change the ratio.
fn resumed_percent(table: &str) -> Option<f64> {
    let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next()?;
    let column = |name: &str| names.iter().position(|other| *other == name);
    let (full, resumed) = (column("ssl_sess")?, column("ssl_reused_sess")?);
    let number = |line: &[&str], column: usize| line.get(column)?.parse::<f64>().ok();
    let counts = lines.filter_map(|line| Some((number(&line, full)?, number(&line, resumed)?)));
    let (full, resumed) = counts.fold((0.0, 0.0), |sum, line| (sum.0 + line.0, sum.1 + line.1));
    (full + resumed > 0.0).then(|| resumed / (full + resumed) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::resumed_percent;

    #[test]
    fn resumed_sessions_are_a_share_of_all() {
        let table = "# pxname,svname,ssl_sess,ssl_reused_sess,\nservice,FRONTEND,0,0,\n\
                     service,service1,2,38,\nservice,BACKEND,2,38,\n\n";
        assert_eq!(resumed_percent(table), Some(95.0));
        assert_eq!(
            resumed_percent("# pxname,svname,ssl_sess,ssl_reused_sess,\nservice,FRONTEND,0,0,\n"),
            None
        );
        assert_eq!(resumed_percent("unknown command"), None);
    }
}
