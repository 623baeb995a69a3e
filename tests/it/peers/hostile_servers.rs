//! Hostile peers with valid credentials that are dialled: consumers see a reset and never a truncated stream, other endpoints
//! are used, and the number of tunnels is bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::raw::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, PING,
    RST_STREAM, Raw, SETTINGS, field, frame,
};
use crate::support::{Ambassador, Pair, Secret, Service, ask, eventually, private_ip};

const TIMEOUT: Duration = Duration::from_secs(30);

/// `:status 200` in the static table (RFC 7541, appendix A).
const OK: [u8; 1] = [0x88];

/// A consumer's ambassador whose only peer is written by hand.
struct Dialling {
    dialler: Ambassador,
    tunnels: Arc<AtomicUsize>,
    _secret: Secret,
}

impl Dialling {
    /// Starts it. `serve` gets each tunnel; `options` are those of the route, written as `&option=value`.
    fn start(
        options: &str,
        settings: &'static [(u16, u32)],
        serve: impl Fn(Raw) + Send + Sync + 'static,
    ) -> Dialling {
        Dialling::with(Secret::new(), "", options, settings, serve)
    }

    fn with(
        secret: Secret,
        others: &str,
        options: &str,
        settings: &'static [(u16, u32)],
        serve: impl Fn(Raw) + Send + Sync + 'static,
    ) -> Dialling {
        let listener = TcpListener::bind((private_ip(), 0)).unwrap();
        let peer = listener.local_addr().unwrap();
        let tunnels = Arc::new(AtomicUsize::new(0));
        let count = tunnels.clone();
        Raw::serve(&secret, listener, settings, move |raw| {
            count.fetch_add(1, Ordering::Relaxed);
            serve(raw);
        });
        let route = format!("127.0.0.1:0=peer://{peer}/x{others}?name=r{options}");
        let dialler = Ambassador::with(&format!("{} {route}", secret.flags("dialler"))).start();
        Dialling { dialler, tunnels, _secret: secret }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.dialler.addr("r")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    fn logs(&self, text: &str) {
        eventually(text, || match self.dialler.log() {
            log if log.contains(text) => Ok(()),
            log => Err(log),
        });
    }
}

/// Calls `each` with every frame of the peer that is about a session.
fn on_frames(mut raw: Raw, mut each: impl FnMut(&mut Raw, &Frame)) {
    raw.tcp.set_read_timeout(None).unwrap();
    while let Some(frame) = raw.next_of_session() {
        each(&mut raw, &frame);
    }
}

fn is_request(frame: &Frame) -> bool {
    frame.kind == HEADERS
}

#[test]
fn stream_that_ends_with_the_connection_is_a_reset_and_not_an_end() {
    for shutdown in [true, false] {
        let dialling = Dialling::start("", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    raw.frame(HEADERS, END_HEADERS, frame.stream, &OK);
                    raw.frame(DATA, 0, frame.stream, b"partial");
                    if shutdown {
                        raw.tcp.shutdown(std::net::Shutdown::Both).unwrap();
                    } else {
                        socket2::SockRef::from(&raw.tcp).set_linger(Some(Duration::ZERO)).unwrap();
                        raw.goaway(frame.stream, 0);
                        raw.tcp.shutdown(std::net::Shutdown::Write).unwrap();
                    }
                }
            });
        });
        let mut received = Vec::new();
        let error = dialling.connect().read_to_end(&mut received).unwrap_err();
        assert_eq!((error.kind(), received.as_slice()), (ErrorKind::ConnectionReset, &b"partial"[..]));
        dialling.logs("ending=tunnel-lost");
    }
}

#[test]
fn reset_of_a_stream_is_a_reset_after_its_data() {
    // CANCEL, INTERNAL_ERROR, CONNECT_ERROR.
    for code in [8_u32, 2, 10] {
        let dialling = Dialling::start("", &[], move |raw| {
            on_frames(raw, |raw, request| {
                if is_request(request) {
                    let stream = request.stream;
                    let frames = [
                        frame(HEADERS, END_HEADERS, stream, &OK),
                        frame(DATA, 0, stream, b"partial"),
                        frame(RST_STREAM, 0, stream, &code.to_be_bytes()),
                    ];
                    raw.try_write(&frames.concat());
                }
            });
        });
        let mut received = Vec::new();
        let error = dialling.connect().read_to_end(&mut received).unwrap_err();
        assert_eq!(
            (error.kind(), received.as_slice()),
            (ErrorKind::ConnectionReset, &b"partial"[..]),
            "{code}"
        );
        dialling.logs("ending=upstream-reset");
    }
}

#[test]
fn ends_of_streams_in_unusual_places_are_ends() {
    for (what, end) in [
        ("the answer", vec![(HEADERS, END_HEADERS | END_STREAM, OK.to_vec())]),
        ("an empty frame", vec![(HEADERS, END_HEADERS, OK.to_vec()), (DATA, END_STREAM, vec![])]),
        (
            "trailers",
            vec![(HEADERS, END_HEADERS, OK.to_vec()), (HEADERS, END_HEADERS | END_STREAM, field("a", "b"))],
        ),
        (
            "a provisional answer before",
            vec![
                (HEADERS, END_HEADERS, field(":status", "103")),
                (HEADERS, END_HEADERS, OK.to_vec()),
                (DATA, END_STREAM, vec![]),
            ],
        ),
    ] {
        let dialling = Dialling::start("", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    for (kind, flags, payload) in &end {
                        raw.frame(*kind, *flags, frame.stream, payload);
                    }
                }
            });
        });
        let mut stream = dialling.connect();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{what}");
        drop(stream);
        dialling.logs("ending=finished");
    }
}

#[test]
fn no_byte_is_sent_before_the_answer() {
    let dialling = Dialling::start("", &[], |mut raw| {
        let mut stream = None;
        let mut pongs = 0;
        while let Some(frame) = raw.next() {
            match frame.kind {
                HEADERS => stream = Some(frame.stream),
                DATA => {
                    // Confirmed to the client by the number of round trips before it.
                    raw.frame(DATA, END_STREAM, frame.stream, &[pongs]);
                }
                PING if frame.flags & ACK == 0 => {
                    raw.frame(PING, ACK, 0, &frame.payload);
                }
                PING => pongs += 1,
                SETTINGS if frame.flags & ACK == 0 => {
                    raw.frame(SETTINGS, ACK, 0, &[]);
                }
                _ => {}
            }
            match stream {
                Some(stream) if pongs == 50 => {
                    raw.frame(HEADERS, END_HEADERS, stream, &OK);
                    pongs += 1;
                }
                Some(_) if pongs < 50 => {
                    raw.frame(PING, 0, 0, &[1; 8]);
                }
                _ => {}
            }
        }
    });
    let mut stream = dialling.connect();
    stream.write_all(b"a request").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.len() == 1 && answer[0] > 50, "round trips before the first byte: {answer:?}");
}

#[test]
fn refusals_for_good_end_the_session_at_once() {
    for status in ["400", "403", "404"] {
        let dialling = Dialling::start("&hold=10m", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    raw.frame(HEADERS, END_HEADERS | END_STREAM, frame.stream, &field(":status", status));
                }
            });
        });
        dialling.connect().read(&mut [0; 1]).unwrap_err();
        dialling.logs("ending=peer-refused");
    }
}

#[test]
fn few_interim_responses_are_skipped_and_many_end_the_tunnel() {
    for (interim, is_served) in [(16, true), (17, false)] {
        let (sender, end_of_tunnel) = std::sync::mpsc::channel();
        let dialling = Dialling::start("&hold=0s&connect-timeout=20s", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    for _ in 0..interim {
                        raw.frame(HEADERS, END_HEADERS, frame.stream, &field(":status", "103"));
                    }
                    raw.frame(HEADERS, END_HEADERS, frame.stream, &OK);
                    raw.frame(DATA, END_STREAM, frame.stream, b"one");
                }
            });
            sender.send(()).ok();
        });
        let mut name = String::new();
        let result = dialling.connect().read_to_string(&mut name);
        assert_eq!((result.is_ok(), name == "one"), (is_served, is_served), "{interim}: {result:?}");
        if !is_served {
            end_of_tunnel.recv_timeout(TIMEOUT).expect("the end of the tunnel");
        }
    }
}

/// Starts a route to a hostile peer and, after it, a good one, and returns the number of tunnels of the hostile peer.
fn next_endpoint_serves(
    options: &str,
    settings: &'static [(u16, u32)],
    serve: impl Fn(Raw) + Send + Sync + 'static,
) -> usize {
    let service = Service::new("two");
    let Pair { exporter: _exporter, dialler: _dialler, peer, secret, .. } = Pair::new(&service.addr, "", "");
    let options = format!("&balance=round-robin{options}");
    let dialling = Dialling::with(secret, &format!(",peer://{peer}/x"), &options, settings, serve);
    for _ in 0..6 {
        assert_eq!(ask(dialling.dialler.addr("r")), "two");
    }
    dialling.tunnels.load(Ordering::Relaxed)
}

#[test]
fn next_endpoint_serves_when_a_peer_refuses_for_now() {
    for status in ["429", "500", "502", "503", "504"] {
        next_endpoint_serves("", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    raw.frame(HEADERS, END_HEADERS | END_STREAM, frame.stream, &field(":status", status));
                }
            });
        });
    }
}

#[test]
fn next_endpoint_serves_when_streams_are_refused_or_reset() {
    // REFUSED_STREAM, CANCEL.
    for code in [7_u32, 8] {
        next_endpoint_serves("", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    raw.frame(RST_STREAM, 0, frame.stream, &code.to_be_bytes());
                }
            });
        });
    }
}

#[test]
fn next_endpoint_serves_when_tunnels_end_at_once() {
    next_endpoint_serves("", &[], |mut raw| {
        raw.goaway(0, 0);
        while raw.next().is_some() {}
    });
    next_endpoint_serves("", &[], drop);
    // Nothing is answered, not even the preface.
    next_endpoint_serves("&connect-timeout=500ms&hold=2s", &[], |raw| {
        let _ = raw.tcp.shutdown(std::net::Shutdown::Read);
        thread::park_timeout(TIMEOUT);
    });
}

#[test]
fn peer_without_room_for_streams_gets_few_tunnels() {
    let settings = &[(MAX_CONCURRENT_STREAMS, 0)];
    let dialling = Dialling::start("&hold=2s&connect-timeout=1s", settings, |raw| on_frames(raw, |_, _| {}));
    let mut clients: Vec<TcpStream> = (0..60).map(|_| dialling.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let tunnels = dialling.tunnels.load(Ordering::Relaxed);
    assert!(tunnels <= 100, "{tunnels} tunnels for 60 sessions");
}

#[test]
fn peer_with_room_for_one_stream_a_tunnel_serves() {
    let dialling = Dialling::start("", &[(MAX_CONCURRENT_STREAMS, 1)], |raw| {
        on_frames(raw, |raw, frame| {
            if is_request(frame) {
                raw.frame(HEADERS, END_HEADERS, frame.stream, &OK);
                raw.frame(DATA, 0, frame.stream, b"x");
            }
        });
    });
    let mut clients: Vec<TcpStream> = (0..6).map(|_| dialling.connect()).collect();
    for client in &mut clients {
        client.read_exact(&mut [0; 1]).unwrap();
    }
}

#[test]
fn peer_that_stops_gracefully_keeps_its_session_and_gets_no_new_one() {
    let dialling = Dialling::start("", &[], |raw| {
        let mut requests = 0;
        on_frames(raw, |raw, frame| match frame.kind {
            HEADERS => {
                requests += 1;
                raw.frame(HEADERS, END_HEADERS, frame.stream, &OK);
                raw.goaway(frame.stream, 0);
                assert_eq!(requests, 1);
            }
            // Echo.
            DATA => {
                raw.frame(DATA, frame.flags & END_STREAM, frame.stream, &frame.payload);
            }
            _ => {}
        });
    });
    let mut streams: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut stream = dialling.connect();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream
        })
        .collect();
    assert_eq!(dialling.tunnels.load(Ordering::Relaxed), 5);
    for stream in &mut streams {
        stream.write_all(b"still").unwrap();
        let mut still = [0; 5];
        stream.read_exact(&mut still).unwrap();
        assert_eq!(&still, b"still");
    }
}

#[test]
fn upload_waits_for_windows_and_is_exact() {
    const BYTES: usize = 200_000;
    let (sender, received) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let dialling = Dialling::start("", &[(INITIAL_WINDOW_SIZE, 0)], move |raw| {
        let mut all = Vec::new();
        on_frames(raw, |raw, frame| match frame.kind {
            HEADERS => {
                raw.frame(HEADERS, END_HEADERS, frame.stream, &OK);
                raw.window_update(frame.stream, 1);
            }
            DATA => {
                all.extend_from_slice(&frame.payload);
                // One byte, then seven, then growing windows, always exactly used up.
                let next = u32::try_from(all.len() * 7).unwrap().clamp(1, 30_000);
                raw.window_update(0, u32::try_from(frame.payload.len().max(1)).unwrap());
                raw.window_update(frame.stream, next);
                if frame.flags & END_STREAM != 0 {
                    sender.lock().unwrap().send(std::mem::take(&mut all)).unwrap();
                    raw.frame(DATA, END_STREAM, frame.stream, b"");
                }
            }
            _ => {}
        });
    });
    let sent: Vec<u8> = (0..BYTES).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut stream = dialling.connect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert!(received.recv_timeout(TIMEOUT).unwrap() == sent);
}

#[test]
fn floods_of_a_peer_that_was_dialled_are_survived() {
    for chunk in [
        frame(PING, 0, 0, &[1; 8]).repeat(1_000),
        frame(SETTINGS, 0, 0, &[]).repeat(1_000),
        frame(SETTINGS, ACK, 0, &[]).repeat(1_000),
        frame(HEADERS, END_HEADERS, 1, &field(":status", "103")).repeat(1_000),
        frame(DATA, 0, 1, &[]).repeat(1_000),
        // A promise, although push is disabled.
        frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x88]),
        // Data before the answer.
        frame(DATA, 0, 1, b"early"),
        // Far beyond the window.
        frame(DATA, 0, 1, &[0; 60_000]).repeat(100),
    ] {
        let service = Service::new("two");
        let Pair { exporter: _exporter, dialler: _dialler, peer, secret, .. } =
            Pair::new(&service.addr, "", "");
        let dialling = Dialling::with(secret, &format!(",peer://{peer}/x"), "&hold=3s", &[], move |raw| {
            on_frames(raw, |raw, frame| {
                if is_request(frame) {
                    for _ in 0..50 {
                        if !raw.try_write(&chunk) {
                            break;
                        }
                    }
                }
            });
        });
        let memory = dialling.dialler.memory();
        let clients: Vec<TcpStream> = (0..4).map(|_| dialling.connect()).collect();
        eventually("the good peer serves", || {
            let mut name = String::new();
            match dialling.connect().read_to_string(&mut name) {
                Ok(_) if name == "two" => Ok(()),
                result => Err(format!("{result:?}")),
            }
        });
        drop(clients);
        let grown = dialling.dialler.memory().saturating_sub(memory);
        assert!(grown < 40 << 20, "{} KB more", grown >> 10);
        assert!(!dialling.dialler.log().contains("panicked"), "{}", dialling.dialler.log());
    }
}

#[test]
fn silent_listener_costs_one_connect_timeout() {
    let silent = TcpListener::bind((private_ip(), 0)).unwrap();
    let silent: SocketAddr = silent.local_addr().unwrap();
    let service = Service::new("two");
    let pair = Pair::new(&service.addr, "", "");
    let route = format!(
        "127.0.0.1:0=peer://{silent}/x,peer://{}/x?name=r&balance=round-robin&connect-timeout=300ms",
        pair.peer
    );
    let dialler = Ambassador::with(&format!("{} {route}", pair.secret.flags("third"))).start();
    for _ in 0..6 {
        assert_eq!(ask(dialler.addr("r")), "two");
    }
}
