//! Values of every type where one was expected, and texts of every length.

use std::thread;

use serde_json::json;

use super::*;

#[derive(Debug, Deserialize)]
struct Inner {
    #[serde(default)]
    a: Loose,
}

fn read(json: &serde_json::Value) -> Loose<Inner> {
    serde_json::from_str(&json.to_string()).unwrap()
}

#[test]
fn loose_value_is_returned_if_its_type_matches() {
    assert_eq!(read(&json!("x")).text(), Some("x"));
    assert_eq!(read(&json!("")).text(), None);
    assert_eq!(read(&json!(7)).number(), Some(7));
    assert_eq!(read(&json!({ "a": "b", "c": [] })).object().unwrap().a.text(), Some("b"));
    for other in [json!(null), json!(true), json!(-1), json!(1.5), json!([1, {}]), json!({ "a": [1] })] {
        let loose = read(&other);
        assert_eq!((loose.text(), loose.number()), (None, None), "{other}");
    }
}

/// The even ones; 9 refuses the list.
#[derive(Debug, PartialEq)]
struct Even(u64);

impl Element for Even {
    type Json = Loose;
    const MAX: usize = 3;

    fn read(json: Loose) -> Result<Option<Even>, String> {
        match json.number() {
            Some(9) => Err("nine".to_owned()),
            number => Ok(number.filter(|number| number % 2 == 0).map(Even)),
        }
    }
}

#[test]
fn list_keeps_used_elements_up_to_its_limit() {
    let read = |text: &str| serde_json::from_str::<Elements<Even>>(text);
    assert_eq!(read("[1,2,null,[[]],4]").unwrap(), Elements(vec![Even(2), Even(4)]));
    assert_eq!(read("[2,2,2,2,9]").unwrap().0.len(), 3);
    assert!(read("[2,9]").unwrap_err().to_string().contains("nine"));
    assert!(read("{}").unwrap_err().to_string().contains("a list"));
    assert!(read("[2,2,2,2").is_err(), "it does not end");
}

/// Which thread parsed it.
struct On(thread::ThreadId);

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<On, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(On(thread::current().id()))
    }
}

#[tokio::test]
async fn long_text_is_parsed_on_another_thread_and_short_text_is_not() {
    let own = thread::current().id();
    let text = |len: usize| Bytes::from(format!("\"{}\"", "x".repeat(len)));
    assert_eq!(parse::<On>(text(100)).await.unwrap().0, own);
    assert_ne!(parse::<On>(text(INLINE_MAX)).await.unwrap().0, own);
}

/// As a panic of a parser would be.
#[derive(Debug)]
struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Panics, D::Error> {
        panic!("a parser's mistake")
    }
}

#[tokio::test]
async fn panic_on_the_other_thread_is_an_error() {
    let why = parse::<Panics>(Bytes::from(vec![b' '; INLINE_MAX + 1])).await.unwrap_err();
    assert!(why.contains("panicked"), "{why}");
}
