//! Names that are unique among concurrent tests and processes.

use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns `hint-PID-N`.
pub(crate) fn unique(hint: &str) -> String {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{hint}-{}-{n}", std::process::id())
}

/// Returns a private loopback address. Those of `app` are lower.
pub(crate) fn private_ip() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{low}.{}", 128 | high, NEXT.fetch_add(1, Ordering::Relaxed))
}
