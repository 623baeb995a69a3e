//! Tokens: got when they are wanted, and again when they have expired.

use super::*;
use crate::config::hosts::Hosts;
use crate::discovery::http::fake::{Asked, Fake, Reply};

fn client(fake: &Fake, login: bool) -> Client {
    let login = login.then(|| Login { user: "root".to_owned(), password: "secret".to_owned() });
    let hosts = Hosts::of_etcd(false, std::slice::from_ref(&fake.address));
    Client::new(&fake.address, false, &EtcdAccess { login, hosts, ..EtcdAccess::default() })
}

fn listing() -> Reply {
    Reply::json(&json!({ "header": { "revision": "1" } }))
}

fn refused(status: &str, message: &str) -> Reply {
    Reply::status(status, &json!({ "error": message, "message": message, "code": 16 }).to_string())
}

/// Gives the n-th token, and takes only that from then on.
fn with_tokens(tokens: usize) -> impl FnMut(&Asked) -> Option<Reply> {
    let mut given = 0;
    move |asked| {
        if asked.line.ends_with("/v3/auth/authenticate") {
            assert_eq!(asked.body, "{\"name\":\"root\",\"password\":\"secret\"}");
            given += 1;
            return Some(Reply::json(&json!({ "token": format!("t{given}") })));
        }
        let shown = asked.head.contains(&format!("authorization: t{tokens}"));
        Some(if shown { listing() } else { refused("401 Unauthorized", "etcdserver: invalid auth token") })
    }
}

#[tokio::test]
async fn a_token_is_got_first_and_then_used() {
    let mut fake = Fake::new(with_tokens(1)).await;
    let client = client(&fake, true);
    client.list("/s").await.unwrap();
    client.list("/s").await.unwrap();
    let expected = ["POST /v3/auth/authenticate", "POST /v3/kv/range", "POST /v3/kv/range"];
    assert_eq!(fake.lines(), expected);
}

#[tokio::test]
async fn an_expired_token_is_got_again() {
    let fake = Fake::new(with_tokens(2)).await;
    client(&fake, true).list("/s").await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_never_good_is_given_up() {
    let fake = Fake::new(with_tokens(9)).await;
    let why = client(&fake, true).list("/s").await.unwrap_err().to_string();
    assert!(why.contains("invalid auth token") && !why.contains("secret"), "{why}");
}

#[tokio::test]
async fn an_etcd_that_asks_nobody_is_spoken_to_without_a_token() {
    let fake = Fake::new(|asked| {
        let auth = asked.line.contains("authenticate");
        Some(if auth {
            refused("412 Precondition Failed", "etcdserver: authentication is not enabled")
        } else {
            listing()
        })
    })
    .await;
    client(&fake, true).list("/s").await.unwrap();
}

#[tokio::test]
async fn who_wants_to_know_who_we_are_is_told_how() {
    let fake = Fake::new(|_| Some(refused("400 Bad Request", "etcdserver: user name is empty"))).await;
    let why = client(&fake, false).list("/s").await.unwrap_err().to_string();
    assert!(why.contains("AMBASSADOR_ETCD_USER"), "{why}");
}

#[tokio::test]
async fn credentials_for_others_are_not_sent_and_the_error_says_why() {
    let mut fake = Fake::new(|_| Some(refused("400 Bad Request", "etcdserver: user name is empty"))).await;
    let login = Some(Login { user: "root".to_owned(), password: "secret".to_owned() });
    let hosts = Hosts::of_etcd(false, &["other:2379".to_owned()]);
    let client = Client::new(&fake.address, false, &EtcdAccess { login, hosts, ..EtcdAccess::default() });
    let why = client.list("/s").await.unwrap_err().to_string();
    assert!(why.contains("no credentials are configured for etcd"), "{why}");
    assert_eq!(fake.lines(), ["POST /v3/kv/range"]);
}
