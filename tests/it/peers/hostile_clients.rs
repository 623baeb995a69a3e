//! Hostile peers with valid credentials that open sessions: each attack costs the attacker its stream or its tunnel, and the
//! sessions of other peers go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::raw::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PADDED,
    PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, connect, field, frame,
};
use crate::support::{Pair, eventually};

/// Error codes (RFC 9113, 7).
const PROTOCOL_ERROR: i64 = 1;
const INTERNAL_ERROR: i64 = 2;
const FLOW_CONTROL_ERROR: i64 = 3;
const FRAME_SIZE_ERROR: i64 = 6;
const REFUSED_STREAM: i64 = 7;
const CONNECT_ERROR: i64 = 10;
const ENHANCE_YOUR_CALM: i64 = 11;

const TIMEOUT: Duration = Duration::from_secs(30);

/// What a process may keep for an attacker besides the windows that it grants.
const MEMORY_MAX: u64 = 24 << 20;

/// A service that echoes each connection.
fn echo() -> SocketAddr {
    service(|mut stream| {
        let mut read = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut read, &mut stream);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    })
}

fn service(serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    addr
}

/// A pair whose export echoes, with a session that was open before an attack.
struct Attacked {
    pair: Pair,
    open: TcpStream,
    memory: u64,
}

impl Attacked {
    fn start() -> Attacked {
        Attacked::with(echo())
    }

    fn with(service: SocketAddr) -> Attacked {
        let pair = Pair::new(&echo().to_string(), "", "");
        let added = pair.exporter.verb(&format!("routes add peer:attacked={service}?name=attacked&hold=1s"));
        assert!(added.status.success(), "{added:?}");
        let mut open = TcpStream::connect(pair.addr).unwrap();
        open.set_read_timeout(Some(TIMEOUT)).unwrap();
        exchange(&mut open);
        let memory = pair.exporter.memory();
        Attacked { pair, open, memory }
    }

    fn dial(&self, settings: &[(u16, u32)]) -> Raw {
        Raw::dial(&self.pair.secret, self.pair.peer, settings)
    }

    /// Asserts that the open session and new ones go on, and that the process has kept little of the attack.
    fn survives(&mut self, attack: &str) {
        self.survives_with(attack, MEMORY_MAX);
    }

    fn survives_with(&mut self, attack: &str, memory_max: u64) {
        exchange(&mut self.open);
        let mut new = TcpStream::connect(self.pair.addr).unwrap();
        new.set_read_timeout(Some(TIMEOUT)).unwrap();
        exchange(&mut new);
        let grown = self.pair.exporter.memory().saturating_sub(self.memory);
        assert!(grown < memory_max, "{attack}: {} KB more", grown >> 10);
        let log = self.pair.exporter.log();
        assert!(!log.contains("panicked"), "{attack}: {log}");
    }
}

fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"are you there?").unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"are you there?");
}

#[test]
fn session_of_a_raw_peer_echoes() {
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    assert!(raw.connect(1, "attacked"));
    assert_eq!(raw.answer(1), Some(200));
    assert!(raw.frame(DATA, 0, 1, b"hello"));
    assert_eq!(raw.data(1, 5), b"hello");
    assert!(raw.frame(DATA, END_STREAM, 1, b"bye"));
    let mut rest = Vec::new();
    loop {
        let frame = raw.next_of_session().unwrap();
        assert_eq!((frame.kind, frame.stream), (DATA, 1));
        rest.extend_from_slice(&frame.payload);
        if frame.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(rest, b"bye");
    attacked.survives("no attack");
}

#[test]
fn requests_that_are_not_sessions_are_refused() {
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    let get = |path: &str| {
        [
            field(":method", "GET"),
            field(":scheme", "https"),
            field(":authority", "attacked"),
            field(":path", path),
        ]
        .concat()
    };
    let extended = |protocol: &str| {
        [
            field(":method", "CONNECT"),
            field(":protocol", protocol),
            field(":scheme", "https"),
            field(":authority", "attacked"),
            field(":path", "/"),
        ]
        .concat()
    };
    let long = "a".repeat(5_000);
    for (n, (block, statuses)) in [
        (get("/"), &[400][..]),
        (get("/.well-known/masque/udp/attacked/1/"), &[400, 404]),
        (extended("websocket"), &[400]),
        (extended("connect-udp"), &[400, 404]),
        (connect("other"), &[404]),
        (connect("other:6379"), &[404]),
        (connect("attacked:0:0"), &[400, 404, -PROTOCOL_ERROR]),
        (connect(""), &[400, 404, -PROTOCOL_ERROR]),
        (connect("user@attacked"), &[400, 404, -PROTOCOL_ERROR]),
        (connect("../attacked"), &[400, 404, -PROTOCOL_ERROR]),
        (connect("%61ttacked"), &[400, 404, -PROTOCOL_ERROR]),
        (connect("attacked\r\nx: y"), &[400, 404, -PROTOCOL_ERROR]),
        (connect(&long), &[400, 404, -PROTOCOL_ERROR]),
        (field(":method", "CONNECT"), &[400, -PROTOCOL_ERROR]),
        ([connect("attacked"), field(":path", "/")].concat(), &[400, -PROTOCOL_ERROR]),
        ([connect("attacked"), field("connection", "close")].concat(), &[400, -PROTOCOL_ERROR]),
        (connect("attacked"), &[200]),
        (connect("attacked:15008"), &[200]),
        ([connect("attacked"), field("forwarded", "for=_x;;;\"")].concat(), &[200]),
        ([connect("attacked"), field("forwarded", &"for=1.2.3.4:5,".repeat(500))].concat(), &[200]),
        ([connect("attacked"), field("ambassador-hold", "-1ms")].concat(), &[200]),
        ([connect("attacked"), field("ambassador-hold", "99999999999999999999999ms")].concat(), &[200]),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = 2 * u32::try_from(n).unwrap() + 1;
        assert!(raw.frame(HEADERS, END_HEADERS, stream, &block));
        let answer =
            raw.answer(stream).unwrap_or_else(|| panic!("the tunnel ended at {}", block.escape_ascii()));
        assert!(statuses.contains(&answer), "{answer} to {}", block.escape_ascii());
    }
    attacked.survives("odd requests");
}

#[test]
fn headers_beyond_the_limit_end_the_stream_or_the_tunnel() {
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    let block =
        [connect("attacked"), field("x", &"y".repeat(15_000)), field("z", &"y".repeat(15_000))].concat();
    let (first, rest) = block.split_at(16_000);
    assert!(raw.frame(HEADERS, 0, 1, first));
    raw.frame(CONTINUATION, END_HEADERS, 1, rest);
    let answer = raw.answer(1);
    assert!(matches!(answer, None | Some(431 | -7..0 | -11)), "{answer:?}");
    attacked.survives("large headers");
}

#[test]
fn violations_of_the_protocol_end_the_tunnel_with_their_code() {
    let mut attacked = Attacked::start();
    let large = vec![0; 65_537];
    let cases: &[(&str, Vec<u8>, &[i64])] = &[
        ("a frame too large", frame(DATA, 0, 1, &large), &[FRAME_SIZE_ERROR]),
        ("DATA on stream 0", frame(DATA, 0, 0, b"x"), &[PROTOCOL_ERROR]),
        ("DATA on an idle stream", frame(DATA, 0, 99, b"x"), &[PROTOCOL_ERROR]),
        (
            "HEADERS on an even stream",
            frame(HEADERS, END_HEADERS, 2, &connect("attacked")),
            &[PROTOCOL_ERROR],
        ),
        (
            "an overflow of the tunnel's window",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            &[FLOW_CONTROL_ERROR],
        ),
        ("an increment of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        ("a short WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("a short PING", frame(PING, 0, 0, &[0; 7]), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("a PING on a stream", frame(PING, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), &[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
        ("a name in capitals", frame(HEADERS, END_HEADERS, 1, &field("Upper", "x")), &[PROTOCOL_ERROR]),
        (
            "a window too large",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
            &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR],
        ),
        ("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &[]), &[PROTOCOL_ERROR]),
        (
            "another frame inside a header block",
            [frame(HEADERS, 0, 1, &connect("x")), frame(PING, 0, 0, &[0; 8])].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("bad compression", frame(HEADERS, END_HEADERS, 1, &[0xff; 40]), &[9, PROTOCOL_ERROR]),
        ("a promise", frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x88]), &[PROTOCOL_ERROR]),
        ("padding longer than the frame", frame(DATA, PADDED, 1, &[200, 0]), &[PROTOCOL_ERROR]),
    ];
    for (what, bytes, codes) in cases {
        let mut raw = attacked.dial(&[]);
        raw.try_write(bytes);
        let code = raw.goaway_code();
        assert!(code.is_some_and(|code| codes.contains(&code)), "{what}: {code:?}");
    }
    // Not HTTP/2 at all.
    let mut raw = Raw::dial_without_preface(&attacked.pair.secret, attacked.pair.peer);
    raw.try_write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    while raw.next().is_some() {}
    // A type that this version does not know is ignored (RFC 9113, 4.1).
    let mut raw = attacked.dial(&[]);
    assert!(raw.frame(0xbe, 0xff, 77, &[1; 100]) && raw.connect(1, "attacked"));
    assert_eq!(raw.answer(1), Some(200));
    attacked.survives("violations");
}

#[test]
fn overflow_of_a_streams_window_resets_only_the_stream() {
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    for stream in [1, 3] {
        assert!(raw.connect(stream, "attacked"));
        assert_eq!(raw.answer(stream), Some(200));
    }
    assert!(raw.window_update(1, 0x7fff_ffff));
    assert_eq!(raw.answer(1), Some(-FLOW_CONTROL_ERROR));
    assert!(raw.frame(DATA, 0, 3, b"other"));
    assert_eq!(raw.data(3, 5), b"other");
    attacked.survives("an overflow");
}

/// A service that sends without end.
fn endless() -> SocketAddr {
    service(|mut stream| while stream.write_all(&[7; 65_536]).is_ok() {})
}

#[test]
fn peer_that_never_reads_costs_bounded_memory() {
    const STREAMS: u32 = 200;
    let mut attacked = Attacked::with(endless());
    // All windows are open, so that only the connection limits.
    let mut raw = attacked.dial(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
    assert!(raw.window_update(0, 0x7fff_0000));
    for n in 0..STREAMS {
        assert!(raw.connect(2 * n + 1, "attacked"));
    }
    eventually("all sessions", || sessions(&attacked.pair, "attacked", STREAMS as usize));
    // A frame of 64 KB for each stream.
    attacked.survives_with("a peer that never reads", MEMORY_MAX + u64::from(STREAMS) * (160 << 10));
    drop(raw);
    eventually("no session", || sessions(&attacked.pair, "attacked", 0));
}

/// Checks the number of open sessions of an export.
fn sessions(pair: &Pair, route: &str, expected: usize) -> Result<(), String> {
    let status = pair.exporter.verb("status --json").stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).map_err(|error| error.to_string())?;
    let routes = status["routes"].as_array().unwrap();
    let active = &routes.iter().find(|one| one["name"] == route).unwrap()["active"];
    if *active == expected { Ok(()) } else { Err(format!("{active} sessions, not {expected}")) }
}

#[test]
fn windows_of_nothing_and_of_single_bytes_are_obeyed() {
    let mut attacked = Attacked::with(endless());
    let mut raw = attacked.dial(&[(INITIAL_WINDOW_SIZE, 0)]);
    assert!(raw.connect(1, "attacked"));
    assert_eq!(raw.answer(1), Some(200));
    // The window of the tunnel would allow 65,535 bytes; that of the stream allows these.
    for _ in 0..300 {
        assert!(raw.window_update(1, 1));
        assert_eq!(raw.data(1, 1), [7]);
    }
    attacked.survives("tiny windows");
    assert!(raw.frame(
        SETTINGS,
        0,
        0,
        &[&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &1000_u32.to_be_bytes()].concat()
    ));
    assert_eq!(raw.data(1, 1000).len(), 1000);
}

#[test]
fn data_beyond_the_window_ends_stream_or_tunnel() {
    let deaf = service(|stream| {
        thread::park_timeout(TIMEOUT);
        drop(stream);
    });
    let mut attacked = Attacked::with(deaf);
    let mut raw = attacked.dial(&[]);
    assert!(raw.connect(1, "attacked"));
    assert_eq!(raw.answer(1), Some(200));
    // The window is 4 MiB, and the service's socket takes some more.
    for _ in 0..400 {
        if !raw.frame(DATA, 0, 1, &[0; 60_000]) {
            break;
        }
    }
    let mut codes = Vec::new();
    while codes.is_empty() {
        match raw.next() {
            Some(frame) if frame.kind == RST_STREAM => codes.push(super::raw::code(&frame.payload)),
            Some(frame) if frame.kind == GOAWAY => codes.push(super::raw::code(&frame.payload[4..])),
            Some(_) => {}
            None => break,
        }
    }
    assert!(codes.iter().all(|code| *code == FLOW_CONTROL_ERROR), "{codes:?}");
    attacked.survives("data beyond the window");
}

#[test]
fn tiny_frames_to_a_reader_that_stalls_are_kept_as_bytes() {
    // h2 keeps 131,000 such frames of a tunnel before it ends it.
    const BYTES: usize = 100_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut attacked = Attacked::with(listener.local_addr().unwrap());
    let mut raw = attacked.dial(&[]);
    assert!(raw.connect(1, "attacked"));
    assert_eq!(raw.answer(1), Some(200));
    let (served, _) = listener.accept().unwrap();
    // Full socket buffers, so that the rest stays in the ambassador: 3 MB of the window of 4 MiB.
    for _ in 0..50 {
        assert!(raw.frame(DATA, 0, 1, &[1; 60_000]));
    }
    let tiny: Vec<u8> = frame(DATA, 0, 1, &[2]).repeat(1_000);
    for _ in 0..BYTES / 1_000 {
        assert!(raw.try_write(&tiny));
    }
    assert!(raw.frame(DATA, END_STREAM, 1, &[3]));
    attacked.survives("tiny frames");
    let mut all = Vec::new();
    served.set_read_timeout(Some(TIMEOUT)).unwrap();
    let read = (&served).read_to_end(&mut all);
    assert!(read.is_ok(), "{read:?} after {} bytes: {}", all.len(), attacked.pair.exporter.log());
    assert_eq!(all.iter().filter(|byte| **byte == 2).count(), BYTES);
    assert_eq!(all.last(), Some(&3));
}

#[test]
fn padding_does_not_use_up_the_windows() {
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    assert!(raw.connect(1, "attacked"));
    assert_eq!(raw.answer(1), Some(200));
    // Each frame has 1 byte of data and 256 of padding: 5 MB, more than the window of the stream.
    let padded = [&[255][..], b"x", &[0; 255]].concat();
    let many = frame(DATA, PADDED, 1, &padded).repeat(50);
    let mut echoed = 0;
    for _ in 0..400 {
        assert!(raw.try_write(&many));
        echoed += raw.data(1, 50).len();
        assert!(raw.window_update(1, 50) && raw.window_update(0, 50));
    }
    assert_eq!(echoed, 20_000);
    attacked.survives("padding");
}

/// What a flood did to its own tunnel.
#[derive(Debug, PartialEq, Eq)]
enum Flooded {
    /// It was accepted, or is not read any more.
    Open,
    /// With the code of GOAWAY, if that arrived.
    Ended(Option<i64>),
}

/// Sends a chunk so many times, unless it is not accepted any more.
fn flood(raw: &mut Raw, chunk: &[u8], times: usize) -> Flooded {
    let is_accepted = (0..times).all(|_| raw.try_write(chunk)) && raw.frame(PING, 0, 0, b"the last");
    // What was accepted may wait in the buffers of the sockets: it takes a busy machine seconds to read a million frames.
    let silence_max = if is_accepted { TIMEOUT } else { Duration::from_secs(3) };
    raw.tcp.set_read_timeout(Some(silence_max)).unwrap();
    let mut code = None;
    loop {
        match raw.try_next() {
            Ok(Some(Frame { kind: PING, payload, .. })) if payload == b"the last" => return Flooded::Open,
            Ok(Some(Frame { kind: GOAWAY, payload, .. })) => code = payload.get(4..).map(super::raw::code),
            Ok(Some(_)) => {}
            Ok(None) => return Flooded::Ended(code),
            Err(_silent) => {
                assert!(!is_accepted, "neither an answer nor an end");
                return Flooded::Open;
            }
        }
    }
}

#[test]
fn floods_of_control_frames_are_survived() {
    let mut attacked = Attacked::start();
    for (what, chunk, opens) in [
        ("PING", frame(PING, 0, 0, &[1; 8]).repeat(1_000), false),
        ("PING answers", frame(PING, ACK, 0, &[1; 8]).repeat(1_000), false),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(1_000), false),
        ("SETTINGS answers", frame(SETTINGS, ACK, 0, &[]).repeat(1_000), false),
        ("empty DATA", frame(DATA, 0, 1, &[]).repeat(1_000), true),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()).repeat(1_000), true),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(1_000), true),
        ("unknown types", frame(0xbe, 0, 0, &[0; 10]).repeat(1_000), false),
        ("RST_STREAM", frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).repeat(1_000), true),
    ] {
        let mut raw = attacked.dial(&[]);
        if opens {
            assert!(raw.connect(1, "attacked"));
            assert_eq!(raw.answer(1), Some(200));
        }
        let flooded = flood(&mut raw, &chunk, 200);
        assert_ne!(flooded, Flooded::Ended(Some(INTERNAL_ERROR)), "{what}");
        attacked.survives(what);
    }
}

#[test]
fn endless_header_block_ends_the_tunnel() {
    let mut attacked = Attacked::start();
    for block in [vec![], field("x", &"y".repeat(10_000))] {
        let mut raw = attacked.dial(&[]);
        assert!(raw.frame(HEADERS, 0, 1, &connect("attacked")));
        let flooded = flood(&mut raw, &frame(CONTINUATION, 0, 1, &block).repeat(100), 100);
        // The code is lost if more is sent after it.
        assert!(
            matches!(flooded, Flooded::Ended(None | Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR))),
            "{flooded:?}"
        );
        attacked.survives("an endless header block");
    }
}

#[test]
fn rapid_resets_do_not_stop_others() {
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    let mut bytes = Vec::new();
    for n in 0..20_000 {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &connect("attacked")));
        bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    let flooded = flood(&mut raw, &bytes, 1);
    assert!(matches!(flooded, Flooded::Open | Flooded::Ended(None | Some(ENHANCE_YOUR_CALM))), "{flooded:?}");
    attacked.survives("rapid resets");
    drop(raw);
    eventually("no session", || sessions(&attacked.pair, "attacked", 0));
}

/// Waits until a tunnel is listed, which a PING follows. Fails with the code of GOAWAY, if that arrived, when it is refused.
fn listed(raw: &mut Raw) -> Result<(), Option<i64>> {
    let mut code = None;
    while let Some(frame) = raw.next() {
        match frame.kind {
            PING if frame.flags & ACK == 0 => {
                raw.frame(PING, ACK, 0, &frame.payload);
                return Ok(());
            }
            GOAWAY => code = frame.payload.get(4..).map(super::raw::code),
            _ => {}
        }
    }
    Err(code)
}

/// Answers each PING of a tunnel on a thread of its own.
fn keep(mut raw: Raw) -> TcpStream {
    let tcp = raw.tcp.try_clone().unwrap();
    thread::spawn(move || {
        while let Ok(Some(frame)) = raw.try_next() {
            if frame.kind == PING && frame.flags & ACK == 0 {
                raw.frame(PING, ACK, 0, &frame.payload);
            }
        }
    });
    tcp
}

#[test]
fn tunnels_of_one_peer_beyond_the_limit_are_refused() {
    const TUNNELS: usize = 256;
    let mut attacked = Attacked::start();
    let mut tunnels = Vec::new();
    // A busy machine loses a tunnel if a PING is answered late: more are made until one is refused.
    let code = loop {
        assert!(tunnels.len() < 2 * TUNNELS, "none is refused");
        let mut raw = attacked.dial(&[]);
        match listed(&mut raw) {
            Ok(()) => tunnels.push(keep(raw)),
            Err(code) => break code,
        }
    };
    assert!(tunnels.len() >= TUNNELS, "{}", tunnels.len());
    // A write that the other side has not read may hide the code.
    assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{code:?}");
    eventually("the refusal in the log", || match attacked.pair.exporter.log() {
        log if log.contains("tunnel refused: the peer has 256 from this address") => Ok(()),
        log => Err(log),
    });
    // Another peer on the same host opens sessions.
    attacked.survives_with("many tunnels", MEMORY_MAX + (TUNNELS as u64) * (256 << 10));
    tunnels.last().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    eventually("a tunnel of the same peer", || {
        let mut raw = attacked.dial(&[]);
        match raw.connect(1, "attacked").then(|| raw.answer(1)) {
            Some(Some(200)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    const STREAMS: u32 = 1_024;
    let mut attacked = Attacked::start();
    let mut raw = attacked.dial(&[]);
    for n in 0..=STREAMS {
        assert!(raw.connect(2 * n + 1, "attacked"));
    }
    let refused = raw.answer(2 * STREAMS + 1);
    // A limit of descriptors may come first.
    assert!(matches!(refused, Some(code) if code == -REFUSED_STREAM), "{refused:?}");
    attacked.survives_with("many streams", MEMORY_MAX + (STREAMS as u64) * (16 << 10));
}

#[test]
fn ends_of_streams_in_unusual_places_are_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut attacked = Attacked::with(listener.local_addr().unwrap());
    let mut raw = attacked.dial(&[]);
    let accept = || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    };
    // Data before the answer.
    assert!(raw.connect(1, "attacked") && raw.frame(DATA, 0, 1, b"early"));
    let mut early = [0; 5];
    accept().read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    // Trailers are the end of the stream.
    assert!(raw.connect(3, "attacked") && raw.frame(DATA, 0, 3, b"data"));
    assert!(raw.frame(HEADERS, END_HEADERS | END_STREAM, 3, &field("trailer", "x")));
    let mut all = Vec::new();
    accept().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"data");
    // The end with the CONNECT: the service sees FIN, and its bytes arrive.
    assert!(raw.frame(HEADERS, END_HEADERS | END_STREAM, 5, &connect("attacked")));
    let mut served = accept();
    assert_eq!(served.read(&mut [0; 1]).unwrap(), 0);
    served.write_all(b"answer").unwrap();
    assert_eq!(raw.data(5, 6), b"answer");
    // A reset by either side is a reset.
    assert!(raw.connect(7, "attacked"));
    let mut served = accept();
    assert_eq!(raw.answer(7), Some(200));
    assert!(raw.frame(RST_STREAM, 0, 7, &8_u32.to_be_bytes()));
    assert_eq!(served.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(raw.connect(9, "attacked"));
    let served = accept();
    assert_eq!(raw.answer(9), Some(200));
    socket2::SockRef::from(&served).set_linger(Some(Duration::ZERO)).unwrap();
    drop(served);
    assert_eq!(raw.answer(9), Some(-CONNECT_ERROR));
    // The peer leaves: sessions that are open then are reset, also those it had half-closed.
    assert!(raw.connect(11, "attacked"));
    let mut served = accept();
    assert_eq!(raw.answer(11), Some(200));
    assert!(raw.goaway(0, 0));
    served.write_all(b"still").unwrap();
    assert_eq!(raw.data(11, 5), b"still");
    drop(raw);
    assert_eq!(served.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    attacked.survives("ends of streams");
}
