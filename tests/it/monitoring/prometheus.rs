//! A real Prometheus with the configuration of the example, and `promtool`. Stopped when dropped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{file, read};
use crate::support::{eventually, private_ip};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a function that runs `promtool` in the directory of the example and fails unless it succeeds.
pub(super) fn promtool() -> Result<impl Fn(&[&str]), String> {
    let version = Command::new("promtool").arg("--version").output();
    version.map_err(|error| format!("promtool: {error}"))?;
    Ok(|args: &[&str]| {
        let output = Command::new("promtool").current_dir(file("")).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    })
}

/// The files of a Prometheus that has not started yet.
pub(super) struct Prepared(tempfile::TempDir);

pub(super) struct Prometheus {
    process: Child,
    address: String,
    _dir: tempfile::TempDir,
}

/// A page of an ambassador, which has the metrics, too.
pub(super) struct Guarded<'a> {
    pub(super) target: &'a str,
    pub(super) token_file: &'a Path,
}

/// An alert of the example.
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) query: String,
    pub(super) severity: String,
    pub(super) annotations: Value,
}

impl Prometheus {
    /// Copies the rules, with alerts that fire without a delay. Returns the reason if there is no Prometheus.
    pub(super) fn prepare() -> Result<Prepared, String> {
        let version = Command::new("prometheus").arg("--version").output();
        version.map_err(|error| format!("prometheus: {error}"))?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rules.yml"), read("rules.yml")).unwrap();
        let alerts = read("alerts.yml");
        let undelayed = alerts.lines().filter(|line| !line.trim_start().starts_with("for:"));
        let undelayed = undelayed.fold(String::new(), |text, line| text + line + "\n");
        std::fs::write(dir.path().join("alerts.yml"), undelayed).unwrap();
        Ok(Prepared(dir))
    }

    /// Returns the samples that a query has now.
    pub(super) fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(query)));
        answer["result"].as_array().cloned().unwrap_or_else(|| panic!("{query}: {answer}"))
    }

    /// Returns whether a query has a sample that is a number, or a variable of the dashboard a value.
    pub(super) fn has_data(&self, query: &str) -> bool {
        match query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) {
            Some(arguments) => {
                let (selector, label) = arguments.rsplit_once(", ").expect("a selector and a label");
                let path = format!("/api/v1/label/{label}/values?match[]={}", encoded(selector));
                self.get(&path).as_array().is_some_and(|values| !values.is_empty())
            }
            None => self.query(query).iter().any(|sample| sample["value"][1].as_str() != Some("NaN")),
        }
    }

    /// Returns the value of a query with one sample.
    pub(super) fn value(&self, query: &str) -> Option<f64> {
        self.query(query).first()?["value"][1].as_str()?.parse().ok()
    }

    /// Fails with the targets that have not been scraped.
    pub(super) fn are_up(&self, targets: &[String]) -> Result<(), String> {
        let is_down = |target: &&String| self.value(&format!("up{{instance=\"{target}\"}}")) != Some(1.0);
        let down: Vec<_> = targets.iter().filter(is_down).collect();
        if down.is_empty() { Ok(()) } else { Err(format!("{down:?}")) }
    }

    pub(super) fn alerting_rules(&self) -> Vec<Alert> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let alert = |rule: &Value| Alert {
            name: text(&rule["name"]),
            query: text(&rule["query"]),
            severity: text(&rule["labels"]["severity"]),
            annotations: rule["annotations"].clone(),
        };
        self.rules("alert").iter().map(alert).collect()
    }

    pub(super) fn recording_rules(&self) -> Vec<String> {
        self.rules("record").iter().map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the names of the alerts that fire.
    pub(super) fn firing(&self) -> BTreeSet<String> {
        let alerts = self.alerts().into_iter().filter(|alert| alert["state"] == "firing");
        alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the annotations of all alerts that fire, with their values.
    pub(super) fn annotations(&self) -> Vec<String> {
        let texts = |alert: Value| alert["annotations"].as_object().cloned().unwrap_or_default().into_iter();
        self.alerts().into_iter().flat_map(texts).map(|(_, text)| text.as_str().unwrap().to_owned()).collect()
    }

    fn alerts(&self) -> Vec<Value> {
        self.get("/api/v1/alerts")["alerts"].as_array().cloned().unwrap_or_default()
    }

    fn rules(&self, kind: &str) -> Vec<Value> {
        let groups = self.get(&format!("/api/v1/rules?type={kind}"));
        let groups = groups["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|why| panic!("{path}: {why}"))
    }

    /// Returns the data of a response.
    fn try_get(&self, path: &str) -> Result<Value, String> {
        let exchange = || {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = exchange().map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let body: Value = serde_json::from_str(body).map_err(|why| format!("{why}: {body}"))?;
        if body["status"] == "success" { Ok(body["data"].clone()) } else { Err(body.to_string()) }
    }
}

impl Prepared {
    /// Starts it with these targets instead of those of the example, and with one that requires a token.
    pub(super) fn scrape(self, targets: &[String], guarded: &Guarded<'_>) -> Prometheus {
        let Prepared(dir) = self;
        let config = read("prometheus.yml").replace("15s", "500ms");
        let config = config.replace("[\"ambassador:9600\"]", &format!("{targets:?}"));
        let Guarded { target, token_file } = guarded;
        let job = format!(
            "  - job_name: with-token\n    authorization: {{credentials_file: {}}}\n    \
             static_configs: [{{targets: [\"{target}\"]}}]\n",
            token_file.display()
        );
        std::fs::write(dir.path().join("prometheus.yml"), config + &job).unwrap();
        let address = format!("{}:9090", private_ip());
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let prometheus = Prometheus { process: command.spawn().unwrap(), address, _dir: dir };
        eventually("a Prometheus", || prometheus.try_get("/api/v1/status/buildinfo"));
        prometheus
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Encodes the value of a query parameter.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let _ = if byte.is_ascii_alphanumeric() {
            write!(encoded, "{}", char::from(byte))
        } else {
            write!(encoded, "%{byte:02X}")
        };
        encoded
    })
}
