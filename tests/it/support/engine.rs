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
    /// As `/containers/ID/json` shows them, by name.
    containers: BTreeMap<String, Value>,
    created: usize,
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

    /// Creates an image with these labels, and returns its ID.
    pub(crate) fn image(&self, labels: Labels<'_>) -> String {
        let mut state = self.state.lock().unwrap();
        let id = format!("sha256:{:0>64}", state.images.len() + 1);
        state.images.insert(id.clone(), object(labels));
        id
    }

    /// Starts a container of an image, with the image's labels and its own, at 127.0.0.1. Returns its ID.
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

    /// The container's own check has this result from now on: `healthy`, `unhealthy`.
    pub(crate) fn set_health(&self, name: &str, health: &str) {
        let id = {
            let mut state = self.state.lock().unwrap();
            let container = state.containers.get_mut(name).unwrap();
            container["State"]["Health"] = json!({ "Status": health });
            container["Id"].as_str().unwrap().to_owned()
        };
        self.tell(&format!("health_status: {health}"), &id);
    }

    /// Starts a container that `/containers/ID/json` shows like this.
    pub(crate) fn start(&self, name: &str, container: Value) {
        let id = container["Id"].as_str().unwrap().to_owned();
        self.state.lock().unwrap().containers.insert(name.to_owned(), container);
        self.tell("start", &id);
    }

    pub(crate) fn remove(&self, name: &str) {
        let container = self.state.lock().unwrap().containers.remove(name).unwrap();
        for action in ["die", "destroy"] {
            self.tell(action, container["Id"].as_str().unwrap());
        }
    }

    fn tell(&self, action: &str, id: &str) {
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
        None => ("404 Not Found", "{\"message\":\"there is none\"}".to_owned()),
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
            json!({ "Id": c["Id"], "Names": [c["Name"]], "State": "running",
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
