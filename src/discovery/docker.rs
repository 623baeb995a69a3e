//! Docker as a source: events and inspections over a GET-only API, published as [`Containers`].
//!
//! ```text
//!   /version ─► /events ─► /containers/json ─► /containers/{id}/json ... ─► snapshot ─► snapshot ...
//!              (subscribe first, then list)             ▲
//!                  └── each event: inspect again ───────┘
//! ```
//!
//! An endpoint of this source is a container and not an address: when the container dies its endpoint is removed with the
//! event, before an inspection, so before Docker can reassign the address. Since an event can be lost, the list is read again
//! every few seconds, and removes endpoints as well: see [`watch`].
//!
//! [`model`] has the containers of a snapshot; [`select`], [`address`] and [`resolve`] turn a target into endpoints;
//! [`labels`], [`named`] and [`links`] turn containers into routes.

mod address;
mod api;
mod client;
mod engine;
mod event;
pub mod labels;
pub(super) mod links;
pub(crate) mod model;
pub(super) mod named;
mod own;
mod resolve;
mod select;
mod version;
mod watch;

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::{LastAnswer, Publisher, Snapshot, Source, SourceError};
use crate::config::DockerHost;
use client::{ApiError, Client};
use labels::Labels;
pub use model::{Container, ContainerId, Containers, NetworkMode, Published};
pub use resolve::Resolution;
pub(crate) use select::SelectError;
pub use select::Selector;
use watch::EngineWatch;

/// The source for one engine.
pub struct Docker {
    /// The address of the engine.
    pub host: DockerHost,
    /// Notified while sessions find no endpoint that responds: then containers are listed again soon.
    pub trouble: Arc<Notify>,
}

impl Source for Docker {
    fn name(&self) -> String {
        "docker".to_owned()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        let mut watch = match self.begin(publisher.answered().clone()).await {
            Ok(watch) => watch,
            Err(error) => return error.into(),
        };
        loop {
            let snapshot = Snapshot::Docker(Arc::new(watch.snapshot()));
            if let Err(stopped) = publisher.publish_changed(snapshot).await {
                return stopped.into();
            }
            if let Err(error) = watch.changed().await {
                return error.into();
            }
        }
    }

    async fn retry_requested(&mut self) {
        self.trouble.notified().await;
    }
}

impl Docker {
    async fn begin(&self, answered: LastAnswer) -> Result<EngineWatch, ApiError> {
        let client = Client::negotiate(&self.host).await?;
        EngineWatch::begin(client, own::candidates(), self.trouble.clone(), answered).await
    }
}

impl From<ApiError> for SourceError {
    fn from(error: ApiError) -> SourceError {
        SourceError::Failed(error.to_string())
    }
}

/// A snapshot together with its parsed labels. Routes are recomputed whenever any source changes; labels are parsed once, when
/// the routes of this snapshot are first requested.
#[derive(Clone, Debug)]
pub struct DockerSnapshot {
    containers: Arc<Containers>,
    labels: OnceLock<Arc<Labels>>,
}

impl DockerSnapshot {
    /// Returns the labels of these containers.
    pub fn labels(&self) -> &Labels {
        self.labels.get_or_init(|| Arc::new(Labels::parse(&self.containers)))
    }
}

impl From<Arc<Containers>> for DockerSnapshot {
    fn from(containers: Arc<Containers>) -> DockerSnapshot {
        DockerSnapshot { containers, labels: OnceLock::new() }
    }
}

impl Deref for DockerSnapshot {
    type Target = Containers;

    fn deref(&self) -> &Containers {
        &self.containers
    }
}

/// Fuzz target: reads a response of an engine, or an event. Returns the container, if it is one.
#[doc(hidden)]
pub fn read_any(answer: &serde_json::Value) -> Option<(ContainerId, Container)> {
    let _ = api::listed(answer);
    let _ = event::event(answer);
    let _ = version::Version::common(api::text(answer, "/MinAPIVersion"), api::text(answer, "/ApiVersion"));
    api::inspected(answer)
}

/// Fuzz target: reads the kernel's files about our own container.
#[doc(hidden)]
pub fn read_any_text(text: &str) {
    let _ = own::found(text, text, text);
}

#[cfg(test)]
pub(crate) mod fixtures;
