//! Lookups and sources, with a scripted name server.

mod followed;
mod lookup;
mod server;
mod source;
mod srv;
