//! The value of a key: `host:port`, or JSON with that and more. Pure.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value as Json;

use crate::address::{BACKUP_TIER, WEIGHT_MAX};
use crate::config::grammar::parse_address;
use crate::route::Target;

/// An address, a weight, a tier; and room for what others keep beside them.
const VALUE_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) at: At,
    pub(super) weight: u32,
    pub(super) tier: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Addr(SocketAddr),
    /// Every address of the name is an endpoint.
    Name {
        host: String,
        port: u16,
    },
}

impl At {
    pub(super) fn addresses(&self, known: impl Fn(&str) -> Vec<IpAddr>) -> Vec<SocketAddr> {
        match self {
            At::Addr(addr) => vec![*addr],
            At::Name { host, port } => known(host).into_iter().map(|ip| SocketAddr::new(ip, *port)).collect(),
        }
    }
}

/// The error says what is wrong with it.
pub(super) fn parse(value: &[u8]) -> Result<Value, String> {
    if value.len() > VALUE_MAX {
        return Err(format!("it has more than {VALUE_MAX} bytes"));
    }
    let text = std::str::from_utf8(value).map_err(|_| "it is no text".to_owned())?.trim();
    if text.is_empty() {
        return Err("it is empty: write `host:port`".to_owned());
    }
    if text.starts_with('{') {
        return json(text);
    }
    Ok(Value { at: at(text)?, weight: 1, tier: 0 })
}

/// Fields that are not ours are somebody else's.
fn json(text: &str) -> Result<Value, String> {
    let json: Json = serde_json::from_str(text).map_err(|why| format!("it is no JSON: {why}"))?;
    let address = match json.get("address").and_then(Json::as_str) {
        Some(address) => address.to_owned(),
        None => host_and_port(&json).ok_or(r#"it has no "address": write {"address":"host:port"}"#)?,
    };
    Ok(Value {
        at: at(&address)?,
        weight: number(&json, "weight", WEIGHT_MAX)?.unwrap_or(1),
        tier: number(&json, "tier", BACKUP_TIER - 1)?.unwrap_or(0),
    })
}

/// `{"port": 49155, "host": "10.1.2.3"}`, as CoreOS' docker-register wrote it.
fn host_and_port(json: &Json) -> Option<String> {
    let (host, port) = (json.get("host")?.as_str()?, json.get("port")?.as_u64()?);
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn number(json: &Json, key: &str, max: u32) -> Result<Option<u32>, String> {
    let Some(value) = json.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= max);
    number.map(Some).ok_or_else(|| format!("its {key:?} is no number from 0 to {max}"))
}

fn at(text: &str) -> Result<At, String> {
    match parse_address(text) {
        Ok(Target::Addr(addr)) => Ok(At::Addr(addr)),
        Ok(Target::Host { host, port }) => Ok(At::Name { host, port }),
        Ok(_) => Err("it is no `host:port`".to_owned()),
        Err(mistake) => Err(mistake.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        parse(text.as_bytes())
    }

    fn value(addr: &str, weight: u32, tier: u32) -> Value {
        Value { at: At::Addr(addr.parse().unwrap()), weight, tier }
    }

    #[test]
    fn an_address_alone_or_with_weight_and_tier_is_read() {
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
        let name = At::Name { host: "redis.example".to_owned(), port: 6379 };
        assert_eq!(read("redis.example:6379").map(|value| value.at), Ok(name));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (text, said) in [
            ("", "empty"),
            ("redis", "missing port"),
            ("10.0.0.2", "missing port"),
            ("10.0.0.2:0", "invalid port"),
            ("10.0.0.2:http", "invalid port"),
            ("unix:/run/x.sock", "invalid port"),
            ("tcp://10.0.0.2:80", "invalid host"),
            ("a b:80", "invalid host"),
            ("{", "no JSON"),
            ("{}", "no \"address\""),
            (r#"{"address":1}"#, "no \"address\""),
            (r#"{"host":"a"}"#, "no \"address\""),
            (r#"{"host":"a b","port":1}"#, "invalid host"),
            (r#"{"address":"10.0.0.2:80","weight":-1}"#, "0 to 65535"),
            (r#"{"address":"10.0.0.2:80","weight":"2"}"#, "\"weight\""),
            (r#"{"address":"10.0.0.2:80","tier":65536}"#, "\"tier\""),
        ] {
            let why = read(text).expect_err(text);
            assert!(why.contains(said), "{text}: {why}");
        }
        assert!(parse(&[0xff]).unwrap_err().contains("no text"));
        assert!(parse(&vec![b'a'; 5000]).unwrap_err().contains("4096 bytes"));
    }

    proptest::proptest! {
        #[test]
        fn no_value_at_all_can_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
