//! What people and programs see: the events, the status of routes, the sessions, the metrics.

pub mod config;
mod exposition;
pub mod metrics;
mod process;
pub mod sessions;
pub mod status;
pub mod table;
