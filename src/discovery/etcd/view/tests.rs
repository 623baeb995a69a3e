//! Listings and changes in the orders in which they can come.

use super::*;

fn key(name: &str, value: &str, changed: i64) -> KeyValue {
    KeyValue { key: name.as_bytes().to_vec(), value: value.as_bytes().to_vec(), changed }
}

fn put(name: &str, value: &str, changed: i64) -> Change {
    Change::Put(key(name, value, changed))
}

fn deleted(name: &str, changed: i64) -> Change {
    Change::Deleted(key(name, "", changed))
}

fn listing<const N: usize>(revision: i64, keys: [(&str, &str); N]) -> Listing {
    let keys = keys.map(|(name, value)| key(name, value, 1));
    Listing { revision, cluster: None, keys: keys.to_vec(), more: false }
}

fn changes<const N: usize>(changes: [Change; N]) -> Changes {
    Changes { changes: changes.into(), ..Changes::default() }
}

fn view<const N: usize>(revision: i64, keys: [(&str, &str); N]) -> View {
    let mut view = View::new("/s");
    view.listed(listing(revision, keys), 0).unwrap();
    view
}

fn shown(view: &View) -> Vec<String> {
    let endpoints = view.endpoints(|_| vec![[10, 9, 9, 9].into(), [10, 9, 9, 8].into()]);
    endpoints.iter().map(|e| format!("{} {} {}", e.key, e.weight, e.tier)).collect()
}

#[test]
fn each_key_is_an_endpoint_and_its_identity_is_the_key() {
    let view =
        view(5, [("/s/a", "10.0.0.1:80"), ("/s/b", r#"{"address":"10.0.0.1:80","weight":3,"tier":1}"#)]);
    assert_eq!(shown(&view), ["10.0.0.1:80 (/s/a) 1 0", "10.0.0.1:80 (/s/b) 3 1"]);
    assert_eq!(view.next_revision(), 6);
}

#[test]
fn the_prefix_itself_and_what_is_below_it_count_and_its_namesakes_do_not() {
    let view = view(1, [("/s", "10.0.0.1:1"), ("/s-2/a", "10.0.0.1:2"), ("/s/x/y", "10.0.0.1:3")]);
    assert_eq!(shown(&view), ["10.0.0.1:1 (/s) 1 0", "10.0.0.1:3 (/s/x/y) 1 0"]);
}

#[test]
fn changes_are_heard_in_order_and_those_known_already_are_not_heard_again() {
    let mut view = view(5, [("/s/a", "10.0.0.1:80")]);
    view.heard(changes([put("/s/a", "10.0.0.9:9", 5), deleted("/s/a", 4)])).unwrap();
    assert_eq!(shown(&view), ["10.0.0.1:80 (/s/a) 1 0"]);
    view.heard(changes([put("/s/a", "10.0.0.2:80", 6), put("/s/b", "10.0.0.3:80", 6), deleted("/s/a", 7)]))
        .unwrap();
    assert_eq!(shown(&view), ["10.0.0.3:80 (/s/b) 1 0"]);
    assert_eq!(view.next_revision(), 8);
}

#[test]
fn a_listing_that_a_change_overtook_is_of_no_use_and_a_later_one_is_the_truth() {
    let mut view = view(5, [("/s/a", "10.0.0.1:80")]);
    view.heard(changes([put("/s/a", "10.0.0.2:80", 7)])).unwrap();
    assert_eq!(view.listed(listing(6, []), 5), Ok(Learned::Nothing));
    assert_eq!(view.listed(listing(7, [("/s/a", "10.0.0.2:80")]), 5), Ok(Learned::Nothing));
    assert_eq!(view.listed(listing(9, [("/s/b", "10.0.0.1:80")]), 7), Ok(Learned::Something));
    assert_eq!(shown(&view), ["10.0.0.1:80 (/s/b) 1 0"]);
}

#[test]
fn a_revision_that_went_back_and_another_cluster_begin_again() {
    let of = |cluster, revision| Listing {
        cluster: Some(cluster),
        ..listing(revision, [("/s/a", "10.0.0.1:80")])
    };
    let mut view = View::new("/s");
    view.listed(of(1, 5), 0).unwrap();
    assert!(view.listed(listing(4, []), 5).unwrap_err().contains("from 5 to 4"));
    assert!(view.listed(of(2, 9), 5).unwrap_err().contains("another cluster"));
    assert!(view.heard(Changes { cluster: Some(2), ..Changes::default() }).is_err());
    view.heard(Changes { cluster: Some(1), ..Changes::default() }).unwrap();
    assert_eq!(shown(&view).len(), 1, "what was known stands until then");
    view.begin();
    view.listed(Listing { cluster: Some(2), ..listing(2, []) }, 0).unwrap();
    assert_eq!(shown(&view), [""; 0]);
}

#[test]
fn changes_of_one_revision_may_come_one_after_the_other() {
    let mut view = view(5, [("/s/a", "10.0.0.1:80"), ("/s/b", "10.0.0.1:81")]);
    view.heard(changes([deleted("/s/a", 6)])).unwrap();
    view.heard(changes([deleted("/s/b", 6)])).unwrap();
    assert_eq!(shown(&view), [""; 0]);
}

#[test]
fn a_value_that_cannot_be_used_is_told_once_and_removes_no_other() {
    let mut view = view(1, [("/s/a", "10.0.0.1:80"), ("/s/b", "nonsense")]);
    let told = view.take_complaints();
    assert_eq!(told.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["/s/b"]);
    assert_eq!(shown(&view), ["10.0.0.1:80 (/s/a) 1 0"]);
    view.listed(listing(2, [("/s/a", "10.0.0.1:80"), ("/s/b", "nonsense")]), 1).unwrap();
    view.heard(changes([put("/s/b", "nonsense", 3)])).unwrap();
    assert_eq!(view.take_complaints(), []);
    view.heard(changes([put("/s/b", "", 4), put("/s/a", "", 5)])).unwrap();
    assert_eq!(view.take_complaints().len(), 2);
    assert_eq!(shown(&view), [""; 0], "a key that became nonsense has no endpoint");
    view.heard(changes([put("/s/b", "10.0.0.2:80", 6)])).unwrap();
    assert_eq!(shown(&view), ["10.0.0.2:80 (/s/b) 1 0"]);
}

#[test]
fn every_address_of_a_name_is_an_endpoint() {
    let view = view(1, [("/s/a", "redis:80"), ("/s/b", "redis:81"), ("/s/c", "10.0.0.1:80")]);
    assert_eq!(view.names(), BTreeSet::from(["redis".to_owned()]));
    assert_eq!(shown(&view).len(), 5);
    assert_eq!(shown(&view)[0], "10.9.9.9:80 (/s/a) 1 0");
}

#[test]
fn more_keys_than_one_service_has_are_a_failure_and_not_an_answer() {
    let mut view = view(1, [("/s/a", "10.0.0.1:80")]);
    let more = Listing { more: true, ..listing(2, []) };
    assert!(view.listed(more, 0).unwrap_err().contains("/s"));
    assert_eq!(shown(&view).len(), 1);
    let flood = (0..=KEYS_MAX).map(|n| put(&format!("/s/{n}"), "10.0.0.1:80", 2)).collect();
    assert!(view.heard(Changes { changes: flood, ..Changes::default() }).is_err());
}

#[test]
fn keys_that_are_no_names_are_passed_over() {
    let mut view = view(1, []);
    let odd = KeyValue { key: vec![b'/', b's', b'/', 0xff], value: b"10.0.0.1:80".to_vec(), changed: 2 };
    view.heard(changes([Change::Put(odd), put(&format!("/s/{}", "k".repeat(2000)), "10.0.0.1:80", 3)]))
        .unwrap();
    assert_eq!(shown(&view), [""; 0]);
}
