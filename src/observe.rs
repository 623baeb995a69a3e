//! Output for users and programs: configuration, status, sessions and metrics.

pub mod config;
mod exposition;
pub mod history;
pub mod metrics;
pub mod peers;
mod process;
pub(crate) mod sessions;
pub mod status;
pub mod table;
mod tls;
