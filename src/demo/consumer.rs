//! A consumer that sends requests continuously, over new connections and over one that it keeps. Its only configuration is
//! the address of the ambassador.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::protocol;
use super::statistics::{Connection, RequestEvent};

pub(super) const NEW_INTERVAL: Duration = Duration::from_millis(20);
const KEPT_INTERVAL: Duration = Duration::from_millis(100);
/// Twice the default of `hold`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends requests until it is dropped. The receiver reads continuously, so the queue is unbounded.
pub(super) async fn run(addr: SocketAddr, seen: UnboundedSender<RequestEvent>) {
    tokio::join!(request_over_new_connections(addr, &seen), request_over_kept_connection(addr, &seen));
}

/// Sends requests at a fixed rate without waiting for answers, so that a pause affects all requests sent during it.
async fn request_over_new_connections(addr: SocketAddr, seen: &UnboundedSender<RequestEvent>) {
    let mut ticks = interval(NEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = JoinSet::new();
    loop {
        ticks.tick().await;
        while requests.try_join_next().is_some() {}
        let _ = seen.send(RequestEvent::Sent);
        let seen = seen.clone();
        requests.spawn(async move {
            let began = Instant::now();
            let answer = within_timeout(request_over_new_connection(addr)).await.map(|(_, by)| by);
            let _ = seen.send(ended(answer, began.elapsed(), Connection::New));
        });
    }
}

/// Replaces a broken connection and repeats the request, as a connection pool does.
async fn request_over_kept_connection(addr: SocketAddr, seen: &UnboundedSender<RequestEvent>) {
    let mut kept: Option<TcpStream> = None;
    loop {
        sleep(KEPT_INTERVAL).await;
        let _ = seen.send(RequestEvent::Sent);
        let began = Instant::now();
        let answer = match kept.take() {
            Some(stream) => match within_timeout(protocol::request(&stream)).await {
                Ok(by) => Ok((stream, by)),
                Err(_) => {
                    let _ = seen.send(RequestEvent::ConnectionBroken);
                    within_timeout(request_over_new_connection(addr)).await
                }
            },
            None => within_timeout(request_over_new_connection(addr)).await,
        };
        let answer = answer.map(|(stream, by)| {
            kept = Some(stream);
            by
        });
        let _ = seen.send(ended(answer, began.elapsed(), Connection::Kept));
    }
}

async fn request_over_new_connection(addr: SocketAddr) -> io::Result<(TcpStream, String)> {
    let stream = TcpStream::connect(addr).await?;
    let by = protocol::request(&stream).await?;
    Ok((stream, by))
}

async fn within_timeout<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| io::Error::other("no answer in 20 seconds"))?
}

fn ended(answer: io::Result<String>, waited: Duration, connection: Connection) -> RequestEvent {
    match answer {
        Ok(by) => RequestEvent::Answered { by, waited, connection },
        Err(error) => RequestEvent::Failed { why: error.to_string(), waited },
    }
}
