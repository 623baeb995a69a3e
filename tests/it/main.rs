//! Integration tests of the program as users run it: real processes, real servers, real Docker hosts if `cargo xtask
//! test` started them. A single binary. Tests wait for readiness and never sleep for it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails; the exemption in clippy.toml misses helpers"
)]

mod admin;
mod app;
mod balance;
mod ca;
mod consul;
mod corpus;
mod cost;
mod cross_links;
mod demo;
mod dns;
mod docker_health;
mod docker_source;
mod docs;
mod endpoint_file;
mod etcd;
mod grammar;
mod growth;
mod hello_world;
mod hostile;
mod image;
mod latency;
mod monitoring;
mod networks;
mod peer_routes;
mod peer_status;
mod peer_udp;
mod peers;
mod process;
mod proxy_protocol;
mod register;
mod relay;
mod replace;
mod restarts;
mod scaled_compose;
mod server_names;
mod sessions;
mod simulation;
mod soak;
mod support;
mod swarm;
mod tidy;
mod tls;
mod top;
mod troubleshooting;
mod two_hosts;
mod udp;
mod web;
