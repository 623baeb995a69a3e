//! A service that sends its name, and clients that request it in sequence.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::eventually;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Starts a service that sends its name of three letters to each connection, then echoes. Runs until the test's process
/// ends.
pub(crate) fn service(name: &'static str) -> SocketAddr {
    service_on(([127, 0, 0, 1], 0).into(), name)
}

/// Does the same on this address.
pub(crate) fn service_on(addr: SocketAddr, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(addr).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || greet_and_echo(&stream, name));
        }
    });
    addr
}

fn greet_and_echo(mut stream: &TcpStream, name: &str) {
    let mut buffer = [0; 65_536];
    let _ = stream.write_all(name.as_bytes());
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Connects and waits for the name.
pub(crate) fn greeting(addr: SocketAddr) -> io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut name = [0; 3];
    stream.read_exact(&mut name)?;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

/// Returns whether a session still echoes.
pub(crate) fn echoes(mut stream: &TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"?").is_ok() && stream.read_exact(&mut byte).is_ok()
}

/// Clients that each open one connection after the other until this is dropped.
pub(crate) struct Consumers {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) answers: BTreeMap<String, usize>,
    pub(crate) failures: Vec<String>,
}

impl Consumers {
    pub(crate) fn of(addr: SocketAddr, count: usize) -> Consumers {
        let (stop, report) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Report::default())));
        let consume = |_| {
            let (stop, report) = (stop.clone(), report.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = greeting(addr);
                    let mut report = report.lock().unwrap();
                    match answer {
                        Ok((_, name)) => *report.answers.entry(name).or_default() += 1,
                        Err(why) => report.failures.push(why.to_string()),
                    }
                }
            })
        };
        let threads = (0..count).map(consume).collect();
        Consumers { stop, report, threads }
    }

    pub(crate) fn report(&self) -> Report {
        self.report.lock().unwrap().clone()
    }

    pub(crate) fn answered(&self, name: &str) -> usize {
        self.report().answers.get(name).copied().unwrap_or(0)
    }

    /// Waits until this service has sent this many more replies.
    pub(crate) fn more(&self, name: &str, count: usize) {
        let before = self.answered(name);
        eventually("more answers", || {
            if self.answered(name) >= before + count { Ok(()) } else { Err(format!("{:?}", self.report())) }
        });
    }

    pub(crate) fn stop(mut self) -> Report {
        self.end();
        self.report()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.end();
    }
}
