//! What people and programs see: the log, the events, the status of routes, the sessions, the metrics.

pub mod escape;
mod exposition;
pub mod log;
pub mod metrics;
mod process;
pub mod sessions;
pub mod status;
pub mod table;
