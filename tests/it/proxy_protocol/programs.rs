//! Other programs that speak the protocol, from Debian's packages. Each listens on a private address, and is killed when dropped.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Ca, VALID, eventually};

/// A running program.
pub(super) struct Program {
    process: Child,
    dir: tempfile::TempDir,
}

/// Returns the program, or why the test is skipped.
fn found(program: &'static str) -> Result<&'static str, String> {
    if Path::new(program).exists() { Ok(program) } else { Err(format!("no {program} here")) }
}

impl Program {
    /// Starts HAProxy with these sections, and waits until it listens.
    pub(super) fn haproxy(sections: &str, listens: &str) -> Result<Program, String> {
        let program = found("/usr/sbin/haproxy")?;
        let config = format!(
            "global\n  maxconn 100\ndefaults\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n{sections}"
        );
        Ok(Program::start(
            program,
            &config,
            |config| vec!["-db".to_owned(), "-f".to_owned(), config],
            listens,
        ))
    }

    /// Starts nginx with these blocks, `http` or `stream`.
    pub(super) fn nginx(blocks: &str, listens: &str) -> Result<Program, String> {
        let program = found("/usr/sbin/nginx")?;
        let module = found("/usr/lib/nginx/modules/ngx_stream_module.so")?;
        let config = format!(
            "load_module {module};\nworker_processes 1;\ndaemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n{blocks}"
        );
        Ok(Program::start(program, &config, |config| vec!["-c".to_owned(), config], listens))
    }

    /// Starts PowerDNS Recursor with these settings.
    pub(super) fn recursor(settings: &str, listens: &str) -> Result<Program, String> {
        let program = found("/usr/sbin/pdns_recursor")?;
        let arguments = |config: String| {
            let dir = Path::new(&config).parent().unwrap().display().to_string();
            vec![format!("--config-dir={dir}"), format!("--socket-dir={dir}")]
        };
        Ok(Program::start(program, settings, arguments, listens))
    }

    fn start(
        program: &str,
        config: &str,
        arguments: impl Fn(String) -> Vec<String>,
        listens: &str,
    ) -> Program {
        let dir = tempfile::tempdir().unwrap();
        // The name that PowerDNS requires.
        let file = dir.path().join("recursor.conf");
        std::fs::write(&file, config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments(file.display().to_string())).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let program = Program { process: command.spawn().unwrap(), dir };
        eventually(listens, || {
            TcpStream::connect(listens).map_err(|error| format!("{error}\n{}", program.log()))
        });
        program
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// Opens a TLS connection with a client certificate and sends a line.
pub(super) fn send_by_tls(ca: &Ca, addr: &str, version: &str) {
    let certificate = ca.issue("client", 7, VALID);
    let mut client = Command::new("/usr/bin/openssl")
        .args(["s_client", version, "-quiet", "-no_ign_eof", "-alpn", "h2"])
        .args(["-connect", addr, "-servername", "a.example.com", "-cert"])
        .arg(&certificate)
        .arg("-key")
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"x\n").unwrap();
    client.wait().unwrap();
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
