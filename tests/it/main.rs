//! The real thing, from outside: one binary for all integration tests.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; the exemption in clippy.toml misses helpers"
)]

mod relay;
mod udp;
