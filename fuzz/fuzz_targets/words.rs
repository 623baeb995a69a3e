//! Texts that others write and sources read: `resolv.conf`, a hosts file, a file of endpoints, an etcd value. None panics.
#![no_main]

use ambassador::discovery::{dns, etcd, file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    etcd::read_any(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        dns::read_any(text);
        file::read_any(text);
    }
});
