//! Handshakes between two ends with our configurations.

mod secrets;
mod support;
