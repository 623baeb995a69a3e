//! The value of a key: `host:port` or `peer://HOST/NAME`, or JSON with that and more. Pure.

use serde_json::Value as Json;

use crate::address::{BACKUP_TIER, Identity, WEIGHT_MAX};
use crate::discovery::endpoint_resolver::{ListedEndpoint, Location};

/// Bytes of a value: an address, a weight, a tier, and fields of other programs.
const VALUE_MAX: usize = 4096;

/// Parses the value of a key. The error is for the log.
pub(super) fn parse(key: &str, value: &[u8]) -> Result<ListedEndpoint, String> {
    if value.len() > VALUE_MAX {
        return Err(format!("it has more than {VALUE_MAX} bytes"));
    }
    let text = std::str::from_utf8(value).map_err(|_| "it is not UTF-8".to_owned())?.trim();
    if text.is_empty() {
        return Err("it is empty: write `host:port`".to_owned());
    }
    let identity = Identity::Key(key.to_owned());
    if text.starts_with('{') {
        return parse_json(text, identity);
    }
    Ok(ListedEndpoint { location: location(text)?, identity, weight: 1, tier: 0 })
}

/// Other fields are ignored.
fn parse_json(text: &str, identity: Identity) -> Result<ListedEndpoint, String> {
    let json: Json = serde_json::from_str(text).map_err(|why| format!("it is not JSON: {why}"))?;
    let address = match json.get("address").and_then(Json::as_str) {
        Some(address) => address.to_owned(),
        None => host_and_port(&json).ok_or(r#"it has no "address": write {"address":"host:port"}"#)?,
    };
    Ok(ListedEndpoint {
        location: location(&address)?,
        identity,
        weight: number(&json, "weight", WEIGHT_MAX)?.unwrap_or(1),
        tier: number(&json, "tier", BACKUP_TIER - 1)?.unwrap_or(0),
    })
}

/// Reads `{"port": 49155, "host": "10.1.2.3"}`, the format of CoreOS' docker-register.
fn host_and_port(json: &Json) -> Option<String> {
    let (host, port) = (json.get("host")?.as_str()?, json.get("port")?.as_u64()?);
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn number(json: &Json, key: &str, max: u32) -> Result<Option<u32>, String> {
    let Some(value) = json.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= max);
    number.map(Some).ok_or_else(|| format!("invalid {key:?}: must be a number from 0 to {max}"))
}

fn location(text: &str) -> Result<Location, String> {
    Location::parse(text).map_err(|mistake| mistake.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{EndpointAddr, Scheme};

    fn read(text: &str) -> Result<ListedEndpoint, String> {
        parse("/k", text.as_bytes())
    }

    fn value(addr: &str, weight: u32, tier: u32) -> ListedEndpoint {
        let location = Location::Addr(EndpointAddr::Inet(addr.parse().unwrap()));
        ListedEndpoint { location, identity: Identity::Key("/k".to_owned()), weight, tier }
    }

    #[test]
    fn address_with_or_without_weight_and_tier_is_accepted() {
        assert_eq!(read("10.0.0.2:6379\n"), Ok(value("10.0.0.2:6379", 1, 0)));
        assert_eq!(read("[fd00::2]:80"), Ok(value("[fd00::2]:80", 1, 0)));
        assert_eq!(read(r#"{"address":"10.0.0.2:80","weight":0,"tier":2}"#), Ok(value("10.0.0.2:80", 0, 2)));
        assert_eq!(
            read(r#"{"address":"10.0.0.2:80","host":"a","weight":null}"#),
            Ok(value("10.0.0.2:80", 1, 0))
        );
        assert_eq!(
            read(r#"{ "port": 49155, "host": "10.132.181.182" }"#),
            Ok(value("10.132.181.182:49155", 1, 0))
        );
        let name = Location::Name { host: "redis.example".to_owned(), port: 6379, scheme: Scheme::Plain };
        assert_eq!(read("redis.example:6379").map(|value| value.location), Ok(name));
        let export = || "redis".to_owned();
        let peer = Location::Name { host: "host1".to_owned(), port: 15008, scheme: Scheme::Peer(export()) };
        assert_eq!(read("peer://host1/redis").map(|value| value.location), Ok(peer.clone()));
        let read = read(r#"{"address":"peer://host1/redis","weight":3}"#).unwrap();
        assert_eq!((read.location, read.weight), (peer, 3));
    }

    #[test]
    fn invalid_value_is_rejected_with_a_reason() {
        for (text, expected) in [
            ("", "empty"),
            ("redis", "missing port"),
            ("10.0.0.2", "missing port"),
            ("10.0.0.2:0", "invalid port"),
            ("10.0.0.2:http", "invalid port"),
            ("unix:/run/x.sock", "invalid port"),
            ("tcp://10.0.0.2:80", "invalid host"),
            ("peer://host1", "missing name of the export"),
            ("peer://ho st/a", "invalid host"),
            ("a b:80", "invalid host"),
            ("{", "not JSON"),
            ("{}", "no \"address\""),
            (r#"{"address":1}"#, "no \"address\""),
            (r#"{"host":"a"}"#, "no \"address\""),
            (r#"{"host":"a b","port":1}"#, "invalid host"),
            (r#"{"address":"10.0.0.2:80","weight":-1}"#, "0 to 65535"),
            (r#"{"address":"10.0.0.2:80","weight":"2"}"#, "\"weight\""),
            (r#"{"address":"10.0.0.2:80","tier":65536}"#, "\"tier\""),
        ] {
            let why = read(text).expect_err(text);
            assert!(why.contains(expected), "{text}: {why}");
        }
        assert!(parse("/k", &[0xff]).unwrap_err().contains("not UTF-8"));
        assert!(parse("/k", &vec![b'a'; 5000]).unwrap_err().contains("4096 bytes"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = parse("/k", &bytes);
        }
    }
}
