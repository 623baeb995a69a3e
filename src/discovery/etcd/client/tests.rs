//! Authentication.

use super::*;
use crate::config::hosts::Hosts;
use crate::discovery::http::fake::{Fake, ReceivedRequest, Reply};

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

/// Issues tokens, and accepts only the one with this number.
fn with_tokens(tokens: usize) -> impl FnMut(&ReceivedRequest) -> Option<Reply> {
    let mut given = 0;
    move |request| {
        if request.line.ends_with("/v3/auth/authenticate") {
            assert_eq!(request.body, "{\"name\":\"root\",\"password\":\"secret\"}");
            given += 1;
            return Some(Reply::json(&json!({ "token": format!("t{given}") })));
        }
        let shown = request.head.contains(&format!("authorization: t{tokens}"));
        Some(if shown { listing() } else { refused("401 Unauthorized", "etcdserver: invalid auth token") })
    }
}

#[tokio::test]
async fn token_is_obtained_once_and_reused() {
    let mut fake = Fake::new(with_tokens(1)).await;
    let client = client(&fake, true);
    client.list("/s").await.unwrap();
    client.list("/s").await.unwrap();
    let expected = ["POST /v3/auth/authenticate", "POST /v3/kv/range", "POST /v3/kv/range"];
    assert_eq!(fake.lines(), expected);
}

#[tokio::test]
async fn expired_token_is_renewed() {
    let fake = Fake::new(with_tokens(2)).await;
    client(&fake, true).list("/s").await.unwrap();
}

#[tokio::test]
async fn token_that_is_never_accepted_is_an_error() {
    let fake = Fake::new(with_tokens(9)).await;
    let why = client(&fake, true).list("/s").await.unwrap_err().to_string();
    assert!(why.contains("invalid auth token") && !why.contains("secret"), "{why}");
}

#[tokio::test]
async fn without_authentication_no_token_is_sent() {
    let fake = Fake::new(|request| {
        let auth = request.line.contains("authenticate");
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
async fn missing_credentials_are_an_error_with_a_help() {
    let fake = Fake::new(|_| Some(refused("400 Bad Request", "etcdserver: user name is empty"))).await;
    let why = client(&fake, false).list("/s").await.unwrap_err().to_string();
    assert!(why.contains("AMBASSADOR_ETCD_USER"), "{why}");
}

#[tokio::test]
async fn credentials_for_other_hosts_are_not_sent() {
    let mut fake = Fake::new(|_| Some(refused("400 Bad Request", "etcdserver: user name is empty"))).await;
    let login = Some(Login { user: "root".to_owned(), password: "secret".to_owned() });
    let hosts = Hosts::of_etcd(false, &["other:2379".to_owned()]);
    let client = Client::new(&fake.address, false, &EtcdAccess { login, hosts, ..EtcdAccess::default() });
    let why = client.list("/s").await.unwrap_err().to_string();
    assert!(why.contains("no credentials are configured for etcd"), "{why}");
    assert_eq!(fake.lines(), ["POST /v3/kv/range"]);
}
