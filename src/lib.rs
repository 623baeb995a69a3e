//! A stable place to connect to, for a service that moves.
//!
//! ```text
//!   consumer ──► listener ──► session ──► relay ──► endpoint        data plane: one thread per worker
//!                   ▲            │ pick, connect, hold
//!                   │            ▼
//!   sources ──► reconcile ──► cluster                               control plane: one thread
//! ```
//!
//! Each module uses only modules above it: first the vocabulary, then what serves a connection, then what decides which
//! connections are served and how, then what shows it. ARCHITECTURE.md has the map and the invariants.

#![warn(missing_docs)]

pub(crate) mod digits;
pub(crate) mod ordered;

pub mod address;
pub mod backoff;
pub mod client_net;
pub mod diagnostic;
pub mod ending;
pub mod escape;
pub mod events;
pub mod exit;
pub(crate) mod log_throttle;
pub(crate) mod postgres;
pub mod proxy_protocol;
pub(crate) mod regular;
pub mod route;
pub(crate) mod scratch;
pub mod socket;
pub mod traffic;

pub mod client_hello;
pub(crate) mod connect;
pub mod credentials;
pub mod handshakes;
pub mod tunnel;

pub mod client_details;
pub mod tls;

pub mod stream;

pub mod balancer;
pub(crate) mod budget;
pub(crate) mod limit;
pub mod relay;
pub mod udp;

pub mod fd_budget;

pub mod cluster;
pub mod history;
pub mod listener;

pub mod config;
pub mod log;

pub mod session;
pub mod stall;
pub mod worker;

pub mod discovery;
pub mod drain;
pub mod reconcile;

pub mod observe;
pub(crate) mod ready;

pub mod admin;
pub mod web;

pub mod app;
pub mod register;

pub mod demo;
pub(crate) mod init;

pub mod cli;
