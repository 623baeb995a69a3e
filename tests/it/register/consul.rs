//! A real Consul agent, for itself alone. Ended when dropped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;

pub(super) struct Consul {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Consul {
    /// Or why there is none.
    pub(super) fn start() -> Result<Consul, String> {
        let program = program().ok_or("no consul here")?;
        let dir = tempfile::tempdir().expect("a directory");
        let [http, serf, server, wan] = [(); 4].map(|()| free_port());
        let config = serde_json::json!({
            "ports": { "http": http, "dns": -1, "grpc": -1, "serf_lan": serf, "serf_wan": wan, "server": server },
            "performance": { "raft_multiplier": 1 },
        });
        std::fs::write(dir.path().join("agent.json"), config.to_string()).expect("a file");
        let mut command = Command::new(program);
        command.args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1"]);
        command.arg(format!("-config-file={}", dir.path().join("agent.json").display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("consul");
        let consul = Consul { process, port: http, _dir: dir };
        eventually("a leader", || match consul.ask("GET", "/v1/status/leader") {
            Ok(Value::String(leader)) if !leader.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Ok(consul)
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `ADDRESS:PORT` of each instance whose checks pass, sorted.
    pub(super) fn passing(&self, service: &str) -> Vec<String> {
        let answer = self.ask("GET", &format!("/v1/health/service/{service}?passing")).unwrap();
        let instances = answer.as_array().into_iter().flatten().map(|instance| &instance["Service"]);
        let shown = |s: &Value| format!("{}:{}", s["Address"].as_str().unwrap_or_default(), s["Port"]);
        let mut shown: Vec<String> = instances.map(shown).collect();
        shown.sort();
        shown
    }

    pub(super) fn ask(&self, method: &str, path: &str) -> Result<Value, String> {
        let exchange = || {
            let mut stream = TcpStream::connect(self.address())?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "{method} {path} HTTP/1.0\r\nHost: consul\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = exchange().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if !head.contains(" 200 ") {
            return Err(answer);
        }
        Ok(serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn program() -> Option<PathBuf> {
    ["/usr/bin/consul", "/usr/local/bin/consul"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
