//! A Docker engine that reports the images and containers of a test, in the format of 20.10.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

pub(crate) struct Engine {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Labels by image ID.
    images: BTreeMap<String, Value>,
    /// Their representation in `/containers/ID/json`, by name.
    containers: BTreeMap<String, Value>,
    created: usize,
    listeners: Vec<UnixStream>,
}

impl Engine {
    /// Starts the engine, which runs until the test's process ends.
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

    /// Returns the value for `DOCKER_HOST`.
    pub(crate) fn docker_host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// Creates an image with these labels, and returns its ID.
    pub(crate) fn image(&self, labels: Labels<'_>) -> String {
        let mut state = self.state.lock().unwrap();
        let id = format!("sha256:{:0>64}", state.images.len() + 1);
        state.images.insert(id.clone(), object(labels));
        id
    }

    /// Starts a container at 127.0.0.1 with the labels of its image and these. Returns its ID.
    pub(crate) fn run(&self, name: &str, image: &str, labels: Labels<'_>) -> String {
        let mut state = self.state.lock().unwrap();
        state.created += 1;
        let n = state.created;
        let id = format!("{n:0>12}{:0<52}", "");
        let mut all = state.images[image].clone();
        all.as_object_mut().unwrap().extend(object(labels).as_object().unwrap().clone());
        // A network of its own: an address that two containers claim on one network belongs to neither.
        let network = json!({ "NetworkID": format!("network-of-{n}"), "IPAddress": "127.0.0.1" });
        let container = json!({
            "Id": id, "Name": format!("/{name}"), "Image": image,
            "Created": format!("2026-01-01T00:{:02}:{:02}.5Z", n / 60, n % 60),
            "State": { "Running": true }, "HostConfig": { "NetworkMode": "default" },
            "Config": { "Labels": all }, "NetworkSettings": { "Networks": { "net": network } }
        });
        drop(state);
        self.start(name, container);
        id
    }

    /// Sets the result of the container's health check: `healthy` or `unhealthy`.
    pub(crate) fn set_health(&self, name: &str, health: &str) {
        let id = {
            let mut state = self.state.lock().unwrap();
            let container = state.containers.get_mut(name).unwrap();
            container["State"]["Health"] = json!({ "Status": health });
            container["Id"].as_str().unwrap().to_owned()
        };
        self.send_event(&format!("health_status: {health}"), &id);
    }

    /// Starts a container with this representation in `/containers/ID/json`.
    pub(crate) fn start(&self, name: &str, container: Value) {
        let id = container["Id"].as_str().unwrap().to_owned();
        self.state.lock().unwrap().containers.insert(name.to_owned(), container);
        self.send_event("start", &id);
    }

    /// Starts a container with port 6379 published on this port of the host. Returns its short ID.
    pub(crate) fn publish(&self, name: &str, label: (&str, &str), host_port: u16) -> String {
        let image = self.image(&[]);
        let id = self.next_id();
        let ports = json!({ "6379/tcp": [{ "HostIp": "0.0.0.0", "HostPort": host_port.to_string() }] });
        let container = json!({
            "Id": id, "Name": format!("/{name}"), "Image": image,
            "State": { "Running": true }, "HostConfig": { "NetworkMode": "default" },
            "Config": { "Labels": { label.0: label.1 } },
            "NetworkSettings": { "Ports": ports, "Networks": {} }
        });
        self.start(name, container);
        id[..12].to_owned()
    }

    /// Ends the container with this short ID; it is still listed, as exited.
    pub(crate) fn kill(&self, short_id: &str) {
        let id = {
            let mut state = self.state.lock().unwrap();
            let mut containers = state.containers.values_mut();
            let found = containers.find(|c| c["Id"].as_str().unwrap().starts_with(short_id)).unwrap();
            found["State"] = json!({ "Running": false });
            found["Id"].as_str().unwrap().to_owned()
        };
        self.send_event("die", &id);
    }

    /// Closes every event stream, as the restart of a daemon does.
    pub(crate) fn restart(&self) {
        for listener in self.state.lock().unwrap().listeners.drain(..) {
            listener.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        let container = self.state.lock().unwrap().containers.remove(name).unwrap();
        for action in ["die", "destroy"] {
            self.send_event(action, container["Id"].as_str().unwrap());
        }
    }

    fn next_id(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.created += 1;
        format!("{:0>12}{:0<52}", state.created, "")
    }

    fn send_event(&self, action: &str, id: &str) {
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": id } });
        for listener in &mut self.state.lock().unwrap().listeners {
            writeln!(listener, "{event}").ok();
        }
    }
}

fn object(labels: Labels<'_>) -> Value {
    labels.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
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
    let (status, body) = match body(path, &state.lock().unwrap()) {
        Some(body) => ("200 OK", body.to_string()),
        None => ("404 Not Found", "{\"message\":\"not found\"}".to_owned()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok();
}

fn body(path: &str, state: &State) -> Option<Value> {
    if path.ends_with("/version") {
        return Some(json!({ "Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12" }));
    }
    if path.contains("/containers/json") {
        let line = |c: &Value| {
            let networks = &c["NetworkSettings"]["Networks"];
            let state = if c["State"]["Running"] == false { "exited" } else { "running" };
            json!({ "Id": c["Id"], "Names": [c["Name"]], "State": state,
                "NetworkSettings": { "Networks": networks } })
        };
        return Some(state.containers.values().map(line).collect());
    }
    if path.contains("/images/") {
        let labels = state.images.iter().find(|(id, _)| path.contains(id.as_str()))?.1;
        return Some(json!({ "Config": { "Labels": labels } }));
    }
    state.containers.values().find(|c| path.contains(c["Id"].as_str().unwrap())).cloned()
}
