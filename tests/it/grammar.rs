//! Link variables, compared to the ancestor's pipeline: the real `env`, `grep` and `sed`.

use std::collections::BTreeSet;
use std::process::Command;

use ambassador::config::links::links;
use ambassador::config::vars::Vars;
use ambassador::route::{Protocol, Target};
use proptest::prelude::*;

/// The ancestor's pipeline with `echo` instead of `socat`. The mark separates what `sed` produced from what it passed
/// through unchanged.
const ANCESTOR: &str =
    r"env | grep _TCP= | sed -n 's/.*_PORT_\([0-9]*\)_TCP=tcp:\/\/\(.*\):\(.*\)/LINK \1 \2 \3/p'";

/// Listening port, host and port of every link that the ancestor would have forwarded.
type Forwards = BTreeSet<(u16, String, u16)>;

fn ancestor(environment: &[(String, String)]) -> Forwards {
    let path = std::iter::once(("PATH", "/usr/bin:/bin"));
    let all = path.chain(environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let output = Command::new("sh").args(["-c", ANCESTOR]).env_clear().envs(all).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(forward).collect()
}

/// Returns `None` for what `socat` would have rejected: no port, port 0, no host.
fn forward(line: &str) -> Option<(u16, String, u16)> {
    let mut words = line.strip_prefix("LINK ")?.split(' ');
    let (listen, host, port) = (words.next()?, words.next()?, words.next()?);
    let port_of = |text: &str| text.parse().ok().filter(|port| *port != 0);
    Some((port_of(listen)?, host.to_owned(), port_of(port)?)).filter(|(_, host, _)| !host.is_empty())
}

fn ours(environment: &[(String, String)]) -> Forwards {
    let (routes, _) = links(&environment.iter().cloned().collect::<Vars>());
    let tcp = routes.iter().filter(|route| route.listen.protocol() == Protocol::Tcp);
    let forwards = tcp.flat_map(|route| {
        let port = route.listen.first_port().unwrap();
        route.targets.iter().map(move |target| (port, target))
    });
    forwards.filter_map(|(port, target)| Some((port, host_of(target)?, port_of(target)?))).collect()
}

fn host_of(target: &Target) -> Option<String> {
    match target {
        Target::Addr(addr) => Some(addr.ip().to_string()),
        Target::Host { host, .. } => Some(host.clone()),
        _ => None,
    }
}

fn port_of(target: &Target) -> Option<u16> {
    match target {
        Target::Addr(addr) => Some(addr.port()),
        Target::Host { port, .. } => Some(*port),
        _ => None,
    }
}

fn same(environment: &[(String, String)]) {
    assert_eq!(ours(environment), ancestor(environment), "{environment:?}");
}

fn pairs(environment: &[(&str, &str)]) -> Vec<(String, String)> {
    environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn documented_environment_is_parsed_like_the_ancestor() {
    let environment = pairs(&[
        ("REDIS_PORT", "tcp://172.17.0.136:6379"),
        ("REDIS_PORT_6379_TCP_ADDR", "172.17.0.136"),
        ("REDIS_NAME", "/redis_ambassador/redis"),
        ("HOSTNAME", "19d7adf4705e"),
        ("REDIS_PORT_6379_TCP_PORT", "6379"),
        ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
        ("REDIS_PORT_6379_TCP", "tcp://172.17.0.136:6379"),
    ]);
    assert_eq!(ancestor(&environment), Forwards::from([(6379, "172.17.0.136".to_owned(), 6379)]));
    same(&environment);
}

#[test]
fn unusual_aliases_are_parsed_like_the_ancestor() {
    same(&pairs(&[
        ("DB_2_PORT_1_TCP_PORT_5432_TCP", "tcp://10.0.0.2:5432"),
        ("_PORT_80_TCP", "tcp://10.0.0.3:81"),
        ("A_PORT_PORT_81_TCP", "tcp://10.0.0.4:82"),
        ("A_PORT_8000_TCP_START", "tcp://10.0.0.5:8000"),
        ("A_PORT_X_TCP", "tcp://10.0.0.6:8000"),
        ("A_PORT_90_TCP", "tcp://fd00::2:91"),
        ("A_PORT_91_UDP", "udp://10.0.0.7:91"),
    ]));
}

fn a_name() -> impl Strategy<Value = String> {
    let alias = "([A-Z_][A-Z0-9_]{0,6}|(DB_)?PORT|A_PORT_1_TCP|)";
    let middle = prop_oneof![8 => Just("_PORT_"), 1 => Just("_PORT"), 1 => Just("_PORT_PORT_")];
    let port = prop_oneof![8 => "[1-9][0-9]{0,3}", 1 => "0", 1 => "", 1 => "[0-9]{6}", 1 => "[A-Z]{1,2}"];
    let end =
        prop_oneof![8 => Just("_TCP"), 1 => Just("_TCP_START"), 1 => Just("_TCP_PORT"), 1 => Just("_UDP")];
    (alias, middle, port, end)
        .prop_map(|(alias, middle, port, end)| format!("{alias}{middle}{port}{end}"))
        // A shell does not pass on variables whose names begin with a digit.
        .prop_filter("a shell's name", |name| !name.starts_with(|c: char| c.is_ascii_digit()))
}

fn a_value() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        4 => any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        2 => "[a-z][a-z0-9-]{0,8}(\\.[a-z]{2,3})?",
        1 => any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
        1 => Just(String::new()),
    ];
    let port = prop_oneof![8 => "[1-9][0-9]{0,3}", 1 => "0", 1 => "", 1 => "[0-9]{6}"];
    let scheme = prop_oneof![12 => Just("tcp://"), 1 => Just("udp://"), 1 => Just("")];
    (scheme, host, port).prop_map(|(scheme, host, port)| format!("{scheme}{host}:{port}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_environments_are_parsed_like_the_ancestor(
        environment in proptest::collection::btree_map(a_name(), a_value(), 1..8)
    ) {
        let environment: Vec<_> = environment.into_iter().collect();
        prop_assert_eq!(ours(&environment), ancestor(&environment));
    }
}
