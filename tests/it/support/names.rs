//! Names that no other test has, in this process or beside it.

use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// `hint-PID-N`
pub(crate) fn unique(hint: &str) -> String {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{hint}-{}-{n}", std::process::id())
}
