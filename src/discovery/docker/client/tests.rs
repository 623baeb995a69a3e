//! A client and a scripted engine.

use std::collections::VecDeque;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::*;
use crate::discovery::docker::fixtures::id;

/// Answers one connection after the other, each with the next of these bytes, and closes it.
struct Engine {
    host: DockerHost,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
    _serving: JoinSet<()>,
    _directory: tempfile::TempDir,
}

fn engine(answers: &[&str]) -> Engine {
    let directory = tempfile::tempdir().unwrap();
    let socket: PathBuf = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Some(answer) = answers.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 65536];
            let read = stream.read(&mut head).await.unwrap();
            let line = String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned();
            sender.send(line).unwrap_or_default();
            stream.write_all(answer.as_bytes()).await.unwrap_or_default();
        }
    });
    Engine { host: DockerHost::Unix(socket), requests, _serving: serving, _directory: directory }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}")
}

const VERSION: &str = "HTTP/1.1 200 OK\r\n\r\n{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}";

async fn negotiated(engine: &Engine) -> Client {
    Client::negotiate(&engine.host).await.unwrap()
}

fn why<T>(result: Result<T, ApiError>) -> String {
    result.err().expect("an error").to_string()
}

#[tokio::test]
async fn version_is_negotiated_and_then_used() {
    let mut engine = engine(&[VERSION, &ok("[]")]);
    let client = negotiated(&engine).await;
    assert_eq!(client.list().await.unwrap(), []);
    assert_eq!(engine.requests.recv().await.unwrap(), "GET /version HTTP/1.1");
    assert_eq!(engine.requests.recv().await.unwrap(), "GET /v1.41/containers/json?all=1 HTTP/1.1");
}

#[tokio::test]
async fn error_contains_the_message_of_the_engine() {
    let refusal = "HTTP/1.1 403 Forbidden\r\n\r\n{\"message\":\"the proxy says no\"}";
    let engine = engine(&[refusal]);
    let why = why(Client::negotiate(&engine.host).await);
    assert_eq!(why, "/version: 403 Forbidden: the proxy says no");
}

#[tokio::test]
async fn other_server_is_an_error() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n<html>", "/version: expected value"),
        ("HTTP/1.1 200 OK\r\n\r\n{}", "is this a Docker engine?"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "/version: "),
        ("SSH-2.0-OpenSSH\r\n", "/version: "),
        ("", "/version: "),
    ] {
        let engine = engine(&[answer]);
        let why = why(Client::negotiate(&engine.host).await);
        assert!(why.contains(expected), "{answer:?}: {why}");
    }
}

#[tokio::test]
async fn missing_socket_is_an_error_with_a_help() {
    let why = why(Client::negotiate(&DockerHost::Unix("/nowhere/docker.sock".into())).await);
    assert!(why.contains("unix:///nowhere/docker.sock") && why.contains("is the socket mounted"), "{why}");
}

#[tokio::test]
async fn missing_container_is_not_an_error() {
    let gone = "HTTP/1.1 404 Not Found\r\n\r\n{\"message\":\"No such container\"}";
    let engine = engine(&[VERSION, gone, &ok("{}")]);
    let client = negotiated(&engine).await;
    assert!(matches!(client.inspect(&id("a")).await, Ok(Inspection::NotFound)));
    assert!(why(client.inspect(&id("a")).await).contains("another container"));
}

#[tokio::test]
async fn events_are_read_line_by_line() {
    let (a, b) = (id("a").0, id("b").0);
    let body = format!(
        "{{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{{\"ID\":\"{a}\"}}}}\r\n\n{{\"Type\":\"image\",\"Action\":\
         \"pull\"}}\n{{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{{\"ID\":\"{b}\"}}}}\n{{\"Type\":"
    );
    let chunks: Vec<String> = body
        .as_bytes()
        .chunks(7)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
        .collect();
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.concat());
    let mut engine = engine(&[VERSION, &answer]);
    let mut events = negotiated(&engine).await.events().await.unwrap();
    assert_eq!(events.next().await.unwrap(), DockerEvent::Stopped(id("a")));
    assert_eq!(events.next().await.unwrap(), DockerEvent::Changed(id("b")));
    assert!(why(events.next().await).contains("closed the stream"));
    engine.requests.recv().await.unwrap();
    let request = engine.requests.recv().await.unwrap();
    assert!(request.starts_with("GET /v1.41/events?filters=%7B%22event%22%3A%5B%22create%22"), "{request}");
}

#[tokio::test]
async fn event_that_is_too_long_is_an_error() {
    let answer = ok(&"x".repeat(EVENT_MAX + 2));
    let engine = engine(&[VERSION, &answer]);
    let mut events = negotiated(&engine).await.events().await.unwrap();
    assert!(why(events.next().await).contains("more than 1048576 bytes"));
}

#[tokio::test(start_paused = true)]
async fn engine_that_does_not_respond_times_out() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(why(Client::negotiate(&DockerHost::Unix(socket)).await), "/version: no response");
}

fn labelled(labels: &str) -> String {
    let image = format!("sha256:{}", "1".repeat(64));
    ok(&format!(r#"{{"Id":"{}","Image":"{image}","Config":{{"Labels":{labels}}}}}"#, id("a").0))
}

async fn labels(client: &Client) -> (Vec<String>, Vec<String>) {
    let Ok(Inspection::Found(container)) = client.inspect(&id("a")).await else { panic!("a container") };
    (container.labels.into_keys().collect(), container.inherited.into_keys().collect())
}

#[tokio::test]
async fn image_is_inspected_once_and_its_labels_are_separated() {
    let container = labelled(r#"{"own":"1","image":"2"}"#);
    let mut engine =
        engine(&[VERSION, &container, &ok(r#"{"Config":{"Labels":{"image":"2"}}}"#), &container]);
    let client = negotiated(&engine).await;
    for _ in 0..2 {
        assert_eq!(labels(&client).await, (vec!["own".to_owned()], vec!["image".to_owned()]));
    }
    engine.requests.recv().await.unwrap();
    engine.requests.recv().await.unwrap();
    let request = engine.requests.recv().await.unwrap();
    assert_eq!(request, format!("GET /v1.41/images/sha256:{}/json HTTP/1.1", "1".repeat(64)));
}

#[tokio::test]
async fn labels_of_an_image_that_cannot_be_inspected_may_be_its_own() {
    let refused = "HTTP/1.1 403 Forbidden\r\n\r\n";
    let engine = engine(&[VERSION, &labelled(r#"{"own":"1"}"#), refused, &labelled("{}")]);
    let client = negotiated(&engine).await;
    assert_eq!(labels(&client).await, (vec![], vec!["own".to_owned()]));
    assert_eq!(labels(&client).await, (vec![], vec![]), "an image is request for where there are labels");
}
