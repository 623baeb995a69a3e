//! From what etcd has to what it shall have.

use super::*;

fn check(has: &[(&str, Option<&str>)], wanted: &[(&str, &str)], expected: &[&str]) {
    let has = has.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
    let wanted = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let shown: Vec<String> = steps(&has, &wanted)
        .into_iter()
        .map(|(key, step)| match step {
            Step::Put(value) => format!("{key}={value}"),
            Step::Delete => format!("-{key}"),
        })
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn what_is_gone_goes_first_and_what_is_there_is_left_alone() {
    check(&[], &[("a", "1")], &["a=1"]);
    check(&[("a", Some("1"))], &[("a", "1")], &[]);
    check(&[("a", Some("1")), ("b", Some("2"))], &[("a", "9"), ("c", "3")], &["-b", "a=9", "c=3"]);
}

#[test]
fn a_key_of_unknown_value_is_written_again_or_removed() {
    check(&[("a", None), ("b", None)], &[("a", "1")], &["-b", "a=1"]);
}

#[test]
fn a_transaction_puts_under_the_lease() {
    let steps = [("/s/a".to_owned(), Step::Put("x".to_owned())), ("/s/b".to_owned(), Step::Delete)];
    let expected = json!({ "success": [
        { "request_put": { "key": "L3MvYQ==", "value": "eA==", "lease": "7" } },
        { "request_delete_range": { "key": "L3MvYg==" } },
    ] });
    assert_eq!(transaction(&steps, 7), expected);
}

#[test]
fn the_keys_of_a_lease_are_read_as_etcd_3_4_writes_them() {
    assert_eq!(
        keys(&json!({ "ID": "1", "TTL": "9", "grantedTTL": "10", "keys": ["L3MvYQ==", "%", 7] })).len(),
        1
    );
    assert!(keys(&json!({ "ID": "1", "TTL": "-1" })).is_empty());
}
