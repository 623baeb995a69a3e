//! A proxy in front of an etcd that delays watches until it is opened.

use std::io::{Read, Write, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::support::eventually;

pub(super) struct Gate {
    pub(super) address: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    open: bool,
    watches: usize,
}

impl Gate {
    /// Starts the proxy, which runs until the test's process ends.
    pub(super) fn new(etcd: &str) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let (etcd, shared) = (etcd.to_owned(), Arc::clone(&state));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (etcd, state) = (etcd.clone(), Arc::clone(&shared));
                thread::spawn(move || pass(stream, &etcd, &state));
            }
        });
        Gate { address, state }
    }

    /// Waits for a watch request.
    pub(super) fn await_watch(&self) {
        eventually("a watch", || {
            if self.state.0.lock().unwrap().watches > 0 { Ok(()) } else { Err("none yet") }
        });
    }

    pub(super) fn open(&self) {
        self.state.0.lock().unwrap().open = true;
        self.state.1.notify_all();
    }
}

fn pass(mut consumer: TcpStream, etcd: &str, state: &(Mutex<State>, Condvar)) {
    let mut head = [0; 4096];
    let count = consumer.read(&mut head).unwrap_or(0);
    if head.starts_with(b"POST /v3/watch") {
        let mut state_now = state.0.lock().unwrap();
        state_now.watches += 1;
        drop(state.1.wait_while(state_now, |state| !state.open).unwrap());
    }
    let mut upstream = TcpStream::connect(etcd).unwrap();
    upstream.write_all(&head[..count]).unwrap();
    let (mut from, mut to) = (consumer.try_clone().unwrap(), upstream.try_clone().unwrap());
    thread::spawn(move || {
        copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    copy(&mut upstream, &mut consumer).ok();
    consumer.shutdown(Shutdown::Both).ok();
}
