//! Every option, and every mistake.

use std::time::Duration;

use super::super::listen;
use super::*;
use crate::route::{Check, Health, ProxySender, ProxyTlv};

fn read(text: &str, listener: &str) -> Result<Options, Vec<Mistake>> {
    let listen = listen::parse(listener).unwrap();
    let mut options = Options::named("n");
    let mistakes = parse_into(&mut options, text, &listen, Author::Operator);
    if mistakes.is_empty() { Ok(options) } else { Err(mistakes) }
}

#[test]
fn every_option_is_read() {
    let text = "name=pg&balance=round-robin&slow-start=45s&backup=a,b:1&backup=c&hold=30s&connect-timeout=500ms\
                &idle-timeout=1h30m&half-close-timeout=1m&max-sessions=7&allow=10.0.0.0/8,::1&allow=1.2.3.4\
                &on-remove=cut&health=http:/up?a=b&health-interval=1s&health-timeout=100ms&health-rise=1&health-fall=9\
                &on-unhealthy=cut&deny=10.1.0.0/16&max-duration=8h&max-sessions-per-endpoint=5&rate=20\
                &identity=spiffe://td/pg&accept-proxy=10.0.0.0/8,::1&send-proxy=v2&proxy-tlv=ssl,unique-id&health-proxy=off\
                &tls=web&tls-peers=a,spiffe://td/b&tls-ca=/etc/c.pem&ca=/etc/ca.pem&sni=db.example.com&cert=client";
    let options = read(text, "5432").unwrap();
    let host = |host: &str, port| Target::Host { host: host.to_owned(), port };
    assert_eq!(
        options,
        Options {
            name: "pg".to_owned(),
            balance: Balance::RoundRobin,
            slow_start: Duration::from_secs(45),
            backup: vec![host("a", 5432), host("b", 1), host("c", 5432)],
            hold: Duration::from_secs(30),
            connect_timeout: Duration::from_millis(500),
            idle_timeout: Some(Duration::from_secs(5400)),
            half_close_timeout: Duration::from_secs(60),
            max_duration: Some(Duration::from_secs(8 * 3600)),
            max_sessions: Some(7),
            max_sessions_per_endpoint: Some(5),
            rate: Some(20),
            health: Health {
                check: Check::Http("/up?a=b".to_owned()),
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(100),
                rise: 1,
                fall: 9,
            },
            on_unhealthy: OnUnhealthy::Cut,
            allow: ["10.0.0.0/8", "::1/128", "1.2.3.4/32"].map(|net| net.parse().unwrap()).to_vec(),
            deny: vec!["10.1.0.0/16".parse().unwrap()],
            on_remove: OnRemove::Cut,
            identity: Some("spiffe://td/pg".to_owned()),
            peers: Vec::new(),
            accept_proxy: ["10.0.0.0/8", "::1/128"]
                .map(|net| ProxySender::Net(net.parse().unwrap()))
                .to_vec(),
            send_proxy: Some(ProxyVersion::V2),
            proxy_tlv: vec![ProxyTlv::Ssl, ProxyTlv::UniqueId],
            health_proxy: false,
            tls: Some("web".to_owned()),
            tls_peers: vec!["a".to_owned(), "spiffe://td/b".to_owned()],
            tls_ca: Some("/etc/c.pem".into()),
            ca: Some("/etc/ca.pem".into()),
            sni: Some("db.example.com".to_owned()),
            cert: Some("client".to_owned()),
        }
    );
}

#[test]
fn options_of_connections_are_rejected_on_other_listeners() {
    for listener in ["53/udp", "peer:redis"] {
        for text in ["accept-proxy=10.0.0.0/8", "tls=web"] {
            let mistakes = read(text, listener).expect_err(text);
            assert!(mistakes[0].message.contains("is not supported on the listener"), "{mistakes:?}");
        }
    }
}

#[test]
fn clients_of_a_unix_socket_send_a_header_or_none_does() {
    assert_eq!(read("accept-proxy=unix", "/run/a.sock").unwrap().accept_proxy, [ProxySender::Unix]);
    let mistakes = read("accept-proxy=10.0.0.0/8", "/run/a.sock").unwrap_err();
    assert!(mistakes[0].message.contains("on a unix socket"), "{mistakes:?}");
    assert!(mistakes[0].help.as_deref().unwrap().contains("`accept-proxy=unix`"), "{mistakes:?}");
}

#[test]
fn header_of_datagrams_is_that_of_version_2() {
    assert_eq!(read("send-proxy=v2", "53/udp").unwrap().send_proxy, Some(ProxyVersion::V2));
    for listener in ["53/udp", "peer:dns/udp"] {
        let mistakes = read("send-proxy=v1", listener).unwrap_err();
        assert!(mistakes[0].message.contains("is not supported on the UDP listener"), "{mistakes:?}");
        assert!(mistakes[0].help.as_deref().unwrap().contains("`send-proxy=v2`"), "{mistakes:?}");
    }
}

#[test]
fn an_option_without_effect_is_a_mistake() {
    for (text, help) in [
        ("proxy-tlv=ssl", "add `send-proxy=v2`"),
        ("proxy-tlv=ssl&send-proxy=v1", "add `send-proxy=v2`"),
        ("health-proxy=off", "add `send-proxy=v2`"),
        ("tls-peers=a", "add `tls=NAME`"),
        ("tls-ca=/etc/c.pem", "add `tls=NAME`"),
        ("ca=/etc/ca.pem", "`tls://HOST`"),
        ("sni=db", "`tls://HOST`"),
        ("cert=web", "`tls://HOST`"),
    ] {
        let options = read(text, "80").unwrap();
        let target = Target::Host { host: "a".to_owned(), port: 1 };
        let found = without_effect(&[target], &options);
        let [(name, mistake)] = found.as_slice() else { panic!("{text}: {found:?}") };
        assert!(text.starts_with(name), "{text}: {name}");
        assert!(mistake.help.as_deref().unwrap().contains(help), "{mistake:?}");
    }
}

#[test]
fn zero_and_off_are_accepted() {
    assert_eq!(read("hold=0", "80").unwrap().hold, Duration::ZERO);
    assert_eq!(read("hold=off", "80").unwrap().hold, Duration::ZERO);
    assert_eq!(read("idle-timeout=off", "80").unwrap().idle_timeout, None);
    assert_eq!(read("idle-timeout=0", "80").unwrap().idle_timeout, None);
    assert_eq!(read("max-sessions=off", "80").unwrap().max_sessions, None);
}

#[test]
fn every_mistake_has_a_help() {
    for (text, message, help) in [
        ("hodl=10s", "unknown option `hodl`", "did you mean `hold`?"),
        ("weight=3", "unknown option `weight`", "choose one of `name`"),
        ("tag=primary", "unknown option `tag`", "`consul://SERVICE+TAG@DATACENTER`"),
        ("", "missing option", "`option=value`"),
        ("hold=1s&", "missing option", "`option=value`"),
        ("hold", "missing value of `hold`", "write `hold=10s`"),
        ("hold=1s&hold=2s", "duplicate option `hold`", "keep one"),
        ("hold=10", "missing unit in `10`", "write `10s`"),
        ("hold=soon", "invalid duration `soon`", "`1h30m`"),
        ("hold=2years", "longer than a year", "365days"),
        ("balance=roundrobin", "invalid value `roundrobin`", "did you mean `round-robin`?"),
        ("balance=maglev", "invalid value `maglev`", "`source-hash`"),
        ("slow-start=5", "missing unit in `5`", "`5s`"),
        ("connect-timeout=0", "must be positive", "`3s`"),
        ("half-close-timeout=off", "cannot be `off`", "`24h`"),
        ("max-sessions=0", "invalid number of sessions", "from 1"),
        ("max-sessions=+1", "invalid number of sessions", "from 1"),
        ("allow=localhost", "invalid network `localhost`", "10.0.0.0/8"),
        ("on-remove=kill", "invalid value `kill` for `on-remove`", "`drain`, `cut`"),
        ("health=maybe", "invalid value `maybe`", "`off`"),
        ("health=http", "invalid path of a health check", "`health=http:/healthz`"),
        ("health=http://web/up", "invalid path of a health check", "without a host"),
        ("health=http:/a b", "invalid path of a health check", "without a host, a space"),
        ("health=rediss", "for `health`", "did you mean `redis`?"),
        ("health-interval=0", "less than 10 ms", "`5s`"),
        ("health-interval=off", "it cannot be off", "`health=off`"),
        ("health-rise=0", "invalid number of checks", "from 1 to 1000"),
        ("health-fal=2", "unknown option", "did you mean `health-fall`?"),
        ("on-unhealthy=kill", "invalid value `kill` for `on-unhealthy`", "`drain`, `cut`"),
        ("rate=0", "invalid number of sessions a second", "from 1"),
        ("deny=everybody", "invalid network `everybody`", "10.0.0.0/8"),
        ("identity=a:b", "invalid identity `a:b`", "letters"),
        ("identity=a&identity=b", "duplicate option `identity`", "keep one"),
        ("peers=web", "only supported on a listener `peer:NAME`", "allow="),
        ("accept-proxy", "missing value of `accept-proxy`", "write `accept-proxy=10.0.0.0/8`"),
        ("accept-proxy=lb", "invalid network `lb`", "10.0.0.0/8"),
        ("accept-proxy=unix", "invalid network `unix`", "10.0.0.0/8"),
        ("send-proxy=2", "invalid value `2` for `send-proxy`", "did you mean `v2`?"),
        ("proxy-tlv=ssl,unique", "invalid value `unique` for `proxy-tlv`", "`unique-id`"),
        ("health-proxy=no", "invalid value `no` for `health-proxy`", "did you mean `on`?"),
        ("tls=a/b", "invalid name of a certificate `a/b`", "`[[certificate]]`"),
        ("tls-ca=ca.pem", "not the absolute path of a file", "`tls-ca=/etc/ambassador/ca.pem`"),
        ("ca=/etc/a b", "it contains ' '", "letters"),
        ("sni=a b", "invalid host", ""),
        ("name=a b", "invalid name", "letters"),
        ("name=", "missing value of `name`", "name=redis"),
        ("backup=unix:pg", "not absolute", "begin the path"),
    ] {
        let mistakes = read(text, "80").expect_err(text);
        assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
        assert!(mistakes[0].message.contains(message), "{text}: {mistakes:?}");
        assert!(mistakes[0].help.as_deref().unwrap_or("").contains(help), "{text}: {mistakes:?}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mistakes = read("hodl=1s&allow=x,10.0.0.0/8,y&balance=z&hold=5", "80").unwrap_err();
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
}

#[test]
fn peers_are_the_identities_that_may_use_an_export() {
    let options = read("peers=web,spiffe://td/web&peers=host1&allow=10.0.0.0/8", "peer:redis").unwrap();
    assert_eq!(options.peers, ["web", "spiffe://td/web", "host1"]);
    assert_eq!(options.allow.len(), 1, "of the client's address, which the peer reports");
    assert_eq!(read("peers=a b,c,d:1", "peer:redis/udp").unwrap_err().len(), 2);
}

#[test]
fn identity_is_only_for_targets_that_can_be_peers_that_are_dialled() {
    use crate::config::grammar::parse_route;
    use crate::diagnostic::Place;
    let read = |target: &str| parse_route(&format!("80={target}identity=web"), &Place::Built);
    for target in [
        "peer://host/web?",
        "peer:1,peer://[::1]/web?",
        "etcd://h/p?",
        "consul://web?",
        "file:/etc/web?",
        "unix:/x?backup=peer://host/web&",
    ] {
        assert_eq!(read(target).unwrap().options.identity.as_deref(), Some("web"), "{target}");
    }
    for target in ["host?", "10.0.0.1?", "unix:/x?", "docker://a?", "srv://a?", "peer://@laptop/web?"] {
        let mistakes = read(target).expect_err(target);
        assert!(mistakes[0].message.contains("has no effect"), "{mistakes:?}");
    }
}

#[test]
fn a_unix_listener_does_not_support_allow() {
    assert!(read("allow=10.0.0.0/8", "/run/x.sock").is_err());
}

fn of_label(text: &str) -> Vec<Mistake> {
    of_label_with(text, "80")
}

fn of_label_with(text: &str, listener: &str) -> Vec<Mistake> {
    let listen = listen::parse(listener).unwrap();
    parse_into(&mut Options::named("n"), text, &listen, Author::Label)
}

/// A new option must be listed here if a label cannot set it.
const OF_OPERATORS: [&str; 12] = [
    "backup",
    "identity",
    "accept-proxy",
    "send-proxy",
    "proxy-tlv",
    "health-proxy",
    "tls",
    "tls-peers",
    "tls-ca",
    "ca",
    "sni",
    "cert",
];

#[test]
fn a_label_sets_the_options_that_affect_only_its_own_container() {
    for name in names() {
        let is_operators = OF_OPERATORS.contains(&name);
        let listener = if name == "peers" { "peer:redis" } else { "80" };
        let mistakes = of_label_with(&format!("{name}={}", key(name).unwrap().example), listener);
        assert_eq!(mistakes.is_empty(), !is_operators, "{name}: {mistakes:?}");
        assert_eq!(mistakes.iter().any(|m| m.message.contains("a label cannot set")), is_operators, "{name}");
    }
    let mistakes = of_label("backup=unix:/var/run/docker.sock&hold=1s");
    assert!(mistakes[0].help.as_deref().unwrap().contains("docker://NAME?backup="), "{mistakes:?}");
}

#[test]
fn the_resources_of_a_label_are_limited() {
    assert_eq!(of_label("hold=1m&health=tcp&health-interval=1s"), []);
    for (text, help) in [
        ("hold=61s", "`hold=1m`"),
        ("hold=365days", "`hold=1m`"),
        ("health-interval=999ms", "`health-interval=1s`"),
    ] {
        let mistakes = of_label(text);
        assert!(mistakes[0].help.as_deref().unwrap().contains(help), "{text}: {mistakes:?}");
        assert!(read(text, "80").is_ok(), "the operator may");
    }
}

#[test]
fn networks_of_ipv4_mapped_addresses_are_ipv4_networks() {
    for (text, network) in [
        ("::ffff:127.0.0.1/128", "127.0.0.1/32"),
        ("::ffff:127.0.0.1", "127.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        // Networks of IPv6, although they contain mapped addresses.
        ("::/0", "::/0"),
        ("::/80", "::/80"),
    ] {
        let network = vec![network.parse().unwrap()];
        assert_eq!(read(&format!("deny={text}"), "80").unwrap().deny, network, "{text}");
        assert_eq!(read(&format!("allow={text}"), "80").unwrap().allow, network, "{text}");
    }
    let mistakes = read("deny=::ffff:10.0.0.0/95", "80").unwrap_err();
    assert!(mistakes[0].help.as_deref().unwrap().contains("the IPv4 network"), "{mistakes:?}");
}
