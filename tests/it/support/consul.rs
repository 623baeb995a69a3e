//! A real Consul on a private loopback address, in memory. Stopped when dropped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::eventually;
use super::names::private_ip;
use super::skip::variable;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The token of agents that require one.
pub(crate) const TOKEN: &str = "5ecre7-t0ken";

pub(crate) struct Consul {
    program: String,
    process: Option<Child>,
    ip: String,
    /// Additional configuration.
    hcl: String,
}

impl Consul {
    /// Starts a single server; returns the reason if that is impossible.
    pub(crate) fn start() -> Result<Consul, String> {
        Consul::with("")
    }

    /// Starts a server that requires [`TOKEN`].
    pub(crate) fn guarded() -> Result<Consul, String> {
        let tokens = format!("tokens {{ master = \"{TOKEN}\" agent = \"{TOKEN}\" }}");
        Consul::with(&format!("acl {{ enabled = true default_policy = \"deny\" {tokens} }}"))
    }

    fn with(hcl: &str) -> Result<Consul, String> {
        let program = variable("AMBASSADOR_TEST_CONSUL");
        let program = program.ok_or_else(|| "no Consul: `cargo xtask test` fetches one".to_owned())?;
        let mut consul = Consul { program, process: None, ip: private_ip(), hcl: hcl.to_owned() };
        consul.start_again();
        Ok(consul)
    }

    /// Returns `HOST:PORT` of its API.
    pub(crate) fn address(&self) -> String {
        format!("{}:8500", self.ip)
    }

    /// Kills the server, which loses its data.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new(&self.program);
        command.env_clear().args(["agent", "-dev", "-log-level=err", "-node=n", "-dns-port=-1"]);
        command.arg(format!("-bind={}", self.ip)).arg(format!("-client={}", self.ip));
        if !self.hcl.is_empty() {
            command.arg(format!("-hcl={}", self.hcl));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("consul"));
        // Ready once it has a leader and its own node in the catalog.
        eventually("a Consul that serves", || {
            let nodes = self.try_ask("GET", "/v1/catalog/nodes", &Value::Null)?;
            if nodes.as_array().is_some_and(|nodes| !nodes.is_empty()) {
                Ok(())
            } else {
                Err(nodes.to_string())
            }
        });
    }

    /// Registers an instance; `more` is added to id, name, address and port.
    pub(crate) fn register(&self, service: &str, id: &str, addr: &str, more: &Value) {
        let (host, port) = addr.rsplit_once(':').expect("HOST:PORT");
        let port: u16 = port.parse().expect("a port");
        let mut body = json!({ "ID": id, "Name": service, "Address": host, "Port": port });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.ask("PUT", "/v1/agent/service/register", &body);
    }

    pub(crate) fn deregister(&self, id: &str) {
        self.ask("PUT", &format!("/v1/agent/service/deregister/{id}"), &Value::Null);
    }

    /// Sets the check of an instance with a TTL check to `pass` or `fail`.
    pub(crate) fn check(&self, id: &str, verdict: &str) {
        self.ask("PUT", &format!("/v1/agent/check/{verdict}/service:{id}"), &Value::Null);
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body).unwrap_or_else(|why| panic!("{path}: {why}"))
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let exchange = || {
            let mut stream = TcpStream::connect(self.address())?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let length = body.len();
            write!(
                stream,
                "{method} {path} HTTP/1.0\r\nHost: consul\r\nX-Consul-Token: {TOKEN}\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = exchange().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if !head.contains(" 200 ") {
            return Err(answer);
        }
        if body.is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_str(body).map_err(|why| why.to_string())
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
    }
}
