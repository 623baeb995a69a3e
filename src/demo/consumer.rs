//! A consumer that never stops asking: over a new connection each time, and over one that it keeps.
//!
//! It knows one address, and nothing of what stands behind.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::account::{Line, Seen};
use super::line;

pub(super) const PAUSE_FRESH: Duration = Duration::from_millis(20);
const PAUSE_KEPT: Duration = Duration::from_millis(100);
/// Twice what the ambassador holds a session by default: a request that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks until it is dropped. What it sees is read in time, so the queue needs no bound.
pub(super) async fn run(addr: SocketAddr, seen: UnboundedSender<Seen>) {
    tokio::join!(ask_over_fresh(addr, &seen), ask_over_kept(addr, &seen));
}

/// Does not wait for one answer before the next question: a pause is felt by everybody who comes in it.
async fn ask_over_fresh(addr: SocketAddr, seen: &UnboundedSender<Seen>) {
    let mut ticks = interval(PAUSE_FRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = JoinSet::new();
    loop {
        ticks.tick().await;
        while requests.try_join_next().is_some() {}
        let _ = seen.send(Seen::Asked);
        let seen = seen.clone();
        requests.spawn(async move {
            let began = Instant::now();
            let answer = in_time(ask_anew(addr)).await.map(|(_, by)| by);
            let _ = seen.send(ended(answer, began.elapsed(), Line::Fresh));
        });
    }
}

/// As a pool of connections does: one that turns out to be broken is replaced, and the question asked again.
async fn ask_over_kept(addr: SocketAddr, seen: &UnboundedSender<Seen>) {
    let mut kept: Option<TcpStream> = None;
    loop {
        sleep(PAUSE_KEPT).await;
        let _ = seen.send(Seen::Asked);
        let began = Instant::now();
        let answer = match kept.take() {
            Some(stream) => match in_time(line::ask(&stream)).await {
                Ok(by) => Ok((stream, by)),
                Err(_) => {
                    let _ = seen.send(Seen::Broken);
                    in_time(ask_anew(addr)).await
                }
            },
            None => in_time(ask_anew(addr)).await,
        };
        let answer = answer.map(|(stream, by)| {
            kept = Some(stream);
            by
        });
        let _ = seen.send(ended(answer, began.elapsed(), Line::Kept));
    }
}

async fn ask_anew(addr: SocketAddr) -> io::Result<(TcpStream, String)> {
    let stream = TcpStream::connect(addr).await?;
    let by = line::ask(&stream).await?;
    Ok((stream, by))
}

async fn in_time<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, answer).await.map_err(|_| io::Error::other("no answer in 20 seconds"))?
}

fn ended(answer: io::Result<String>, waited: Duration, line: Line) -> Seen {
    match answer {
        Ok(by) => Seen::Answered { by, waited, line },
        Err(error) => Seen::Failed { why: error.to_string(), waited },
    }
}
