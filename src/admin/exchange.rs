//! Requests and responses of the admin API and of the page, on hyper.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::connections::Streaming;
use super::guard::Rejection;

/// The longest body is a route, which has some thousand bytes at most.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(crate) type Request = http::Request<Incoming>;
pub(crate) type Response = http::Response<Body>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Answers a request. A handler that streams its response says so.
pub(crate) type Handler = Arc<dyn Fn(Request, Streaming) -> BoxFuture<'static, Response> + Send + Sync>;

/// Returns a response with this content.
pub(crate) fn response(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Response {
    let body = Full::new(content.into()).map_err(|never: Infallible| match never {});
    with_body(status, HeaderValue::from_static(content_type), body.boxed_unsync())
}

/// Returns a response with this body.
pub(crate) fn with_body(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Returns a response of text, with a line break at its end.
pub(super) fn text(status: StatusCode, text: &str) -> Response {
    response(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// Returns a response of JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(content) => response(status, "application/json", content),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Returns an error as JSON.
pub(crate) fn failure((status, error): Rejection) -> Response {
    json(status, &json!({ "error": error }))
}

/// Returns a response whose body is sent as it arises.
pub(super) fn stream(
    content_type: &'static str,
    chunks: impl Stream<Item = String> + Send + 'static,
) -> Response {
    let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    let body = StreamBody::new(frames).boxed_unsync();
    with_body(StatusCode::OK, HeaderValue::from_static(content_type), body)
}

/// Reads the body of a request.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, Rejection> {
    match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {BODY_BYTES_MAX} bytes")))
        }
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("cannot read the body: {error}"))),
    }
}

/// Parses the query of a request.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Rejection> {
    let query = uri.query().unwrap_or_default();
    serde_urlencoded::from_str(query)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("invalid query `{query}`: {error}")))
}
