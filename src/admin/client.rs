//! The admin API from the other end, for the verbs of the command line.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use super::address::{self, Choice};

/// An answer longer than this is not one of ours.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Long enough for a busy machine, short enough for a health check of Docker's (30 s).
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the ambassador answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub ok: bool,
    pub body: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no ambassador answers on its admin address ({0}); --admin or AMBASSADOR_ADMIN says where it is")]
    Unreachable(io::Error),
    #[error("the ambassador's answer makes no sense: {0}")]
    Garbled(String),
}

pub async fn get(choice: &Choice, path: &str) -> Result<Answer, ClientError> {
    match tokio::time::timeout(TIMEOUT, exchange(choice, path)).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Unreachable(io::ErrorKind::TimedOut.into())),
    }
}

async fn exchange(choice: &Choice, path: &str) -> Result<Answer, ClientError> {
    let stream = address::connect(choice).await.map_err(ClientError::Unreachable)?;
    let garbled = |error: hyper::Error| ClientError::Garbled(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(garbled)?;
    let request = Request::get(path)
        .header("host", "ambassador")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ClientError::Garbled(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(garbled)?;
        let ok = response.status().is_success();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ClientError::Garbled(error.to_string()))?.to_bytes();
        Ok(Answer { ok, body: String::from_utf8_lossy(&body).into_owned() })
    };
    let drive = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = drive => Err(ClientError::Garbled("the connection ended".to_owned())),
    }
}
