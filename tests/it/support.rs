//! What tests stand on. Everything that a test starts is a value that ends it when dropped.

mod ambassador;
mod container;
mod host;
mod load;
mod names;
mod namespace;
mod servers;
mod skip;
mod terminal;
mod wait;

pub(crate) use ambassador::Ambassador;
pub(crate) use container::Container;
pub(crate) use host::{DaemonHost, Host, daemon_host, hosts};
pub(crate) use load::Load;
pub(crate) use namespace::Namespace;
pub(crate) use servers::{http_get, redis_ping};
pub(crate) use skip::{is_dist_image, needs, record, skip, variable};
pub(crate) use wait::{eventually, within};
