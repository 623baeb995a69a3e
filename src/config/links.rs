//! Link variables: `REDIS_PORT_6379_TCP=tcp://172.17.0.2:6379`, with the rules of svendowideit/ambassador. Pure.
//!
//! Its command is `env | grep _TCP= | sed 's/.*_PORT_\([0-9]*\)_TCP=tcp:\/\/\(.*\):\(.*\)/.../'`. Both stars are greedy: the last
//! `_PORT_` of a name and the last colon of a value are significant. Added here are UDP, IPv6, and errors for values that would
//! result in an invalid `socat` command.

use std::collections::BTreeMap;

use crate::config::grammar::target;
use crate::config::vars::Vars;
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::{Listen, PortRange, Protocol, Route, Target};

/// Returns the routes of the link variables, one per listener port and protocol, and the mistakes. Several aliases of one
/// target are one target; several targets of one port are endpoints of one route.
pub fn links(vars: &Vars) -> (Vec<Route>, Vec<Diagnostic>) {
    let mut routes: BTreeMap<(u16, Protocol), Route> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in vars.iter() {
        let place = Place::Variable(name.to_owned());
        let Some((port, protocol)) = split_name(name) else { continue };
        match link(port, protocol, value) {
            Ok((port, target)) => add(&mut routes, port, protocol, target, place),
            Err(mistake) => mistakes.push(mistake.at(&place)),
        }
    }
    (routes.into_values().collect(), mistakes)
}

fn add(
    routes: &mut BTreeMap<(u16, Protocol), Route>,
    port: u16,
    protocol: Protocol,
    target: Target,
    place: Place,
) {
    let listen = Listen::Inet { protocol, ip: None, ports: PortRange::single(port) };
    let route = routes.entry((port, protocol)).or_insert_with(|| Route::new(listen, Vec::new(), place));
    if !route.targets.contains(&target) {
        route.targets.push(target);
    }
}

/// Splits `DB_PORT_5432_TCP` into `5432` and TCP. Other variables, such as `DB_PORT_8000_TCP_START` of a range, are not links.
fn split_name(name: &str) -> Option<(&str, Protocol)> {
    let (stem, protocol) = match (name.strip_suffix("_TCP"), name.strip_suffix("_UDP")) {
        (Some(stem), _) => (stem, Protocol::Tcp),
        (None, Some(stem)) => (stem, Protocol::Udp),
        (None, None) => return None,
    };
    let (_, port) = stem.rsplit_once("_PORT_")?;
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some((port, protocol))
}

fn link(port: &str, protocol: Protocol, value: &str) -> Result<(u16, Target), Mistake> {
    let help = format!("write `{protocol}://host:port`");
    let listen = target::port_of(port).map_err(|_| {
        Mistake::new(format!("invalid port `{port}` in the name of this link variable"))
            .help("write a name such as `REDIS_PORT_6379_TCP`, with a port from 1 to 65535")
    })?;
    let value = value.trim();
    let address = value.strip_prefix(&format!("{protocol}://")).ok_or_else(|| {
        Mistake::new(format!("invalid value `{value}` of a link variable")).help(help.clone())
    })?;
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| Mistake::new(format!("missing port in `{value}`")).help(help.clone()))?;
    let in_value =
        |mistake: Mistake| Mistake { message: format!("`{value}`: {}", mistake.message), ..mistake };
    let port = target::port_of(port).map_err(in_value)?;
    Ok((listen, target::at(host, port).map_err(in_value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
        let (routes, mistakes) = links(&vars(pairs));
        assert_eq!(mistakes, [], "{pairs:?}");
        routes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_documented_example_is_parsed() {
        assert_eq!(
            lines(&[
                ("REDIS_PORT", "tcp://172.17.0.136:6379"),
                ("REDIS_PORT_6379_TCP_ADDR", "172.17.0.136"),
                ("REDIS_NAME", "/redis_ambassador/redis"),
                ("REDIS_PORT_6379_TCP_PORT", "6379"),
                ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
                ("REDIS_PORT_6379_TCP", "tcp://172.17.0.136:6379"),
                ("PATH", "/usr/local/sbin:/usr/local/bin"),
            ]),
            ["6379=172.17.0.136:6379"]
        );
    }

    #[test]
    fn the_listener_is_in_the_name_and_the_target_in_the_value() {
        assert_eq!(lines(&[("REDIS_PORT_1234_TCP", "tcp://192.168.1.52:6379")]), ["1234=192.168.1.52:6379"]);
        assert_eq!(
            lines(&[("REDIS_PORT_6379_TCP", "tcp://redis.example.com:7000")]),
            ["6379=redis.example.com:7000"]
        );
    }

    #[test]
    fn an_alias_may_contain_digits_and_the_separators() {
        assert_eq!(
            lines(&[("DB_2_PORT_1_TCP_PORT_5432_TCP", "tcp://10.0.0.2:5432")]),
            ["5432=10.0.0.2:5432"]
        );
        assert_eq!(lines(&[("_PORT_80_TCP", "tcp://10.0.0.2:80")]), ["80=10.0.0.2:80"]);
        assert_eq!(lines(&[("A_PORT_PORT_80_TCP", "tcp://10.0.0.2:80")]), ["80=10.0.0.2:80"]);
    }

    #[test]
    fn aliases_of_one_target_are_merged_and_several_targets_are_balanced() {
        assert_eq!(
            lines(&[
                ("FPM_PORT_9000_TCP", "tcp://10.0.0.2:9000"),
                ("TESTAPP_FPM_1_PORT_9000_TCP", "tcp://10.0.0.2:9000"),
                ("FPM_2_PORT_9000_TCP", "tcp://10.0.0.3:9000"),
            ]),
            ["9000=10.0.0.3:9000,10.0.0.2:9000"]
        );
    }

    #[test]
    fn udp_links_are_routes_of_their_own() {
        assert_eq!(
            lines(&[("DNS_PORT_53_TCP", "tcp://10.0.0.2:53"), ("DNS_PORT_53_UDP", "udp://10.0.0.2:5353")]),
            ["53=10.0.0.2:53", "53/udp=10.0.0.2:5353"]
        );
    }

    #[test]
    fn ipv6_is_split_at_the_last_colon_with_or_without_brackets() {
        assert_eq!(lines(&[("A_PORT_80_TCP", "tcp://fe80::1:6379")]), ["80=[fe80::1]:6379"]);
        assert_eq!(lines(&[("A_PORT_80_TCP", "tcp://[::1]:6379")]), ["80=[::1]:6379"]);
    }

    #[test]
    fn similar_variables_are_ignored() {
        for name in [
            "A_PORT_8000_TCP_START",
            "A_PORT_8000_TCP_END",
            "A_PORT_80_TCP_PORT",
            "A_PORT_X_TCP",
            "A_TCP",
            "PORT_80_TCP",
        ] {
            assert_eq!(lines(&[(name, "tcp://10.0.0.2:80")]), [""; 0], "{name}");
        }
    }

    #[test]
    fn an_invalid_link_is_reported_and_does_not_affect_others() {
        for (name, value, message) in [
            ("A_PORT__TCP", "tcp://10.0.0.2:80", "in the name of this link variable"),
            ("A_PORT_0_TCP", "tcp://10.0.0.2:80", "in the name of this link variable"),
            ("A_PORT_65536_TCP", "tcp://10.0.0.2:80", "in the name of this link variable"),
            ("A_PORT_80_TCP", "tcp://", "missing port"),
            ("A_PORT_80_TCP", "", "of a link variable"),
            ("A_PORT_80_TCP", "tcp://10.0.0.2", "missing port"),
            ("A_PORT_80_TCP", "tcp://:80", "invalid host"),
            ("A_PORT_80_TCP", "tcp://10.0.0.2:", "invalid port"),
            ("A_PORT_80_TCP", "tcp://10.0.0.2:0", "invalid port"),
            ("A_PORT_80_TCP", "tcp://10.0.0.2:80000", "invalid port"),
            ("A_PORT_80_TCP", "10.0.0.2:80", "of a link variable"),
            ("A_PORT_80_UDP", "tcp://10.0.0.2:80", "of a link variable"),
            ("A_PORT_80_TCP", "tcp://a b:80", "invalid host"),
        ] {
            let (routes, mistakes) = links(&vars(&[(name, value), ("B_PORT_90_TCP", "tcp://10.0.0.9:90")]));
            assert_eq!(routes.len(), 1, "{name}={value}");
            assert_eq!(mistakes.len(), 1, "{name}={value}");
            assert_eq!(mistakes[0].place, Place::Variable(name.to_owned()));
            assert!(mistakes[0].message.contains(message) && mistakes[0].help.is_some(), "{mistakes:?}");
        }
    }
}
