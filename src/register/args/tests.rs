//! Command lines and their plans.

use super::*;
use crate::route::EtcdKeys;

fn args(to: &str, advertise: &str) -> RegisterArgs {
    let (to, advertise) = (to.to_owned(), advertise.to_owned());
    let (ttl, via) = ("10s".to_owned(), "ports".to_owned());
    RegisterArgs { to, advertise, ttl, via, ..RegisterArgs::default() }
}

fn vars(pairs: &[(&str, &str)]) -> Vars {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn registry(to: &str) -> RegistryConfig {
    args(to, "10.0.0.5").plan(&Vars::default()).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).registry
}

#[test]
fn every_registry_of_the_help_is_accepted() {
    for (to, tls, members, prefix) in [
        ("etcd://h", false, vec!["h:2379"], "/services"),
        ("etcd://h:2379/", false, vec!["h:2379"], "/services"),
        ("etcds://h1,h2:4001/a/b", true, vec!["h1:2379", "h2:4001"], "/a/b"),
    ] {
        let RegistryConfig::Etcd { keys, .. } = registry(to) else { panic!("{to}") };
        let members = members.into_iter().map(str::to_owned).collect();
        assert_eq!(keys, EtcdKeys { tls, members, prefix: prefix.to_owned() }, "{to}");
    }
    for (to, expected) in
        [("consul://", "127.0.0.1:8500"), ("consul://h", "h:8500"), ("consul://10.0.0.1:85/", "10.0.0.1:85")]
    {
        let RegistryConfig::Consul(config) = registry(to) else { panic!("{to}") };
        assert_eq!(config.agent, expected, "{to}");
    }
}

#[test]
fn all_mistakes_are_reported_with_a_help() {
    let wrong = RegisterArgs {
        name: vec!["a b".to_owned()],
        ttl: "1ms".to_owned(),
        via: "tunnel".to_owned(),
        log_level: Some("loud".to_owned()),
        ..args("zookeeper://h", "0.0.0.0")
    };
    let mistakes = wrong.plan(&vars(&[("DOCKER_HOST", "ssh://h")])).unwrap_err();
    let places: Vec<_> = mistakes.iter().map(|mistake| mistake.place.to_string()).collect();
    let expected = ["--to", "--advertise", "--ttl", "--via", "--name", "variable DOCKER_HOST", "--log-level"];
    assert_eq!(places, expected, "{mistakes:?}");
    assert!(mistakes.iter().all(|mistake| mistake.help.is_some()), "{mistakes:?}");
}

#[test]
fn via_is_ports_or_a_peer() {
    let via = |text: &str, all| {
        let args = RegisterArgs { via: text.to_owned(), all, ..args("etcd://h", "::1") };
        args.plan(&Vars::default()).map(|plan| plan.choice.via)
    };
    assert_eq!(via("ports", true), Ok(Via::Ports));
    assert_eq!(via("peer", false), Ok(Via::Peer { port: 15008 }));
    assert_eq!(via("peer:1", false), Ok(Via::Peer { port: 1 }));
    for (text, all, help) in [
        ("peers", false, "`peer:PORT`"),
        ("peer:0", false, "from 1 to 65535"),
        ("peer", true, "ambassador.listen.peer:redis=6379"),
    ] {
        let mistakes = via(text, all).unwrap_err();
        assert!(mistakes[0].help.as_deref().unwrap().contains(help), "{mistakes:?}");
    }
}

#[test]
fn ttl_has_whole_seconds_within_limits() {
    for (text, good) in
        [("2s", true), ("10s", true), ("1h", true), ("1s", false), ("2500ms", false), ("2h", false)]
    {
        let plan = RegisterArgs { ttl: text.to_owned(), ..args("etcd://h", "::1") }.plan(&Vars::default());
        assert_eq!(plan.is_ok(), good, "{text}");
    }
}

#[test]
fn debug_output_of_a_plan_contains_no_password() {
    let secrets = vars(&[("AMBASSADOR_ETCD_USER", "root"), ("AMBASSADOR_ETCD_PASSWORD", "hush")]);
    let plan = args("etcd://h", "10.0.0.5").plan(&secrets).unwrap();
    assert!(!format!("{plan:?}").contains("hush"));
}
