//! The program as its users meet it: real processes, real servers, real Docker hosts where `cargo xtask test` brought
//! them up. Readiness is awaited, never slept for.

mod cross_links;
mod hello_world;
mod image;
mod restarts;
mod scaled_compose;
mod support;
mod tidy;
mod two_hosts;
