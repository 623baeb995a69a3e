//! Listings and changes, in all possible orders.

use super::*;
use crate::discovery::endpoint_resolver::{names, resolve};

fn key(name: &str, value: &str, changed: i64) -> KeyValue {
    KeyValue { key: name.as_bytes().to_vec(), value: value.as_bytes().to_vec(), changed }
}

fn put(name: &str, value: &str, changed: i64) -> KeyChange {
    KeyChange::Put(key(name, value, changed))
}

fn deleted(name: &str, changed: i64) -> KeyChange {
    KeyChange::Deleted(key(name, "", changed))
}

fn listing<const N: usize>(revision: i64, keys: [(&str, &str); N]) -> Listing {
    let keys = keys.map(|(name, value)| key(name, value, 1));
    Listing { revision, cluster: None, keys: keys.to_vec(), more: false }
}

fn changes<const N: usize>(changes: [KeyChange; N]) -> Changes {
    Changes { changes: changes.into(), ..Changes::default() }
}

fn state<const N: usize>(revision: i64, keys: [(&str, &str); N]) -> KeyState {
    let mut state = KeyState::new("/s");
    state.apply_listing(listing(revision, keys), 0).unwrap();
    state
}

fn shown(state: &KeyState) -> Vec<String> {
    let addresses = |_: &str| vec![[10, 9, 9, 9].into(), [10, 9, 9, 8].into()];
    let endpoints =
        resolve(&state.endpoints(), addresses, &[("laptop".to_owned(), [10, 9, 9, 7].into())].into());
    endpoints.iter().map(|e| format!("{} {} {}", e.key, e.weight, e.tier)).collect()
}

#[test]
fn key_is_an_endpoint_with_the_key_as_identity() {
    let state =
        state(5, [("/s/a", "10.0.0.1:80"), ("/s/b", r#"{"address":"10.0.0.1:80","weight":3,"tier":1}"#)]);
    assert_eq!(shown(&state), ["10.0.0.1:80 (/s/a) 1 0", "10.0.0.1:80 (/s/b) 3 1"]);
    assert_eq!(state.next_revision(), 6);
}

#[test]
fn key_may_be_an_export_of_a_peer() {
    let state =
        state(1, [("/s/a", "peer://10.0.0.1/r"), ("/s/b", "peer://host1/r"), ("/s/c", "peer://@laptop/r")]);
    assert_eq!(
        shown(&state),
        [
            "peer://10.0.0.1:15008/r (/s/a) 1 0",
            "peer://10.9.9.9:15008/r (/s/b) 1 0",
            "peer://10.9.9.8:15008/r (/s/b) 1 0",
            "peer://@laptop@10.9.9.7/r (/s/c) 1 0",
        ]
    );
}

#[test]
fn prefix_and_keys_below_it_are_endpoints_and_longer_names_are_not() {
    let state = state(1, [("/s", "10.0.0.1:1"), ("/s-2/a", "10.0.0.1:2"), ("/s/x/y", "10.0.0.1:3")]);
    assert_eq!(shown(&state), ["10.0.0.1:1 (/s) 1 0", "10.0.0.1:3 (/s/x/y) 1 0"]);
}

#[test]
fn changes_are_applied_in_order_and_known_ones_are_ignored() {
    let mut state = state(5, [("/s/a", "10.0.0.1:80")]);
    state.apply_changes(changes([put("/s/a", "10.0.0.9:9", 5), deleted("/s/a", 4)])).unwrap();
    assert_eq!(shown(&state), ["10.0.0.1:80 (/s/a) 1 0"]);
    state
        .apply_changes(changes([
            put("/s/a", "10.0.0.2:80", 6),
            put("/s/b", "10.0.0.3:80", 6),
            deleted("/s/a", 7),
        ]))
        .unwrap();
    assert_eq!(shown(&state), ["10.0.0.3:80 (/s/b) 1 0"]);
    assert_eq!(state.next_revision(), 8);
}

#[test]
fn listing_older_than_a_change_is_ignored_and_a_later_one_is_applied() {
    let mut state = state(5, [("/s/a", "10.0.0.1:80")]);
    state.apply_changes(changes([put("/s/a", "10.0.0.2:80", 7)])).unwrap();
    assert_eq!(state.apply_listing(listing(6, []), 5), Ok(Comparison::Unchanged));
    assert_eq!(state.apply_listing(listing(7, [("/s/a", "10.0.0.2:80")]), 5), Ok(Comparison::Unchanged));
    assert_eq!(state.apply_listing(listing(9, [("/s/b", "10.0.0.1:80")]), 7), Ok(Comparison::Changed));
    assert_eq!(shown(&state), ["10.0.0.1:80 (/s/b) 1 0"]);
}

#[test]
fn lower_revision_or_another_cluster_is_an_error() {
    let of = |cluster, revision| Listing {
        cluster: Some(cluster),
        ..listing(revision, [("/s/a", "10.0.0.1:80")])
    };
    let mut state = KeyState::new("/s");
    state.apply_listing(of(1, 5), 0).unwrap();
    assert!(state.apply_listing(listing(4, []), 5).unwrap_err().to_string().contains("from 5 to 4"));
    assert!(state.apply_listing(of(2, 9), 5).unwrap_err().to_string().contains("another cluster"));
    assert!(state.apply_changes(Changes { cluster: Some(2), ..Changes::default() }).is_err());
    state.apply_changes(Changes { cluster: Some(1), ..Changes::default() }).unwrap();
    assert_eq!(shown(&state).len(), 1, "the keys are kept until then");
    state.reset_revision();
    state.apply_listing(Listing { cluster: Some(2), ..listing(2, []) }, 0).unwrap();
    assert_eq!(shown(&state), [""; 0]);
}

#[test]
fn changes_of_one_revision_may_arrive_separately() {
    let mut state = state(5, [("/s/a", "10.0.0.1:80"), ("/s/b", "10.0.0.1:81")]);
    state.apply_changes(changes([deleted("/s/a", 6)])).unwrap();
    state.apply_changes(changes([deleted("/s/b", 6)])).unwrap();
    assert_eq!(shown(&state), [""; 0]);
}

#[test]
fn invalid_value_is_reported_once_and_affects_no_other_key() {
    let mut state = state(1, [("/s/a", "10.0.0.1:80"), ("/s/b", "nonsense")]);
    let invalid = state.take_invalid();
    assert_eq!(invalid.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["/s/b"]);
    assert_eq!(shown(&state), ["10.0.0.1:80 (/s/a) 1 0"]);
    state.apply_listing(listing(2, [("/s/a", "10.0.0.1:80"), ("/s/b", "nonsense")]), 1).unwrap();
    state.apply_changes(changes([put("/s/b", "nonsense", 3)])).unwrap();
    assert_eq!(state.take_invalid(), []);
    state.apply_changes(changes([put("/s/b", "", 4), put("/s/a", "", 5)])).unwrap();
    assert_eq!(state.take_invalid().len(), 2);
    assert_eq!(shown(&state), [""; 0], "a key whose value became invalid has no endpoint");
    state.apply_changes(changes([put("/s/b", "10.0.0.2:80", 6)])).unwrap();
    assert_eq!(shown(&state), ["10.0.0.2:80 (/s/b) 1 0"]);
}

#[test]
fn every_address_of_a_name_is_an_endpoint() {
    let state = state(1, [("/s/a", "redis:80"), ("/s/b", "redis:81"), ("/s/c", "10.0.0.1:80")]);
    assert_eq!(names(&state.endpoints()).collect::<Vec<_>>(), ["redis"]);
    assert_eq!(shown(&state).len(), 5);
    assert_eq!(shown(&state)[0], "10.9.9.9:80 (/s/a) 1 0");
}

#[test]
fn too_many_keys_are_an_error() {
    let mut state = state(1, [("/s/a", "10.0.0.1:80")]);
    let more = Listing { more: true, ..listing(2, []) };
    assert!(state.apply_listing(more, 0).unwrap_err().to_string().contains("/s"));
    assert_eq!(shown(&state).len(), 1);
    let flood = (0..=KEYS_MAX).map(|n| put(&format!("/s/{n}"), "10.0.0.1:80", 2)).collect();
    assert!(state.apply_changes(Changes { changes: flood, ..Changes::default() }).is_err());
}

#[test]
fn keys_that_are_not_names_are_ignored() {
    let mut state = state(1, []);
    let odd = KeyValue { key: vec![b'/', b's', b'/', 0xff], value: b"10.0.0.1:80".to_vec(), changed: 2 };
    state
        .apply_changes(changes([
            KeyChange::Put(odd),
            put(&format!("/s/{}", "k".repeat(2000)), "10.0.0.1:80", 3),
        ]))
        .unwrap();
    assert_eq!(shown(&state), [""; 0]);
}
