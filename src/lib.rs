//! A stable place to connect to, for a service that moves.
//!
//! ```text
//!   consumer ──► listener ──► session ──► relay ──► endpoint        data plane: one thread per worker
//!                   ▲            │ pick, connect, hold
//!                   │            ▼
//!   sources ──► reconcile ──► cluster                               control plane: one thread
//! ```
//!
//! The modules stand in the order a connection meets them: first how the program knows what to do, then what it
//! does with a connection, then what shows it. ARCHITECTURE.md has the map and the invariants.

pub mod config;
pub mod diagnostic;
pub mod discovery;
pub mod reconcile;
pub mod route;

pub mod balancer;
pub mod budget;
pub mod client_net;
pub mod cluster;
pub mod connect;
pub mod ending;
pub mod fd_budget;
pub mod limit;
pub mod listener;
pub mod relay;
pub mod session;
pub mod socket;
pub mod stall;
pub mod worker;

pub mod admin;
pub mod drain;
pub mod observe;
pub mod ready;
pub(crate) mod regular;

pub mod app;
pub mod cli;
pub mod demo;
pub mod init;
pub mod register;
