//! Shared test infrastructure. Each value that starts something ends it when dropped.

mod ambassador;
mod clogged;
mod compose;
mod consul;
mod container;
mod dns;
mod engine;
mod etcd;
mod host;
mod load;
mod names;
mod namespace;
mod postgres;
mod servers;
mod service;
mod skip;
mod terminal;
mod wait;

pub(crate) use ambassador::{Ambassador, Builder};
pub(crate) use clogged::Clogged;
pub(crate) use compose::{Compose, Project, compose_1, compose_5};
pub(crate) use consul::{Consul, TOKEN as CONSUL_TOKEN};
pub(crate) use container::Container;
pub(crate) use dns::Dns;
pub(crate) use engine::Engine;
pub(crate) use etcd::{Etcd, base64};
pub(crate) use host::{DaemonHost, Host, Hosts, SwarmHost, daemon_host, hosts, swarm_host};
pub(crate) use load::Load;
pub(crate) use names::private_ip;
pub(crate) use namespace::Namespace;
pub(crate) use postgres::Postgres;
pub(crate) use servers::{http_get, redis_ping, redis_ping_on};
pub(crate) use service::{Service, ask};
pub(crate) use skip::{is_dist_image, needs, record, skip, variable};
pub(crate) use wait::{eventually, pause, within};
