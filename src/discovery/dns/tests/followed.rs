//! A source that is followed, and its updates.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{EndpointAddr, EndpointSpec};
use crate::config::dns::Limits;
use crate::config::grammar::parse_endpoint;
use crate::discovery::dns::{Dns, Resolver};
use crate::discovery::{LastAnswer, Snapshot, SourceUpdate, follow_observed};
use crate::route::Target;

pub(super) struct Followed {
    pub(super) updates: mpsc::Receiver<SourceUpdate>,
    pub(super) trouble: Arc<Notify>,
    pub(super) answered: LastAnswer,
    _source: AbortOnDropHandle<()>,
}

pub(super) fn follow(target: &str, resolver: &Resolver) -> Followed {
    follow_within(target, resolver, Limits::default())
}

pub(super) fn follow_within(target: &str, resolver: &Resolver, limits: Limits) -> Followed {
    let (sender, updates) = mpsc::channel(16);
    let trouble = Arc::<Notify>::default();
    let target = match target.strip_prefix("srv://") {
        Some(name) => Target::Srv { name: name.to_owned() },
        None if target.starts_with("peer://") => parse_endpoint(target).expect("a target"),
        None => Target::Host { host: target.to_owned(), port: 6379 },
    };
    let source = Dns::of(&target, resolver.clone().within(limits), trouble.clone()).expect("a name");
    let (_source, answered) = follow_observed(source, sender);
    Followed { updates, trouble, answered, _source }
}

fn ip(endpoint: &EndpointSpec) -> IpAddr {
    match &endpoint.key.addr {
        EndpointAddr::Inet(addr) => addr.ip(),
        other => panic!("{other}"),
    }
}

impl Followed {
    pub(super) async fn update(&mut self) -> SourceUpdate {
        let update = timeout(Duration::from_secs(10), self.updates.recv()).await.expect("an update in time");
        update.expect("a source that runs")
    }

    pub(super) async fn endpoints(&mut self) -> Vec<EndpointSpec> {
        match self.update().await {
            SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. }) => endpoints,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn next(&mut self) -> Vec<IpAddr> {
        self.endpoints().await.iter().map(ip).collect()
    }

    pub(super) async fn failure(&mut self) -> String {
        match self.update().await {
            SourceUpdate::Lost { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }
}
