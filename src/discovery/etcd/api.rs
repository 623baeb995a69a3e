//! What etcd's JSON gateway says, read into our own words. Pure.
//!
//! Keys and values are base64, 64-bit numbers are strings, and what is zero, false or empty is not there at all
//! (<https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>).

use data_encoding::BASE64;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Value, json};

use crate::discovery::http::{Element, Elements, Loose};

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
    /// Whose revision it is. `None` from a gateway that does not say.
    pub(crate) cluster: Option<u64>,
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

/// What one line of a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Changes(Changes),
    /// The revision to begin at is forgotten: list again.
    Compacted,
    /// Why there will be no more.
    Canceled(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// In the order in which they happened. None: the watch has begun, or goes on.
    pub(crate) changes: Vec<Change>,
    /// A fragment: the next line has more changes, which may be of the same revision.
    pub(crate) goes_on: bool,
    pub(crate) cluster: Option<u64>,
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

/// The answer to a range.
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
pub(crate) struct Line {
    result: Option<Told>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Told {
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
    events: Elements<Change>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
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
    /// One more than are followed shows that there are too many.
    const MAX: usize = KEYS_MAX + 1;

    fn read(KeyValueJson { key, value, mod_revision }: KeyValueJson) -> Result<Option<KeyValue>, String> {
        let changed = signed(&mod_revision).ok_or("a key without a revision")?;
        Ok(Some(KeyValue { key, value, changed }))
    }
}

impl Element for Change {
    type Json = EventJson;
    /// The length of a line is the limit.
    const MAX: usize = usize::MAX;

    fn read(EventJson { kind, kv }: EventJson) -> Result<Option<Change>, String> {
        let key = KeyValue::read(kv)?;
        match kind {
            Loose::Other => Ok(key.map(Change::Put)),
            Loose::Text(kind) if kind == "PUT" => Ok(key.map(Change::Put)),
            Loose::Text(kind) if kind == "DELETE" => Ok(key.map(Change::Deleted)),
            _ => Err("an event of an unknown type".to_owned()),
        }
    }
}

/// `None` without a revision.
pub(crate) fn listing(Range { header, kvs: Elements(mut keys), more }: Range) -> Option<Listing> {
    let more = more || keys.len() > KEYS_MAX;
    keys.truncate(KEYS_MAX);
    Some(Listing { revision: signed(&header.revision)?, cluster: unsigned(&header.cluster_id), keys, more })
}

/// An error is what etcd says instead.
pub(crate) fn watched(Line { result, error }: Line) -> Result<Watched, String> {
    let Some(told) = result else {
        let said = error.as_ref().and_then(|error| error.message.text());
        return Err(said.unwrap_or("a line that makes no sense").to_owned());
    };
    if unsigned(&told.compact_revision).is_some() {
        return Ok(Watched::Compacted);
    }
    if told.canceled {
        return Ok(Watched::Canceled(told.cancel_reason.text().unwrap_or("no reason given").to_owned()));
    }
    let cluster = told.header.and_then(|header| unsigned(&header.cluster_id));
    Ok(Watched::Changes(Changes { changes: told.events.0, goes_on: told.fragment, cluster }))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(D::Error::custom)
}

/// A string by the gateway's rule; a number from whoever stands in for it.
fn unsigned(value: &Loose) -> Option<u64> {
    value.number().or_else(|| value.text()?.parse().ok())
}

fn signed(value: &Loose) -> Option<i64> {
    unsigned(value).and_then(|number| i64::try_from(number).ok())
}

/// The same of a value that is read already.
pub(crate) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(answer: &Value) -> Option<Listing> {
        super::listing(serde_json::from_value(answer.clone()).ok()?)
    }

    fn watched(line: &Value) -> Result<Watched, String> {
        super::watched(serde_json::from_value(line.clone()).map_err(|error| error.to_string())?)
    }

    #[test]
    fn a_listing_is_read_as_etcd_3_4_writes_it() {
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
        assert_eq!(watched(&created), Ok(Watched::Changes(Changes::default())));
        let events = line(json!({ "header": { "cluster_id": "7" }, "fragment": true, "events": [
            { "kv": { "key": "L2E=", "mod_revision": "2", "value": "eA==" } },
            { "type": "DELETE", "kv": { "key": "L2E=", "mod_revision": "3" } },
        ] }));
        let key = |value: &str, changed| KeyValue { key: b"/a".to_vec(), value: value.into(), changed };
        let changes = vec![Change::Put(key("x", 2)), Change::Deleted(key("", 3))];
        let changes = Changes { changes, goes_on: true, cluster: Some(7) };
        assert_eq!(watched(&events), Ok(Watched::Changes(changes)));
        let compacted = line(json!({ "canceled": true, "compact_revision": "3" }));
        assert_eq!(watched(&compacted), Ok(Watched::Compacted));
        let canceled =
            line(json!({ "created": true, "canceled": true, "cancel_reason": "permission denied" }));
        assert_eq!(watched(&canceled), Ok(Watched::Canceled("permission denied".to_owned())));
        let error = json!({ "error": { "grpc_code": 14, "message": "etcdserver: no leader" } });
        assert_eq!(watched(&error), Err("etcdserver: no leader".to_owned()));
        assert!(watched(&json!([])).is_err());
        assert!(watched(&line(json!({ "header": { "cluster_id": "7" }, "fragment": true, "events": [{ "type": "NEW", "kv": {} }] }))).is_err());
    }
}
