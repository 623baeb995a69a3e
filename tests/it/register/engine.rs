//! A Docker engine that has the containers which the test gives it, and tells of them as 20.10 does.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

pub(crate) struct Engine {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// As `/containers/ID/json` shows them.
    containers: Vec<Value>,
    /// Who listens to events.
    listeners: Vec<UnixStream>,
}

impl Engine {
    /// Lives as long as the test's process.
    pub(crate) fn new() -> Engine {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Engine { dir, state }
    }

    /// As `DOCKER_HOST` names it.
    pub(crate) fn docker_host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// A container of this name, with port 6379 published on this port of the host. The beginning of its ID.
    pub(crate) fn run(&self, name: &str, label: (&str, &str), host_port: u16) -> String {
        let n = self.state.lock().unwrap().containers.len() + 1;
        let id = format!("{n:0>12}{:0<52}", "");
        let ports = json!({ "6379/tcp": [{ "HostIp": "0.0.0.0", "HostPort": host_port.to_string() }] });
        self.state.lock().unwrap().containers.push(json!({
            "Id": id, "Name": format!("/{name}"), "Image": format!("sha256:{:064}", 1),
            "State": { "Running": true }, "HostConfig": { "NetworkMode": "default" },
            "Config": { "Labels": { label.0: label.1 } },
            "NetworkSettings": { "Ports": ports, "Networks": {} }
        }));
        self.tell("start", &id);
        id[..12].to_owned()
    }

    pub(crate) fn kill(&self, id: &str) {
        let full = {
            let mut state = self.state.lock().unwrap();
            let found =
                state.containers.iter_mut().find(|c| c["Id"].as_str().unwrap().starts_with(id)).unwrap();
            found["State"] = json!({ "Running": false });
            found["Id"].as_str().unwrap().to_owned()
        };
        self.tell("die", &full);
    }

    /// Ends every event stream, as a daemon that is restarted does.
    pub(crate) fn restart(&self) {
        for listener in self.state.lock().unwrap().listeners.drain(..) {
            listener.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    fn tell(&self, action: &str, id: &str) {
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": id } });
        for listener in &mut self.state.lock().unwrap().listeners {
            writeln!(listener, "{event}").ok();
        }
    }
}

fn answer(mut stream: UnixStream, state: &Mutex<State>) {
    let mut head = [0; 16384];
    let count = stream.read(&mut head).unwrap_or(0);
    let text = String::from_utf8_lossy(&head[..count]).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default();
    if path.contains("/events") {
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n").ok();
        state.lock().unwrap().listeners.push(stream);
        return;
    }
    let body = body(path, &state.lock().unwrap().containers).to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok();
}

fn body(path: &str, containers: &[Value]) -> Value {
    if path.ends_with("/version") {
        return json!({ "ApiVersion": "1.41", "MinAPIVersion": "1.12" });
    }
    if path.contains("/containers/json") {
        let state = |container: &Value| match container["State"]["Running"] == true {
            true => "running",
            false => "exited",
        };
        let line = |c: &Value| json!({ "Id": c["Id"], "Names": [c["Name"]], "State": state(c) });
        return containers.iter().map(line).collect();
    }
    if path.contains("/images/") {
        return json!({ "Config": { "Labels": {} } });
    }
    let asked = containers.iter().find(|c| path.contains(c["Id"].as_str().unwrap()));
    asked.cloned().unwrap_or_default()
}
