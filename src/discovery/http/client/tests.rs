//! A scripted server, for the tests of all HTTP clients.

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::discovery::http::error::REASON_SHOWN_MAX;

pub(crate) struct Fake {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    pub(crate) requests: mpsc::UnboundedReceiver<ReceivedRequest>,
    _serving: JoinSet<()>,
}

/// One request, as received.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// `POST /v3/kv/range`.
    pub(crate) line: String,
    /// With lower-case names.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A response, after which the connection is closed or left open.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    text: String,
    open: bool,
}

impl Reply {
    pub(crate) fn json(body: &Value) -> Reply {
        Reply::status("200 OK", &body.to_string())
    }

    pub(crate) fn status(status: &str, body: &str) -> Reply {
        Reply {
            text: format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
            open: false,
        }
    }

    /// A stream of lines that does not end.
    pub(crate) fn stream(lines: &[Value]) -> Reply {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Reply { text: format!("HTTP/1.1 200 OK\r\n\r\n{body}"), open: true }
    }
}

impl Fake {
    /// Starts a server; `None` closes the connection without a response.
    pub(crate) async fn new(answer: impl FnMut(&ReceivedRequest) -> Option<Reply> + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, requests) = mpsc::unbounded_channel();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, answer, sender));
        Fake { address, requests, _serving: serving }
    }

    /// The lines of the requests so far.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).map(|request| request.line).collect()
    }
}

async fn serve(
    listener: TcpListener,
    mut answer: impl FnMut(&ReceivedRequest) -> Option<Reply>,
    sender: mpsc::UnboundedSender<ReceivedRequest>,
) {
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Some(request) = read(&mut stream).await else { continue };
        let reply = answer(&request);
        sender.send(request).unwrap_or_default();
        if let Some(reply) = reply {
            stream.write_all(reply.text.as_bytes()).await.unwrap_or_default();
            if reply.open {
                open.push(stream);
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<ReceivedRequest> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        if body.len() == length {
            let line = line.trim_end_matches(" HTTP/1.1").to_owned();
            return Some(ReceivedRequest { line, head, body: body.to_owned() });
        }
    }
}

fn client(fake: &Fake) -> Client {
    Client::new(Server::Tcp(fake.address.clone()))
}

#[tokio::test]
async fn method_headers_and_body_are_sent() {
    let mut fake = Fake::new(|_| Some(Reply::json(&serde_json::json!({ "a": 1 })))).await;
    let request = Request::put("/v1/x?y=z", &serde_json::json!({ "b": 2 }))
        .header(hyper::header::AUTHORIZATION, "secret")
        .header(hyper::header::COOKIE, "a\nb");
    let answer: Value = client(&fake).send(request).await.unwrap().json().await.unwrap();
    assert_eq!(answer, serde_json::json!({ "a": 1 }));
    let request = fake.requests.recv().await.unwrap();
    assert_eq!((request.line.as_str(), request.body.as_str()), ("PUT /v1/x?y=z", "{\"b\":2}"));
    assert!(
        request.head.contains("authorization: secret")
            && request.head.contains("content-type: application/json")
    );
    assert!(!request.head.contains("cookie"), "it is not valid in a header");
}

#[tokio::test]
async fn error_contains_the_message_of_the_server_and_not_the_query() {
    for (body, expected) in [
        ("{\"message\":\"no\"}", "/v1/x: 403 Forbidden: no"),
        ("Permission\x07 denied\n", "/v1/x: 403 Forbidden: Permission  denied"),
        ("", "/v1/x: 403 Forbidden"),
    ] {
        let fake = Fake::new(move |_| Some(Reply::status("403 Forbidden", body))).await;
        let error = client(&fake).send(Request::get("/v1/x?token=secret")).await.err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn request_without_a_response_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::Tcp(listener.local_addr().unwrap().to_string());
    let error =
        Client::new(server).send(Request::get("/x").timeout(Duration::from_secs(3))).await.err().unwrap();
    assert_eq!(error.to_string(), "/x: no response");
}

#[tokio::test]
async fn response_that_is_too_long_is_an_error_with_a_help() {
    const LIMIT: Limit = Limit { mib: 1, help: "ask for less" };
    let announced =
        Reply { text: format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 << 20), open: true };
    let sent = Reply { text: format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(2 << 20)), open: false };
    for reply in [announced, sent] {
        let fake = Fake::new(move |_| Some(reply.clone())).await;
        let error = client(&fake).send(Request::get("/x?y").limit(LIMIT)).await.err().unwrap();
        assert_eq!(error.to_string(), "/x: the response has more than 1 MiB: ask for less");
        assert!(error.is_request_specific());
    }
}

#[tokio::test]
async fn redirect_is_an_error() {
    let elsewhere = Fake::new(|_| Some(Reply::json(&Value::Null))).await;
    let status = format!("302 Found\r\nlocation: http://{}/", elsewhere.address);
    let fake = Fake::new(move |_| Some(Reply::status(&status, ""))).await;
    let request = Request::get("/x").header(hyper::header::AUTHORIZATION, "secret");
    let error = client(&fake).send(request).await.err().unwrap();
    assert_eq!(error.to_string(), "/x: 302 Found");
}

#[tokio::test]
async fn long_message_in_an_error_is_cut() {
    let body = format!("\"{}\"", "x".repeat(10_000));
    let fake = Fake::new(move |_| Some(Reply::status("200 OK", &body))).await;
    let error = client(&fake).send(Request::get("/x")).await.unwrap().json::<u64>().await.err().unwrap();
    assert!(error.to_string().len() < REASON_SHOWN_MAX + 10, "{error}");
}

#[tokio::test]
async fn line_that_is_too_long_ends_the_stream() {
    let lines = ["a".repeat(100), "b".repeat(200_000)].map(Value::String);
    let fake = Fake::new(move |_| Some(Reply::stream(&lines))).await;
    let mut lines = client(&fake).lines::<String>(Request::get("/x"), 1_000).await.unwrap();
    assert_eq!(lines.next().await.unwrap().len(), 100);
    assert_eq!(lines.next().await.unwrap_err().to_string(), "/x: a line of more than 1000 bytes");
}

#[tokio::test]
async fn line_being_parsed_is_not_lost_when_the_call_is_dropped() {
    let texts = ["a".repeat(200_000), "b".to_owned()].map(Value::String);
    let fake = Fake::new(move |_| Some(Reply::stream(&texts))).await;
    let mut lines = client(&fake).lines::<String>(Request::get("/x"), 1 << 20).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 2 {
        // Drops the call whenever it waits for something.
        match lines.next().now_or_never() {
            Some(line) => found.push(line.unwrap().len()),
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    assert_eq!(found, [200_000, 1]);
}
