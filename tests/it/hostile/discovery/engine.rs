//! A Docker engine that can lose events and stop replying.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

const NETWORK: &str = "bridge-id";

#[derive(Default)]
struct State {
    containers: Vec<Container>,
    listeners: Vec<TcpStream>,
    lists: usize,
    subscriptions: usize,
    /// Containers whose inspection gets no reply.
    uninspectable: BTreeSet<String>,
    is_frozen: bool,
    /// Connections that get no reply.
    frozen: Vec<TcpStream>,
}

struct Container {
    id: String,
    name: String,
    running: bool,
    ip: String,
}

/// A fake engine, which runs until the test's process ends.
#[derive(Clone)]
pub(super) struct Engine {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Engine {
    pub(super) fn start() -> Engine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let engine = Engine { address, state: Arc::default() };
        let serving = engine.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let engine = serving.clone();
                thread::spawn(move || engine.answer(stream));
            }
        });
        engine
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn docker_host(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Returns the numbers of list and event requests.
    pub(super) fn request_counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.lists, state.subscriptions)
    }

    /// Starts a container, or restarts the one of this name, without an event.
    pub(super) fn run(&self, name: &str, ip: &str) {
        let mut state = self.state();
        let running = Container {
            id: format!("{:0>64}", format!("{:x}", name.bytes().map(usize::from).sum::<usize>())),
            name: name.to_owned(),
            running: true,
            ip: ip.to_owned(),
        };
        state.containers.retain(|container| container.name != name);
        state.containers.push(running);
    }

    /// Removes a container without an event.
    pub(super) fn remove(&self, name: &str) {
        let mut state = self.state();
        let container = state.containers.iter_mut().find(|c| c.name == name).unwrap();
        container.running = false;
    }

    /// Sends an event.
    pub(super) fn send_event(&self, name: &str, action: &str) {
        let mut state = self.state();
        let id = state.containers.iter().find(|c| c.name == name).unwrap().id.clone();
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": id } });
        for listener in &mut state.listeners {
            writeln!(listener, "{event}").ok();
        }
    }

    pub(super) fn hang_inspection_of(&self, name: &str) {
        let mut state = self.state();
        let id = state.containers.iter().find(|c| c.name == name).unwrap().id.clone();
        state.uninspectable.insert(id);
    }

    /// Existing event streams stay open without further events.
    pub(super) fn detach_event_streams(&self) {
        let mut state = self.state();
        let listeners = std::mem::take(&mut state.listeners);
        state.frozen.extend(listeners);
    }

    /// Accepts connections from now on without a reply, as a proxy in front of a dead host does.
    pub(super) fn freeze(&self) {
        self.state().is_frozen = true;
        self.detach_event_streams();
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut head = [0; 16384];
        let count = stream.read(&mut head).unwrap_or(0);
        let text = String::from_utf8_lossy(&head[..count]).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default();
        let mut state = self.state();
        let is_silent = state.is_frozen || state.uninspectable.iter().any(|id| path.contains(id.as_str()));
        if is_silent {
            return state.frozen.push(stream);
        }
        if path.contains("/events") {
            write!(stream, "HTTP/1.1 200 OK\r\n\r\n").ok();
            state.subscriptions += 1;
            return state.listeners.push(stream);
        }
        state.lists += usize::from(path.contains("/containers/json"));
        let body = body(path, &state.containers).to_string();
        drop(state);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok();
    }
}

fn body(path: &str, containers: &[Container]) -> Value {
    if path.ends_with("/version") {
        return json!({ "ApiVersion": "1.41", "MinAPIVersion": "1.12" });
    }
    if path.contains("/containers/json") {
        return containers.iter().map(listed).collect();
    }
    containers.iter().find(|c| path.contains(&c.id)).map(inspected).unwrap_or_default()
}

fn listed(container: &Container) -> Value {
    let state = if container.running { "running" } else { "exited" };
    json!({ "Id": container.id, "Names": [format!("/{}", container.name)], "State": state,
        "NetworkSettings": networks(container) })
}

fn inspected(container: &Container) -> Value {
    json!({ "Id": container.id, "Name": format!("/{}", container.name),
        "State": { "Running": container.running }, "HostConfig": { "NetworkMode": "default" },
        "Config": { "Labels": {} }, "NetworkSettings": networks(container) })
}

fn networks(container: &Container) -> Value {
    let ip = if container.running { container.ip.as_str() } else { "" };
    json!({ "Networks": { "bridge": { "NetworkID": NETWORK, "IPAddress": ip } } })
}
