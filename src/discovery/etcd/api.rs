//! What etcd's JSON gateway says, read into our own words. Pure.
//!
//! Keys and values are base64, 64-bit numbers are strings, and what is zero, false or empty is not there at all
//! (<https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>).

use data_encoding::BASE64;
use serde_json::{Value, json};

/// More keys are no service of anybody's: the prefix is wrong, and following them would cost memory without end.
pub(crate) const KEYS_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// The revision of its last change.
    pub(crate) changed: i64,
}

/// The keys of a range at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) revision: i64,
    pub(crate) keys: Vec<KeyValue>,
    /// There are more than [`KEYS_MAX`].
    pub(crate) more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(KeyValue),
    /// Deleted, or its lease ended. The value is empty.
    Deleted(KeyValue),
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// In the order in which they happened. None: the watch has begun, or goes on.
    Changes(Vec<Change>),
    /// The revision to begin at is forgotten: list again.
    Compacted,
    /// Why there will be no more.
    Canceled(String),
}

/// All that begins with `prefix`, up to the successor of the slash: `/a`, `/a/b`, and, to be left out by whoever reads,
/// `/a-b`. One range for both the key itself and those below it.
pub(crate) fn range(prefix: &str) -> Value {
    json!({ "key": encoded(prefix), "range_end": encoded(&format!("{prefix}0")), "limit": (KEYS_MAX + 1).to_string() })
}

/// `fragment` keeps a change of thousands of keys in one transaction from being one line.
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

pub(crate) fn listing(answer: &Value) -> Option<Listing> {
    let keys = answer.get("kvs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut keys: Vec<KeyValue> = keys.iter().map(key_value).collect::<Option<_>>()?;
    let more = keys.len() > KEYS_MAX || answer.get("more").and_then(Value::as_bool) == Some(true);
    keys.truncate(KEYS_MAX);
    Some(Listing { revision: revision(answer)?, keys, more })
}

/// An error is what etcd says instead.
pub(crate) fn watched(line: &Value) -> Result<Watched, String> {
    let Some(result) = line.get("result") else {
        let said = line.pointer("/error/message").and_then(Value::as_str);
        return Err(said.unwrap_or("a line that makes no sense").to_owned());
    };
    if result.get("compact_revision").is_some() {
        return Ok(Watched::Compacted);
    }
    if result.get("canceled").and_then(Value::as_bool) == Some(true) {
        let reason = result.get("cancel_reason").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(Watched::Canceled(reason.to_owned()));
    }
    let events = result.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let changes: Option<Vec<Change>> = events.iter().map(change).collect();
    changes.map(Watched::Changes).ok_or_else(|| "an event that makes no sense".to_owned())
}

fn change(event: &Value) -> Option<Change> {
    let key = key_value(event.get("kv")?)?;
    match event.get("type").and_then(Value::as_str) {
        Some("DELETE") => Some(Change::Deleted(key)),
        None | Some("PUT") => Some(Change::Put(key)),
        Some(_) => None,
    }
}

fn key_value(value: &Value) -> Option<KeyValue> {
    Some(KeyValue {
        key: bytes(value.get("key")?)?,
        value: value.get("value").map_or(Some(Vec::new()), bytes)?,
        changed: value.get("mod_revision").and_then(number)?,
    })
}

fn revision(answer: &Value) -> Option<i64> {
    answer.pointer("/header/revision").and_then(number)
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    BASE64.decode(value.as_str()?.as_bytes()).ok()
}

/// A string by the gateway's rule; a number from whoever stands in for it.
pub(crate) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_as_etcd_3_4_writes_it() {
        let answer = json!({ "header": { "cluster_id": "12101053776118486841", "revision": "2", "raft_term": "2" },
            "kvs": [{ "key": "L2E=", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "MS4yLjMuNDo1" }],
            "count": "1" });
        let key = KeyValue { key: b"/a".to_vec(), value: b"1.2.3.4:5".to_vec(), changed: 2 };
        assert_eq!(listing(&answer), Some(Listing { revision: 2, keys: vec![key], more: false }));
        let empty = json!({ "header": { "revision": "7" } });
        assert_eq!(listing(&empty), Some(Listing { revision: 7, keys: Vec::new(), more: false }));
    }

    #[test]
    fn what_is_no_listing_is_none() {
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
    fn more_keys_than_we_follow_are_told_and_not_kept() {
        let key = json!({ "key": "L2E=", "mod_revision": "1" });
        let answer = json!({ "header": { "revision": "1" }, "kvs": vec![key; KEYS_MAX + 1] });
        let listing = listing(&answer).unwrap();
        assert_eq!((listing.keys.len(), listing.more), (KEYS_MAX, true));
    }

    #[test]
    fn the_lines_of_a_watch_are_read_as_etcd_3_4_writes_them() {
        let line = |result: Value| json!({ "result": result });
        let created = line(json!({ "header": { "revision": "2" }, "created": true }));
        assert_eq!(watched(&created), Ok(Watched::Changes(Vec::new())));
        let events = line(json!({ "events": [
            { "kv": { "key": "L2E=", "mod_revision": "2", "value": "eA==" } },
            { "type": "DELETE", "kv": { "key": "L2E=", "mod_revision": "3" } },
        ] }));
        let key = |value: &str, changed| KeyValue { key: b"/a".to_vec(), value: value.into(), changed };
        let changes = vec![Change::Put(key("x", 2)), Change::Deleted(key("", 3))];
        assert_eq!(watched(&events), Ok(Watched::Changes(changes)));
        let compacted = line(json!({ "canceled": true, "compact_revision": "3" }));
        assert_eq!(watched(&compacted), Ok(Watched::Compacted));
        let canceled =
            line(json!({ "created": true, "canceled": true, "cancel_reason": "permission denied" }));
        assert_eq!(watched(&canceled), Ok(Watched::Canceled("permission denied".to_owned())));
        let error = json!({ "error": { "grpc_code": 14, "message": "etcdserver: no leader" } });
        assert_eq!(watched(&error), Err("etcdserver: no leader".to_owned()));
        assert!(watched(&json!([])).is_err());
        assert!(watched(&line(json!({ "events": [{ "type": "NEW", "kv": {} }] }))).is_err());
    }
}
