//! What Docker, Consul and etcd answer, as far as it is JSON: no answer panics.
#![no_main]

use ambassador::discovery::{consul, docker, etcd};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(answer) = serde_json::from_slice(bytes) {
        docker::read_any(&answer);
    }
    consul::read_any(bytes);
    etcd::read_answer(bytes);
});
