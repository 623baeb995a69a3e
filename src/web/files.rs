//! The page's files: built by `cargo xtask web`, compressed, and part of the binary.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A file of the page.
pub(super) struct File {
    pub(super) path: &'static str,
    content_type: &'static str,
    /// The content, compressed by gzip, which every browser accepts.
    gzip: &'static [u8],
}

/// Every file.
pub(super) static FILES: [File; 4] = [
    File { path: "/", content_type: "text/html; charset=utf-8", gzip: include_bytes!("page/index.html.gz") },
    File {
        path: "/app.js",
        content_type: "text/javascript; charset=utf-8",
        gzip: include_bytes!("page/app.js.gz"),
    },
    File {
        path: "/app.css",
        content_type: "text/css; charset=utf-8",
        gzip: include_bytes!("page/app.css.gz"),
    },
    File { path: "/icon.svg", content_type: "image/svg+xml", gzip: include_bytes!("page/icon.svg.gz") },
];

impl File {
    /// Returns the file, or 304 if the browser has it.
    pub(super) fn response(&self, headers: &HeaderMap) -> Response {
        let tag = self.tag();
        let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| *known == tag);
        let common = [
            (header::ETAG, tag),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
        ];
        if is_known {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        (common, [(header::CONTENT_ENCODING, "gzip")], self.gzip).into_response()
    }

    /// The end of a gzip file is a checksum of its content, and its length (RFC 1952).
    fn tag(&self) -> HeaderValue {
        let end = self.gzip.get(self.gzip.len().saturating_sub(8)..).unwrap_or_default();
        let text = format!("\"{}\"", data_encoding::HEXLOWER.encode(end));
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\""))
    }
}
