//! What people and programs see: the log, and the status of routes.

pub mod events;
pub mod log;
pub mod status;
