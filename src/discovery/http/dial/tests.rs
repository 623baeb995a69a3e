//! The order of addresses, and attempts at several.

use tokio::net::TcpListener;

use super::*;

fn check(ips: &[&str], turn: usize, expected: &[&str]) {
    let parsed = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    let shown: Vec<String> = in_order(parsed, turn).iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected);
}

#[test]
fn families_take_turns_and_a_failed_turn_begins_at_the_next_address() {
    check(&[], 3, &[]);
    check(&["10.0.0.1", "10.0.0.2", "::1"], 0, &["::1", "10.0.0.1", "10.0.0.2"]);
    check(&["10.0.0.1", "::1", "::2", "::3"], 0, &["::1", "10.0.0.1", "::2", "::3"]);
    check(&["10.0.0.1", "10.0.0.2"], 1, &["10.0.0.2", "10.0.0.1"]);
    check(&["10.0.0.1", "10.0.0.2"], 4, &["10.0.0.1", "10.0.0.2"]);
}

/// Nothing listens there.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn refused_address_is_followed_by_the_next_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stream = first(vec![refusing().await, refusing().await, addr]).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), addr);
}

#[tokio::test]
async fn error_lists_every_address_up_to_a_limit() {
    let (one, other) = (refusing().await, refusing().await);
    let why = first(vec![one, other]).await.unwrap_err();
    assert!(why.contains(&one.to_string()) && why.contains(&other.to_string()), "{why}");
    let why = first(vec![one; 10]).await.unwrap_err();
    assert_eq!(why.matches("refused").count(), SHOWN_MAX, "{why}");
    assert_eq!(first(Vec::new()).await.unwrap_err(), "");
}
