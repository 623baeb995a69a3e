//! Handshakes between two ends with our configurations, and with strangers.

mod files;
mod foreign;
mod refused;
mod reload;
mod secrets;
mod support;
