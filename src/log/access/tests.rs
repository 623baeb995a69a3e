//! The exact lines, and that they are those that tracing would write.

use proptest::prelude::*;

use super::*;
use crate::address::{EndpointAddr, Identity};
use crate::config::LogLevel;
use crate::log::captured::Lines;
use crate::log::dispatch;

const HOSTILE: &str = "a\nb \"c\" \\ \u{1b}[2J\u{202e}=\u{7f}\u{e9}";

fn key(identity: Identity) -> EndpointKey {
    EndpointKey { addr: EndpointAddr::Inet("10.0.0.2:6379".parse().unwrap()), identity }
}

fn line<'a>(route: &'a str, endpoint: Option<&'a EndpointKey>) -> Line<'a> {
    Line {
        route,
        client: ClientAddr::Inet("10.0.0.9:41022".parse().unwrap()),
        endpoint: Connected(endpoint),
        peer: None,
        bytes_up: 31,
        bytes_down: 7,
        duration_ms: Milliseconds(Duration::from_nanos(12_400_400)),
        held_ms: Milliseconds(Duration::ZERO),
        attempts: 1,
        ending: Ending::Finished,
        why: None,
    }
}

fn unconnected(route: &str) -> Line<'_> {
    let why = Some("connection refused".to_owned());
    let held_ms = Milliseconds(Duration::from_micros(10_000_020));
    let client = ClientAddr::Unix;
    Line { client, why, held_ms, attempts: 97, ending: Ending::HoldExpired, ..line(route, None) }
}

fn written(line: &Line<'_>, format: Format, now: SystemTime) -> String {
    let mut bytes = Vec::new();
    line.write(format, now, &mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn check(line: &Line<'_>, format: Format, expected: &str) {
    let now = humantime::parse_rfc3339("2026-11-21T13:00:00.123456Z").unwrap();
    assert_eq!(written(line, format, now), expected);
}

const TEXT: Format = Format::Text { color: false, target: false };

#[test]
fn session_is_one_line_of_text() {
    let (redis, unnamed) = (key(Identity::Name("redis".to_owned())), key(Identity::Literal));
    check(
        &line("6379", Some(&redis)),
        TEXT,
        "2026-11-21T13:00:00.123456Z  INFO session route=6379 client=10.0.0.9:41022 \
         endpoint=\"10.0.0.2:6379 (redis)\" bytes_up=31 bytes_down=7 duration_ms=12.4 held_ms=0.0 attempts=1 \
         ending=finished\n",
    );
    check(
        &line("6379", Some(&unnamed)),
        Format::Text { color: true, target: true },
        "\x1b[2m2026-11-21T13:00:00.123456Z\x1b[0m \x1b[32m INFO\x1b[0m \x1b[2maccess\x1b[0m\x1b[2m:\x1b[0m session \
         route=6379 client=10.0.0.9:41022 endpoint=10.0.0.2:6379 bytes_up=31 bytes_down=7 duration_ms=12.4 \
         held_ms=0.0 attempts=1 ending=finished\n",
    );
    check(
        &unconnected("6379"),
        TEXT,
        "2026-11-21T13:00:00.123456Z  INFO session route=6379 client=unix endpoint=- bytes_up=31 bytes_down=7 \
         duration_ms=12.4 held_ms=10000.02 attempts=97 ending=hold-expired why=\"connection refused\"\n",
    );
}

#[test]
fn session_in_a_tunnel_names_the_peer() {
    let redis = key(Identity::Literal);
    let line = Line { peer: Some("host 1"), ..line("6379", Some(&redis)) };
    check(
        &line,
        TEXT,
        "2026-11-21T13:00:00.123456Z  INFO session route=6379 client=10.0.0.9:41022 endpoint=10.0.0.2:6379 \
         peer=\"host 1\" bytes_up=31 bytes_down=7 duration_ms=12.4 held_ms=0.0 attempts=1 ending=finished\n",
    );
    check(
        &line,
        Format::Json,
        "{\"timestamp\":\"2026-11-21T13:00:00.123456Z\",\"level\":\"INFO\",\"message\":\"session\",\"route\":\"6379\",\
         \"client\":\"10.0.0.9:41022\",\"endpoint\":\"10.0.0.2:6379\",\"peer\":\"host 1\",\"bytes_up\":31,\"bytes_down\":7,\
         \"duration_ms\":12.4,\"held_ms\":0.0,\"attempts\":1,\"ending\":\"finished\",\"target\":\"access\"}\n",
    );
}

#[test]
fn session_is_one_line_of_json() {
    check(
        &line("6379", Some(&key(Identity::Name("redis".to_owned())))),
        Format::Json,
        "{\"timestamp\":\"2026-11-21T13:00:00.123456Z\",\"level\":\"INFO\",\"message\":\"session\",\"route\":\"6379\",\
         \"client\":\"10.0.0.9:41022\",\"endpoint\":\"10.0.0.2:6379 (redis)\",\"bytes_up\":31,\"bytes_down\":7,\
         \"duration_ms\":12.4,\"held_ms\":0.0,\"attempts\":1,\"ending\":\"finished\",\"target\":\"access\"}\n",
    );
    check(
        &unconnected("6379"),
        Format::Json,
        "{\"timestamp\":\"2026-11-21T13:00:00.123456Z\",\"level\":\"INFO\",\"message\":\"session\",\"route\":\"6379\",\
         \"client\":\"unix\",\"endpoint\":\"-\",\"bytes_up\":31,\"bytes_down\":7,\"duration_ms\":12.4,\
         \"held_ms\":10000.02,\"attempts\":97,\"ending\":\"hold-expired\",\"why\":\"connection refused\",\
         \"target\":\"access\"}\n",
    );
}

#[test]
fn names_cannot_end_the_line_or_command_a_terminal() {
    let hostile = key(Identity::Key(HOSTILE.to_owned()));
    check(
        &line(HOSTILE, Some(&hostile)),
        TEXT,
        "2026-11-21T13:00:00.123456Z  INFO session route=\"a\\nb \\\"c\\\" \\\\ \\u{1b}[2J\\u{202e}=\\u{7f}\u{e9}\" \
         client=10.0.0.9:41022 endpoint=\"10.0.0.2:6379 (a\\nb \\\"c\\\" \\\\ \\u{1b}[2J\\u{202e}=\\u{7f}\u{e9})\" \
         bytes_up=31 bytes_down=7 duration_ms=12.4 held_ms=0.0 attempts=1 ending=finished\n",
    );
    check(
        &line(HOSTILE, None),
        Format::Json,
        "{\"timestamp\":\"2026-11-21T13:00:00.123456Z\",\"level\":\"INFO\",\"message\":\"session\",\
         \"route\":\"a\\nb \\\"c\\\" \\\\ \\u001b[2J\u{202e}=\u{7f}\u{e9}\",\"client\":\"10.0.0.9:41022\",\
         \"endpoint\":\"-\",\"bytes_up\":31,\"bytes_down\":7,\"duration_ms\":12.4,\"held_ms\":0.0,\"attempts\":1,\
         \"ending\":\"finished\",\"target\":\"access\"}\n",
    );
}

fn milliseconds(duration: Milliseconds) -> f64 {
    // Exact, unlike seconds: half a microsecond is rounded up.
    (duration.0.as_nanos() as f64 / 1e3).round() / 1e3
}

/// The same fields as a tracing event.
fn by_tracing(line: &Line<'_>, config: LogConfig, color: bool) -> String {
    let lines = Lines::default();
    let made = lines.clone();
    tracing::dispatcher::with_default(&dispatch(config, color, move || made.clone()), || {
        tracing::info!(
            target: "access",
            route = %line.route,
            client = %line.client,
            endpoint = %line.endpoint,
            peer = line.peer.map(tracing::field::display),
            bytes_up = line.bytes_up,
            bytes_down = line.bytes_down,
            duration_ms = milliseconds(line.duration_ms),
            held_ms = milliseconds(line.held_ms),
            attempts = line.attempts,
            ending = %line.ending,
            why = line.why.as_ref().map(tracing::field::display),
            "session"
        );
    });
    lines.text()
}

/// When the line was written, as it says itself.
fn time(line: &str) -> SystemTime {
    let start = line.find("20").unwrap();
    humantime::parse_rfc3339(&line[start..start + "2026-11-21T13:00:00.123456Z".len()]).unwrap()
}

fn same_as_tracing(line: &Line<'_>) {
    for format in [LogFormat::Text, LogFormat::Json] {
        for level in [LogLevel::Info, LogLevel::Debug] {
            for color in [false, true] {
                let config = LogConfig { format, level };
                let expected = by_tracing(line, config, color);
                assert_eq!(written(line, Format::of(config, color), time(&expected)), expected);
            }
        }
    }
}

#[test]
fn every_ending_is_written_as_tracing_writes_it() {
    for ending in Ending::ALL {
        same_as_tracing(&Line { ending, ..unconnected("r") });
    }
}

proptest! {
    #[test]
    fn line_is_the_one_that_tracing_writes_of_the_same_fields(
        route in "(\\PC|\\pC|[\\n\\r\\t \"=\\\\]){0,20}",
        name in "(\\PC|\\pC|[\\n\\r\\t \"=\\\\]){0,20}",
        nanoseconds: u32,
        microseconds: u32,
        bytes: u64,
        attempts: u32,
        peer: Option<String>,
    ) {
        let endpoint = key(Identity::Container { id: "0123456789abcdef".to_owned(), name });
        same_as_tracing(&Line {
            duration_ms: Milliseconds(Duration::from_nanos(u64::from(nanoseconds))),
            held_ms: Milliseconds(Duration::from_micros(u64::from(microseconds))),
            bytes_up: bytes,
            attempts,
            peer: peer.as_deref(),
            ..line(&route, Some(&endpoint))
        });
    }
}
