//! The requests and responses of etcd's JSON gateway. Pure.
//!
//! Keys and values are base64, 64-bit numbers are strings, and fields that are zero, false or empty are omitted
//! (<https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>).

use data_encoding::BASE64;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Value, json};

use crate::discovery::http::{Element, Elements, Loose};

/// Keys below one prefix. No service has more: then the prefix is wrong, and following it would take unbounded memory.
pub(crate) const KEYS_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// The revision of its last change.
    pub(crate) changed: i64,
}

/// The keys of a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) revision: i64,
    /// The ID of the cluster, if the gateway reports it.
    pub(crate) cluster: Option<u64>,
    pub(crate) keys: Vec<KeyValue>,
    /// Whether there are more than [`KEYS_MAX`].
    pub(crate) more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyChange {
    Put(KeyValue),
    /// Deleted, or its lease expired. The value is empty.
    Deleted(KeyValue),
}

/// One response of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WatchResponse {
    Changes(Changes),
    /// The first revision of the watch is not available any more: list again.
    Compacted,
    /// The watch has ended, with the reason.
    Canceled(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In order. Empty at the beginning of a watch, and in progress notifications.
    pub(crate) changes: Vec<KeyChange>,
    /// Whether the next line continues this response, possibly at the same revision.
    pub(crate) is_fragment: bool,
    pub(crate) cluster: Option<u64>,
}

/// Returns a range request for all keys from `prefix` to the successor of the slash: `/a`, `/a/b`, and `/a-b`, which the reader
/// has to ignore. One range covers both the key itself and those below it.
pub(crate) fn range(prefix: &str) -> Value {
    json!({ "key": encoded(prefix), "range_end": encoded(&format!("{prefix}0")), "limit": (KEYS_MAX + 1).to_string() })
}

/// Returns a watch request. `fragment` splits a transaction of thousands of keys into several lines.
pub(crate) fn watch(prefix: &str, from: i64) -> Value {
    json!({ "create_request": {
        "key": encoded(prefix),
        "range_end": encoded(&format!("{prefix}0")),
        "start_revision": from.to_string(),
        "fragment": true,
    } })
}

pub(crate) fn encoded(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

/// The response to a range request.
#[derive(Debug, Deserialize)]
pub(crate) struct Range {
    header: Header,
    #[serde(default)]
    kvs: Elements<KeyValue>,
    #[serde(default)]
    more: bool,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(crate) struct WatchLine {
    result: Option<WatchResult>,
    error: Option<GatewayError>,
}

#[derive(Debug, Deserialize)]
struct WatchResult {
    header: Option<Header>,
    #[serde(default)]
    compact_revision: Loose,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    cancel_reason: Loose,
    #[serde(default)]
    fragment: bool,
    #[serde(default)]
    events: Elements<KeyChange>,
}

#[derive(Debug, Deserialize)]
struct GatewayError {
    #[serde(default)]
    message: Loose,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default)]
    revision: Loose,
    #[serde(default)]
    cluster_id: Loose,
}

#[derive(Debug, Deserialize)]
pub(crate) struct KeyValueJson {
    #[serde(deserialize_with = "base64")]
    key: Vec<u8>,
    #[serde(default, deserialize_with = "base64")]
    value: Vec<u8>,
    mod_revision: Loose,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EventJson {
    #[serde(default, rename = "type")]
    kind: Loose,
    kv: KeyValueJson,
}

impl Element for KeyValue {
    type Json = KeyValueJson;
    /// One more than the limit, which shows that there are too many.
    const MAX: usize = KEYS_MAX + 1;

    fn read(KeyValueJson { key, value, mod_revision }: KeyValueJson) -> Result<Option<KeyValue>, String> {
        let changed = signed(&mod_revision).ok_or("missing revision of a key")?;
        Ok(Some(KeyValue { key, value, changed }))
    }
}

impl Element for KeyChange {
    type Json = EventJson;
    /// Limited by the length of a line.
    const MAX: usize = usize::MAX;

    fn read(EventJson { kind, kv }: EventJson) -> Result<Option<KeyChange>, String> {
        let key = KeyValue::read(kv)?;
        match kind {
            Loose::Other => Ok(key.map(KeyChange::Put)),
            Loose::Text(kind) if kind == "PUT" => Ok(key.map(KeyChange::Put)),
            Loose::Text(kind) if kind == "DELETE" => Ok(key.map(KeyChange::Deleted)),
            _ => Err("unknown type of an event".to_owned()),
        }
    }
}

/// Converts a response to a listing. Returns `None` if it has no revision.
pub(crate) fn listing(Range { header, kvs: Elements(mut keys), more }: Range) -> Option<Listing> {
    let more = more || keys.len() > KEYS_MAX;
    keys.truncate(KEYS_MAX);
    Some(Listing { revision: signed(&header.revision)?, cluster: unsigned(&header.cluster_id), keys, more })
}

/// Converts a line of a watch. The error is etcd's message.
pub(crate) fn watch_response(WatchLine { result, error }: WatchLine) -> Result<WatchResponse, String> {
    let Some(result) = result else {
        let message = error.as_ref().and_then(|error| error.message.text());
        return Err(message.unwrap_or("unexpected line").to_owned());
    };
    if unsigned(&result.compact_revision).is_some() {
        return Ok(WatchResponse::Compacted);
    }
    if result.canceled {
        let why = result.cancel_reason.text().unwrap_or("no reason given");
        return Ok(WatchResponse::Canceled(why.to_owned()));
    }
    let cluster = result.header.and_then(|header| unsigned(&header.cluster_id));
    Ok(WatchResponse::Changes(Changes { changes: result.events.0, is_fragment: result.fragment, cluster }))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
}

/// Reads a number, which the gateway writes as a string, and some substitutes of it as a number.
fn unsigned(value: &Loose) -> Option<u64> {
    value.number().or_else(|| value.text()?.parse().ok())
}

fn signed(value: &Loose) -> Option<i64> {
    unsigned(value).and_then(|number| i64::try_from(number).ok())
}

/// Reads such a number from a parsed value.
pub(crate) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn listing(answer: &Value) -> Option<Listing> {
        super::listing(from_value(answer.clone()).ok()?)
    }

    fn watched(line: &Value) -> Result<WatchResponse, String> {
        watch_response(from_value(line.clone()).map_err(|error| error.to_string())?)
    }

    #[test]
    fn listing_of_etcd_3_4_is_accepted() {
        let answer = json!({ "header": { "cluster_id": "12101053776118486841", "revision": "2", "raft_term": "2" },
            "kvs": [{ "key": "L2E=", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "MS4yLjMuNDo1" }],
            "count": "1" });
        let key = KeyValue { key: b"/a".to_vec(), value: b"1.2.3.4:5".to_vec(), changed: 2 };
        assert_eq!(
            listing(&answer),
            Some(Listing { revision: 2, cluster: Some(12101053776118486841), keys: vec![key], more: false })
        );
        let empty = json!({ "header": { "revision": "7" } });
        assert_eq!(
            listing(&empty),
            Some(Listing { revision: 7, cluster: None, keys: Vec::new(), more: false })
        );
    }

    #[test]
    fn invalid_listing_is_rejected() {
        for answer in [
            json!(null),
            json!({}),
            json!({ "header": { "revision": "x" } }),
            json!({ "header": { "revision": "1" }, "kvs": [{ "key": "%%", "mod_revision": "1" }] }),
            json!({ "header": { "revision": "1" }, "kvs": [{ "key": "L2E=" }] }),
        ] {
            assert_eq!(listing(&answer), None, "{answer}");
        }
    }

    #[test]
    fn keys_beyond_the_limit_are_reported_and_dropped() {
        let key = json!({ "key": "L2E=", "mod_revision": "1" });
        let answer = json!({ "header": { "revision": "1" }, "kvs": vec![key; KEYS_MAX + 1] });
        let listing = listing(&answer).unwrap();
        assert_eq!((listing.keys.len(), listing.more), (KEYS_MAX, true));
    }

    #[test]
    fn lines_of_a_watch_of_etcd_3_4_are_accepted() {
        let line = |result: Value| json!({ "result": result });
        let created = line(json!({ "header": { "revision": "2" }, "created": true }));
        assert_eq!(watched(&created), Ok(WatchResponse::Changes(Changes::default())));
        let events = line(json!({ "header": { "cluster_id": "7" }, "fragment": true, "events": [
            { "kv": { "key": "L2E=", "mod_revision": "2", "value": "eA==" } },
            { "type": "DELETE", "kv": { "key": "L2E=", "mod_revision": "3" } },
        ] }));
        let key = |value: &str, changed| KeyValue { key: b"/a".to_vec(), value: value.into(), changed };
        let changes = vec![KeyChange::Put(key("x", 2)), KeyChange::Deleted(key("", 3))];
        let changes = Changes { changes, is_fragment: true, cluster: Some(7) };
        assert_eq!(watched(&events), Ok(WatchResponse::Changes(changes)));
        let compacted = line(json!({ "canceled": true, "compact_revision": "3" }));
        assert_eq!(watched(&compacted), Ok(WatchResponse::Compacted));
        let canceled =
            line(json!({ "created": true, "canceled": true, "cancel_reason": "permission denied" }));
        assert_eq!(watched(&canceled), Ok(WatchResponse::Canceled("permission denied".to_owned())));
        let error = json!({ "error": { "grpc_code": 14, "message": "etcdserver: no leader" } });
        assert_eq!(watched(&error), Err("etcdserver: no leader".to_owned()));
        assert!(watched(&json!([])).is_err());
        assert!(watched(&line(json!({ "header": { "cluster_id": "7" }, "fragment": true, "events": [{ "type": "NEW", "kv": {} }] }))).is_err());
    }
}
