//! Whole routes, and the round trip from a printed route to the same route.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::route::{
    Balance, Check, ConsulService, EtcdKeys, Health, OnRemove, OnUnhealthy, PeerHost, PeerTarget,
    ProxySender, ProxyTlv, ProxyVersion, SharedPort,
};

fn place() -> Place {
    Place::Argument(1)
}

fn read(text: &str) -> Route {
    parse_route(text, &place()).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"))
}

fn mistakes(text: &str) -> Vec<Diagnostic> {
    parse_route(text, &place()).expect_err(text)
}

#[test]
fn the_routes_of_the_documentation_print_as_written() {
    for line in [
        "6379=redis:6379",
        "5432=db1:5432,db2:5432?hold=30s",
        "5432=db1:5432,db2:5432?balance=round-robin&hold=30s",
        "53/udp=10.0.0.2:53",
        "5432=docker://postgres",
        "6379=etcd://10.0.0.1:2379,etcd2:2379/services/redis,redis:6379?backup=etcds://h:2379/p",
        "8000-8100=10.0.0.2:9000",
        "/run/pg.sock=db:5432",
        "5432=unix:/run/pg.sock",
        "6379=srv://_redis._tcp.example.com",
        "6379=consul://redis",
        "6379=consul://10.0.0.1:8500/redis+primary@dc1?hold=5s",
        "6379=file:/etc/ambassador/redis.endpoints",
        "6379=docker://label:com.example.role=cache:6380",
        "peer:redis=redis:6379",
        "peer:redis:6379=docker://redis?peers=web,spiffe://example.com/web",
        "peer:dns/udp=10.0.0.2:53",
        "6379=peer://host1/redis",
        "6379=peer://host1:15009/redis,peer://10.0.0.2/redis?backup=peer://[fd00::2]/redis&identity=spiffe://td/db",
        "53/udp=peer://@laptop/dns",
        "peer:redis=peer://@spiffe://example.com/ns/db/redis",
        "[::1]:6379=[fd00::2]:6379?allow=fd00::/8,10.0.0.0/8",
    ] {
        assert_eq!(read(line).to_string(), line);
    }
}

#[test]
fn a_target_without_a_port_takes_the_listeners() {
    assert_eq!(read("6379=redis").to_string(), "6379=redis:6379");
    assert_eq!(read("8000-8100=web").to_string(), "8000-8100=web:8000");
}

#[test]
fn commas_in_options_do_not_separate_targets() {
    let route = read("80=a,b?allow=10.0.0.1,10.0.0.2&backup=c,d");
    assert_eq!((route.targets.len(), route.options.allow.len(), route.options.backup.len()), (2, 2, 2));
}

#[test]
fn a_route_is_named_after_its_listener_as_written() {
    assert_eq!(read("53/udp=dns").options.name, "53/udp");
    assert_eq!(read("6379/tcp=redis").options.name, "6379/tcp");
    assert_eq!(read("6379=redis?name=cache").options.name, "cache");
    let listen = parse_listen("6379", Author::Label, &place()).unwrap();
    assert_eq!(parse_options("hold=1s", &listen, Author::Label, &place()).unwrap().name, "6379");
}

#[test]
fn an_explicit_default_is_not_printed() {
    assert_eq!(read("1=a?balance=least-connections").to_string(), "1=a:1");
}

#[test]
fn every_mistake_of_a_route_is_reported_at_once() {
    let found = mistakes("redis=a:0,b,peer://c?hodl=1s&hold=5");
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|mistake| mistake.place == place() && mistake.help.is_some()), "{found:?}");
}

#[test]
fn half_a_route_is_explained_by_the_missing_half() {
    for (text, help) in [
        ("", "`6379=redis:6379`"),
        ("6379", "`6379=HOST`"),
        ("/run/pg.sock", "`/run/pg.sock=HOST`"),
        ("peer:redis", "`peer:redis=HOST:PORT`"),
        ("peer://host1/redis", "`PORT=peer://host1/redis`"),
        ("redis", "`PORT=redis`"),
        ("redis:6379", "`6379=redis:6379`"),
        ("redis:6379?hold=10s", "`6379=redis:6379`"),
        ("10.0.0.2:6379", "`10.0.0.2:6379=HOST`"),
        ("docker://redis", "`PORT=docker://redis`"),
        ("a b", "one word"),
        ("{}", "LISTEN=TARGET"),
    ] {
        let found = mistakes(text);
        let shown = found[0].help.clone().unwrap_or_default();
        assert!(shown.contains(help), "{text}: {found:?}");
    }
}

#[test]
fn a_backslash_for_a_shell_is_recognized_in_a_target() {
    let found = mistakes(r"80=redis\?hold=10s");
    assert!(found[0].help.as_deref().unwrap_or("").contains("without a backslash"), "{found:?}");
}

// === the round trip ===

fn a_host() -> impl Strategy<Value = String> {
    let known = ["localhost", "unix", "file", "docker", "srv", "tasks.db", "db_1.example.com."];
    prop_oneof![
        "[a-z][a-z0-9_-]{0,20}(\\.[a-z][a-z0-9-]{0,9}){0,2}",
        proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
    ]
}

fn a_path() -> impl Strategy<Value = PathBuf> {
    "(/[a-zA-Z0-9._@:~+-]{1,12}){1,4}".prop_map(PathBuf::from)
}

fn a_target(top: u16) -> impl Strategy<Value = Target> {
    let port = 1..=top;
    prop_oneof![
        (any::<IpAddr>(), port.clone()).prop_map(|(ip, port)| Target::Addr(SocketAddr::new(ip, port))),
        (a_host(), port.clone()).prop_map(|(host, port)| Target::Host { host, port }),
        a_host().prop_map(|name| Target::Srv { name }),
        ("[a-zA-Z0-9][a-zA-Z0-9_.-]{0,30}", proptest::option::of(port.clone()))
            .prop_map(|(name, port)| Target::Docker { name, port }),
        // A numeric key would be the port of a container named `label`.
        ("[a-z][a-z0-9./-]{0,9}", proptest::option::of("[a-z0-9./@+~-]{1,9}"), proptest::option::of(port))
            .prop_map(|(key, value, port)| Target::Labelled { key, value, port }),
        a_path().prop_map(Target::File),
        a_consul_service().prop_map(Target::Consul),
        an_etcd_target(),
    ]
}

fn a_consul_service() -> impl Strategy<Value = ConsulService> {
    let agent =
        proptest::option::of((a_host(), 1..=u16::MAX).prop_map(|(host, port)| format!("{host}:{port}")));
    let tags = proptest::collection::btree_set("[a-z0-9._/:=~-]{1,9}", 0..3);
    let datacenter = proptest::option::of("[a-z0-9_-]{1,9}");
    (agent, "[a-zA-Z0-9_.-]{1,9}", tags, datacenter)
        .prop_map(|(agent, service, tags, datacenter)| ConsulService { agent, service, tags, datacenter })
}

fn an_etcd_target() -> impl Strategy<Value = Target> {
    let host = prop_oneof![
        a_host().prop_map(|host| (host, false)),
        any::<IpAddr>().prop_map(|ip| (ip.to_string(), ip.is_ipv6()))
    ];
    let member =
        (host, 1..=u16::MAX).prop_map(
            |((host, v6), port)| {
                if v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
            },
        );
    let members =
        proptest::collection::hash_set(member, 1..4).prop_map(|members| members.into_iter().collect());
    (any::<bool>(), members, "(/[a-zA-Z0-9._:@+~-]{1,12}){1,4}")
        .prop_map(|(tls, members, prefix)| Target::Etcd(EtcdKeys { tls, members, prefix }))
}

fn a_listen() -> impl Strategy<Value = Listen> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let range = prop_oneof![
        any::<u16>().prop_map(PortRange::single),
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
    ];
    let name = prop_oneof![Just("*".to_owned()), "([*][.])?[a-z0-9_-]{1,9}([.][a-z0-9_-]{1,9}){0,2}"];
    prop_oneof![
        4 => (protocol, proptest::option::of(any::<IpAddr>()), range)
            .prop_map(|(protocol, ip, ports)| Listen::Inet { protocol, ip, ports }),
        1 => (proptest::option::of(any::<IpAddr>()), any::<u16>(), proptest::collection::btree_set(name, 1..4))
            .prop_map(|(ip, port, names)| Listen::Names { port: SharedPort { ip, port }, names }),
        1 => a_path().prop_map(Listen::Unix),
        1 => (prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)], an_export())
            .prop_map(|(protocol, name)| Listen::Peer { protocol, name }),
    ]
}

fn an_export() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,20}(:[1-9][0-9]{0,3})?"
}

fn an_identity() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9._-]{1,20}", "spiffe://[a-z0-9._-]{1,9}(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,9}){1,3}"]
}

fn a_peer() -> impl Strategy<Value = Target> {
    let port = || prop_oneof![Just(crate::route::PEER_PORT), 1..=u16::MAX];
    let host = prop_oneof![
        (any::<IpAddr>(), port()).prop_map(|(ip, port)| PeerHost::Addr(SocketAddr::new(ip, port))),
        (a_host(), port()).prop_map(|(host, port)| PeerHost::Name { host, port }),
        an_identity().prop_map(PeerHost::Identity),
    ];
    (host, an_export()).prop_map(|(host, export)| Target::Peer(PeerTarget { host, export }))
}

fn a_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..31_536_000_000u64).prop_map(Duration::from_millis),
        (1..31_536_000_000_000_000u64).prop_map(Duration::from_nanos),
    ]
}

fn some_targets(listen: &Listen, count: std::ops::Range<usize>) -> BoxedStrategy<Vec<Target>> {
    let is_single = listen.count() == 1;
    let top = match listen {
        Listen::Unix(_) | Listen::Peer { .. } | Listen::Names { .. } => u16::MAX,
        Listen::Inet { ports, .. } => u16::MAX - (ports.last - ports.first),
    };
    let mut one = a_target(top).boxed();
    if is_single {
        one = prop_oneof![5 => one, 1 => a_peer()].boxed();
    }
    if is_single && listen.protocol() == Protocol::Tcp {
        one = prop_oneof![5 => one, 1 => a_path().prop_map(Target::Unix)].boxed();
    }
    proptest::collection::vec(one, count)
        .prop_map(|targets| {
            let mut once = Vec::new();
            for target in targets {
                if !once.contains(&target) {
                    once.push(target);
                }
            }
            once
        })
        .boxed()
}

fn a_health() -> impl Strategy<Value = Health> {
    let known = [Check::Off, Check::Tcp, Check::Redis, Check::Postgres];
    let check = prop_oneof![
        proptest::sample::select(known.to_vec()),
        "/([a-z0-9._~!$'()*+,;=:@%?-][a-z0-9/._~!$'()*+,;=:@%?-]{0,20})?".prop_map(Check::Http),
    ];
    let pace = || (10..31_536_000_000u64).prop_map(Duration::from_millis);
    (check, pace(), pace(), 1..=1000u32, 1..=1000u32)
        .prop_map(|(check, interval, timeout, rise, fall)| Health { check, interval, timeout, rise, fall })
}

fn some_options(listen: &Listen) -> impl Strategy<Value = Options> + use<> {
    let name = prop_oneof![Just(listen.to_string()), "[a-zA-Z0-9._/:@+~-]{1,30}"];
    let network = (any::<IpAddr>(), 0..=32u8)
        .prop_map(|(ip, length)| ipnet::IpNet::new(ip.to_canonical(), length).unwrap());
    let allow = if matches!(listen, Listen::Unix(_)) { 0..1 } else { 0..4 };
    let choices = (
        proptest::sample::select(Balance::ALL.to_vec()),
        proptest::sample::select(OnRemove::ALL.to_vec()),
        proptest::sample::select(OnUnhealthy::ALL.to_vec()),
    );
    let times = (
        prop_oneof![Just(Duration::ZERO), a_duration()],
        a_duration(),
        proptest::option::of(a_duration()),
        a_duration(),
        prop_oneof![Just(Duration::ZERO), a_duration()],
    );
    let a_limit = || proptest::option::of(1..=u32::MAX);
    let peers = if matches!(listen, Listen::Peer { .. }) { 0..3 } else { 0..1 };
    let peers = (proptest::option::of(an_identity()), proptest::collection::vec(an_identity(), peers));
    let networks = || proptest::collection::vec(network.clone(), allow.clone());
    let sizes = (a_limit(), a_limit(), a_limit(), proptest::option::of(a_duration()), networks(), networks());
    let edges = some_edges(listen);
    (name, choices, some_targets(listen, 0..3), times, sizes, a_health(), peers, edges).prop_map(
        |(
            name,
            (balance, on_remove, on_unhealthy),
            backup,
            (hold, connect_timeout, idle_timeout, half_close_timeout, slow_start),
            (max_sessions, max_sessions_per_endpoint, rate, max_duration, allow, deny),
            health,
            (identity, peers),
            edges,
        )| {
            Options {
                name,
                balance,
                slow_start,
                backup,
                hold,
                connect_timeout,
                idle_timeout,
                half_close_timeout,
                max_duration,
                max_sessions,
                max_sessions_per_endpoint,
                rate,
                health,
                on_unhealthy,
                allow,
                deny,
                on_remove,
                identity,
                peers,
                ..edges
            }
        },
    )
}

/// The options of PROXY protocol and TLS. The others are the defaults.
fn some_edges(listen: &Listen) -> impl Strategy<Value = Options> + use<> {
    let of_connections = listen.protocol() == Protocol::Tcp && !matches!(listen, Listen::Peer { .. });
    let network = (any::<IpAddr>(), 0..=32u8)
        .prop_map(|(ip, length)| ipnet::IpNet::new(ip.to_canonical(), length).unwrap());
    let senders = if matches!(listen, Listen::Unix(_)) {
        Just(ProxySender::Unix).boxed()
    } else {
        network.prop_map(ProxySender::Net).boxed()
    };
    let networks = if of_connections { 0..3 } else { 0..1 };
    let is_tcp = listen.protocol() == Protocol::Tcp;
    let a_name = || proptest::option::of("[a-zA-Z0-9._-]{1,10}");
    let a_file = || proptest::option::of(a_path());
    let proxy = (
        proptest::collection::vec(senders, networks),
        proptest::option::of(proptest::sample::select(ProxyVersion::ALL.to_vec())),
        proptest::sample::subsequence(ProxyTlv::ALL.to_vec(), 0..=4),
        any::<bool>(),
    );
    let tls = (a_name(), proptest::collection::vec(an_identity(), 0..3), a_file());
    let dialled = (a_file(), proptest::option::of("[a-z]{1,9}([.][a-z]{1,9}){0,2}"), a_name());
    (proxy, tls, dialled).prop_map(move |(proxy, (tls, tls_peers, tls_ca), (ca, sni, cert))| {
        let (accept_proxy, send_proxy, proxy_tlv, health_proxy) = proxy;
        let tls = tls.filter(|_| of_connections);
        let send_proxy = send_proxy.filter(|version| is_tcp || *version == ProxyVersion::V2);
        let is_v2 = send_proxy == Some(ProxyVersion::V2);
        Options {
            proxy_tlv: if is_v2 { proxy_tlv } else { Vec::new() },
            health_proxy: health_proxy || send_proxy.is_none(),
            tls_peers: if tls.is_some() { tls_peers } else { Vec::new() },
            tls_ca: tls_ca.filter(|_| tls.is_some()),
            accept_proxy,
            send_proxy,
            tls,
            ca,
            sni,
            cert,
            ..Options::named("")
        }
    })
}

fn a_route() -> impl Strategy<Value = Route> {
    a_listen().prop_flat_map(|listen| {
        let parts = (some_targets(&listen, 1..4), some_options(&listen));
        (Just(listen), parts).prop_map(|(listen, (targets, mut options))| {
            let dials = |target: &Target| target.may_dial_peers();
            options.identity = options.identity.filter(|_| targets.iter().chain(&options.backup).any(dials));
            if !targets.iter().chain(&options.backup).any(Target::may_dial_tls) {
                (options.ca, options.sni, options.cert) = (None, None, None);
            }
            Route { listen, targets, options, origin: Place::Argument(1) }
        })
    })
}

proptest! {
    #[test]
    fn a_printed_route_parses_to_the_same_route(route in a_route()) {
        let printed = route.to_string();
        prop_assert_eq!(parse_route(&printed, &place()), Ok(route), "{}", printed);
    }

    #[test]
    fn every_parsed_route_prints_as_text_that_parses_to_it(
        text in "([0-9]{1,5}|[a-z/:.\\[\\]0-9-]{1,12})=[a-z0-9:./,\\[\\]-]{1,20}(\\?[a-z-]{1,8}=[a-z0-9,./]{1,8}){0,1}"
    ) {
        if let Ok(route) = parse_route(&text, &place()) {
            prop_assert_eq!(parse_route(&route.to_string(), &place()), Ok(route));
        }
    }

    #[test]
    fn no_text_causes_a_panic(text in "\\PC{0,60}") {
        let _ = parse_route(&text, &place());
        let _ = parse_route(&format!("80=a?{text}"), &place());
        let _ = parse_route(&format!("{text}=a"), &place());
    }
}

#[test]
fn only_an_operator_opens_a_unix_socket() {
    assert!(parse_listen("/run/x.sock", Author::Operator, &place()).is_ok());
    let mistake = parse_listen("unix:/run/x.sock", Author::Label, &place()).unwrap_err();
    assert_eq!(mistake.place, place());
    assert!(mistake.help.as_deref().unwrap().contains("=docker://NAME:PORT"), "{mistake}");
}
