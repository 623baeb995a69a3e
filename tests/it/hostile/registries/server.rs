//! An HTTP server with replies set by the test, one thread per connection; it records requests.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request: `PUT /v1/x`, its headers in lower case, and its body.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

pub(super) enum Reply {
    /// Status with further header lines, and the body.
    Whole(String, Vec<u8>),
    /// No reply; the connection stays open.
    Silence,
    /// The reply of the server at this address.
    Pass(String),
}

pub(super) struct Server {
    pub(super) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    peak: Arc<AtomicUsize>,
}

impl Reply {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply::Whole("200 OK".to_owned(), body.into())
    }

    pub(super) fn status(status: &str, body: &str) -> Reply {
        Reply::Whole(status.to_owned(), body.as_bytes().to_vec())
    }
}

impl Server {
    /// Starts a server, which runs until the test's process ends.
    pub(super) fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::at("127.0.0.1:0", answer)
    }

    pub(super) fn at(address: &str, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, peak) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicUsize>::default());
        let (seen, most) = (Arc::clone(&requests), Arc::clone(&peak));
        let (answer, open) = (Arc::new(answer), Arc::<AtomicUsize>::default());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                let (open, most) = (Arc::clone(&open), Arc::clone(&most));
                let counted = move |request: &Request| {
                    most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
                    let reply = answer(request);
                    open.fetch_sub(1, SeqCst);
                    reply
                };
                thread::spawn(move || serve(stream, counted, &seen));
            }
        });
        Server { address, requests, peak }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Counts the requests with a line that contains these words.
    pub(super) fn count(&self, words: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.line.contains(words)).count()
    }

    /// Returns the maximum number of concurrent requests.
    pub(super) fn peak(&self) -> usize {
        self.peak.load(SeqCst)
    }
}

fn serve(mut stream: TcpStream, answer: impl Fn(&Request) -> Reply, seen: &Mutex<Vec<Request>>) {
    let Some((request, bytes)) = read(&mut stream) else { return };
    seen.lock().unwrap().push(request.clone());
    match answer(&request) {
        Reply::Whole(status, body) => {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).ok();
            stream.write_all(&body).ok();
        }
        Reply::Silence => drop(stream.read(&mut [0; 1])),
        Reply::Pass(to) => {
            let Ok(mut upstream) = TcpStream::connect(to) else { return };
            upstream.write_all(&bytes).ok();
            std::io::copy(&mut upstream, &mut stream).ok();
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<(Request, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            let line = line.trim_end_matches(" HTTP/1.1").to_owned();
            return Some((Request { line, head, body: body.to_owned() }, bytes));
        }
    }
}
