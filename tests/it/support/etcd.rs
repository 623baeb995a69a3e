//! A real etcd on a private loopback address. Stopped, and its data removed, when dropped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::names::private_ip;
use super::{Hosts, Namespace, eventually};

const PROGRAM: &str = "/usr/bin/etcd";
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Etcd {
    process: Option<Child>,
    ip: String,
    /// Additional arguments.
    arguments: Vec<String>,
    namespace: Option<Namespace>,
    dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts a cluster with one member; returns the reason if that is impossible.
    pub(crate) fn start() -> Result<Etcd, String> {
        Etcd::with(&[])
    }

    pub(crate) fn with(arguments: &[&str]) -> Result<Etcd, String> {
        let mut etcd = Etcd::new()?;
        etcd.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        etcd.start_again();
        Ok(etcd)
    }

    /// Starts a member in the network of host A, reachable from host B.
    pub(crate) fn reached_from_both(hosts: &Hosts) -> Result<Etcd, String> {
        let mut etcd = Etcd::new()?;
        etcd.ip = hosts.a.ip.expect("a host on the cable").to_string();
        etcd.namespace = Some(hosts.a.namespace.clone());
        etcd.start_again();
        Ok(etcd)
    }

    /// Starts a cluster with three members.
    pub(crate) fn cluster() -> Result<[Etcd; 3], String> {
        let mut members = [Etcd::new()?, Etcd::new()?, Etcd::new()?];
        let peers: Vec<_> = members.iter().map(|member| format!("{0}=http://{0}:2380", member.ip)).collect();
        for member in &mut members {
            member.arguments.push(format!("--initial-cluster={}", peers.join(",")));
            member.spawn();
        }
        members.iter().for_each(Etcd::await_health);
        Ok(members)
    }

    fn new() -> Result<Etcd, String> {
        if !Path::new(PROGRAM).exists() {
            return Err("no etcd here".to_owned());
        }
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let (ip, dir) = (private_ip(), dir.expect("a directory"));
        Ok(Etcd { process: None, ip, arguments: Vec::new(), namespace: None, dir })
    }

    /// Returns `host:port` of its client API.
    pub(crate) fn address(&self) -> String {
        format!("{}:2379", self.ip)
    }

    /// Kills the member.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// Restarts an etcd that requires authentication.
    pub(crate) fn start_again_unasked(&mut self) {
        self.spawn();
    }

    /// Restarts the member with its data.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
        self.await_health();
    }

    fn spawn(&mut self) {
        let url = |port: u16| format!("http://{}:{port}", self.ip);
        let mut command = match &self.namespace {
            None => Command::new(PROGRAM),
            Some(namespace) => {
                let mut nsenter = Command::new("/usr/bin/nsenter");
                nsenter.arg(format!("--net={}", namespace.path().display())).arg(PROGRAM);
                nsenter
            }
        };
        command.env_clear().arg(format!("--data-dir={}", self.dir.path().join("data").display()));
        command.arg(format!("--name={}", self.ip));
        command.arg(format!("--listen-client-urls={}{}", url(2379), self.further_urls()));
        command.arg(format!("--advertise-client-urls={}", url(2379)));
        command.arg(format!("--listen-peer-urls={}", url(2380)));
        command.arg(format!("--initial-advertise-peer-urls={}", url(2380)));
        command.arg(format!("--initial-cluster={}={}", self.ip, url(2380)));
        // A later flag overrides an earlier one.
        command
            .args(self.arguments.iter().filter(|argument| argument.starts_with("--")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().expect("etcd"));
    }

    /// Parses flags like `+client=URL`.
    fn further_urls(&self) -> String {
        self.arguments
            .iter()
            .filter_map(|argument| argument.strip_prefix("+client="))
            .fold(String::new(), |urls, url| urls + "," + url)
    }

    fn await_health(&self) {
        eventually("a healthy etcd", || self.try_ask("/v3/kv/range", &json!({ "key": base64("/health") })));
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        self.ask("/v3/kv/put", &json!({ "key": base64(key), "value": base64(value) }));
    }

    pub(crate) fn delete(&self, key: &str) {
        self.ask("/v3/kv/deleterange", &json!({ "key": base64(key) }));
    }

    /// Returns keys and values below a prefix.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<(String, String)> {
        let end = format!("{prefix}\u{7f}");
        let answer = self.ask("/v3/kv/range", &json!({ "key": base64(prefix), "range_end": base64(&end) }));
        let text = |value: &Value| {
            let bytes = data_encoding::BASE64.decode(value.as_str().unwrap_or_default().as_bytes()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let keys = answer["kvs"].as_array().cloned().unwrap_or_default();
        keys.iter().map(|key| (text(&key["key"]), text(&key["value"]))).collect()
    }

    /// Compacts all revisions before the last change.
    pub(crate) fn compact(&self) {
        let answer = self.ask("/v3/kv/range", &json!({ "key": base64("/x") }));
        self.ask("/v3/kv/compaction", &json!({ "revision": answer["header"]["revision"] }));
    }

    pub(crate) fn ask(&self, path: &str, body: &Value) -> Value {
        self.try_ask(path, body).unwrap_or_else(|why| panic!("{path}: {why}"))
    }

    pub(crate) fn try_ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        let exchange = || {
            let connect = || TcpStream::connect(self.address());
            let mut stream = match &self.namespace {
                Some(namespace) => namespace.run(connect)?,
                None => connect()?,
            };
            stream.set_read_timeout(Some(TIMEOUT))?;
            let (address, body) = (self.address(), body.to_string());
            let length = body.len();
            write!(
                stream,
                "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
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
        serde_json::from_str(body).map_err(|error| error.to_string())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}
