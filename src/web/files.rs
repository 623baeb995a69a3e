//! The page's files: built by `cargo xtask web`, compressed, and part of the binary.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::admin::{self, Response};

/// A file of the page.
pub(super) struct File {
    path: &'static str,
    content_type: &'static str,
    /// The content, compressed by gzip, which every browser accepts.
    gzip: &'static [u8],
}

/// Every file.
static FILES: [File; 4] = [
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

/// Returns the file of a path.
pub(super) fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

impl File {
    /// Returns the file, or 304 if the browser has it.
    pub(super) fn response(&self, method: &Method, headers: &HeaderMap) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return admin::failure((
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed: use GET".to_owned(),
            ));
        }
        let tag = self.tag();
        let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| *known == tag);
        let mut response = match is_known {
            true => admin::response(StatusCode::NOT_MODIFIED, self.content_type, Vec::new()),
            false => admin::response(StatusCode::OK, self.content_type, self.gzip),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if !is_known {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// The end of a gzip file is a checksum of its content, and its length (RFC 1952).
    fn tag(&self) -> HeaderValue {
        let end = self.gzip.get(self.gzip.len().saturating_sub(8)..).unwrap_or_default();
        let text = format!("\"{}\"", data_encoding::HEXLOWER.encode(end));
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\""))
    }
}
