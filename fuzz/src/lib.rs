//! One function per parser of untrusted input, or per group of parsers with the same input: none may panic, and some
//! assert more.
//!
//! `fuzz_targets` passes them to libFuzzer; `tests/it/corpus.rs` runs each with its seeds and mutations of them, in every
//! run of the tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ambassador::config::file::parse_file;
use ambassador::config::grammar::{Author, parse_listen, parse_options, parse_route};
use ambassador::config::legacy_args::translate;
use ambassador::config::links::links;
use ambassador::config::peer::PeerSettings;
use ambassador::config::vars::Vars;
use ambassador::diagnostic::Place;
use ambassador::discovery::docker::Containers;
use ambassador::discovery::docker::labels::{Labels, Policy};
use ambassador::discovery::{self, consul, dns, docker, etcd, file};
use ambassador::route::{self, Listen, Route};
use serde_json::json;

pub type Target = fn(&[u8]);

/// The targets, by the names of their seed directories.
pub const ALL: [(&str, Target); 17] = [
    ("admin", ambassador::admin::read_any),
    ("ancestor", ancestors),
    ("answers", answers),
    ("capsules", ambassador::tunnel::capsule::read_any),
    ("credentials", ambassador::credentials::read_any),
    ("dns", dns::read_any_answer),
    ("file", configuration),
    ("health", ambassador::cluster::health::probe::read_any),
    ("hello", ambassador::client_hello::read_any),
    ("http", http),
    ("label", label),
    ("links", link_variables),
    ("proc", proc_files),
    ("proxy", ambassador::proxy_protocol::read_any),
    ("requests", ambassador::tunnel::read_any_request),
    ("route", route),
    ("words", words),
];

/// Runs the target of this name.
///
/// # Panics
///
/// If the target does not exist or fails.
pub fn run(name: &str, bytes: &[u8]) {
    let target = ALL.iter().find(|(known, _)| *known == name);
    target.unwrap_or_else(|| panic!("unknown target `{name}`")).1(bytes);
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Parses a command line of an ancestor, one word per line.
pub fn ancestors(bytes: &[u8]) {
    let _ = translate(text(bytes).lines().map(OsString::from).collect());
}

/// Parses responses of Docker, Consul and etcd, as far as they are JSON.
pub fn answers(bytes: &[u8]) {
    if let Ok(answer) = serde_json::from_slice(bytes) {
        let _ = docker::read_any(&answer);
    }
    consul::read_any(bytes);
    etcd::read_any(bytes);
    ambassador::register::read_any(bytes);
}

/// Parses a configuration file; each route must survive formatting and parsing.
pub fn configuration(bytes: &[u8]) {
    let Ok(file) = parse_file(Path::new("a.toml"), text(bytes)) else { return };
    file.routes.iter().for_each(assert_round_trip);
}

/// Parses a complete HTTP response, from the status line to the last line of JSON.
pub fn http(bytes: &[u8]) {
    /// A size that fits into a socket's buffer.
    const BYTES_MAX: usize = 64 << 10;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let (ours, mut server) = UnixStream::pair().expect("a pair of sockets");
    server.write_all(&bytes[..bytes.len().min(BYTES_MAX)]).expect("room in the buffer");
    server.shutdown(Shutdown::Write).expect("a socket that is open");
    ours.set_nonblocking(true).expect("a socket that is open");
    runtime.block_on(async {
        let ours = tokio::net::UnixStream::from_std(ours).expect("a reactor");
        discovery::http::read_any(ours).await;
    });
}

/// Parses a container's label: `<LISTEN>` on the first line, `<PORT>[?options]` after it. The result must be a route or an
/// error, and a route may only open ports and lead to its own container.
pub fn label(bytes: &[u8]) {
    let (key, value) = text(bytes).split_once('\n').unwrap_or((text(bytes), ""));
    let author = Author::Label;
    if let (Ok(listen), Some((_, options))) =
        (parse_listen(key, author, &Place::Built), value.split_once('?'))
    {
        let _ = parse_options(options, &listen, author, &Place::Built);
    }
    let id = "a".repeat(64);
    let inspected = json!({
        "Id": id,
        "Name": "/c",
        "State": { "Running": true },
        "Config": { "Labels": { format!("ambassador.listen.{key}"): value } },
    });
    let container = docker::read_any(&inspected).expect("a container");
    let containers = Containers { by_id: BTreeMap::from([container]), ..Containers::default() };
    let peer = PeerSettings { secret_file: Some("/s".into()), ..PeerSettings::default() };
    let policy = Policy { peer: Some(&peer), ..Policy::default() };
    let (routes, mistakes) = Labels::parse(&containers).routes(&policy);
    assert!(routes.len() + mistakes.len() >= 1, "a label is a route or an error");
    for route in routes {
        let own =
            |target: &route::Target| matches!(target, route::Target::Docker { name, .. } if *name == id);
        assert!(route.all_targets().all(own), "a label may only name its own container: {route}");
        assert!(!matches!(route.listen, Listen::Unix(_)), "a label may not open a unix socket: {route}");
    }
}

/// Parses link variables, one `NAME=VALUE` per line; each route must survive formatting and parsing.
pub fn link_variables(bytes: &[u8]) {
    let pairs = text(bytes).lines().filter_map(|line| line.split_once('='));
    let vars: Vars = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    links(&vars).0.iter().for_each(assert_round_trip);
}

/// Parses the kernel's files that contain untrusted names: `cgroup`, `mountinfo`.
pub fn proc_files(bytes: &[u8]) {
    docker::read_any_text(text(bytes));
}

/// Parses a route; it must survive formatting and parsing, and each error must have a help text.
pub fn route(bytes: &[u8]) {
    match parse_route(text(bytes), &Place::Built) {
        Ok(route) => assert_eq!(parse_route(&route.to_string(), &Place::Built), Ok(route)),
        Err(mistakes) => assert!(mistakes.iter().all(|mistake| mistake.help.is_some()), "{mistakes:?}"),
    }
}

/// Parses the texts that sources read: `resolv.conf`, a hosts file, a file of endpoints, an etcd value.
pub fn words(bytes: &[u8]) {
    etcd::read_any(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        dns::read_any(text);
        file::read_any(text);
    }
}

fn assert_round_trip(route: &Route) {
    let again = parse_route(&route.to_string(), &Place::Built);
    assert!(again.is_ok_and(|again| again.runs_like(route)), "{route}");
}
