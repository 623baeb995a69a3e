//! Docker as a source: events and inspections over a GET-only API, made into [`super::containers::Containers`].
//!
//! ```text
//!   /version ─► /events ─► /containers/json ─► /containers/{id}/json ... ─► snapshot ─► snapshot ...
//!              (subscribe first, then list)             ▲
//!                  └── each event: look again ──────────┘
//! ```
//!
//! An endpoint found here is a container and not an address: when the container dies its endpoint goes with the
//! event, before an inspection, so before Docker can give the address to another. An event can be missing, so the list is
//! read again every few seconds, and takes away as well: see [`watch`].

mod api;
mod client;
mod event;
mod own;
mod version;
mod view;
mod watch;

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Publisher, Snapshot, Source, SourceError};
use crate::config::DockerHost;
use client::{ApiError, Client};
use watch::Watch;

pub struct Docker {
    pub host: DockerHost,
    /// Notified while sessions find no endpoint that answers: then containers are listed again soon.
    pub trouble: Arc<Notify>,
}

impl Source for Docker {
    fn name(&self) -> String {
        "docker".to_owned()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        let mut watch = match self.begin().await {
            Ok(watch) => watch,
            Err(error) => return error.into(),
        };
        loop {
            match watch.changed().await {
                Ok(containers) => {
                    if let Err(stopped) = publisher.publish(Snapshot::Docker(Arc::new(containers))).await {
                        return stopped.into();
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }

    async fn wanted(&mut self) {
        self.trouble.notified().await;
    }
}

impl Docker {
    async fn begin(&self) -> Result<Watch, ApiError> {
        let client = Client::negotiate(&self.host).await?;
        Watch::begin(client, own::candidates(), self.trouble.clone()).await
    }
}

impl From<ApiError> for SourceError {
    fn from(error: ApiError) -> SourceError {
        SourceError::Failed(error.to_string())
    }
}

/// What the fuzz targets feed: an answer of an engine, or an event. A container, where it is one.
#[doc(hidden)]
pub fn read_any(
    answer: &serde_json::Value,
) -> Option<(super::containers::ContainerId, super::containers::Container)> {
    let _ = api::listed(answer);
    let _ = event::event(answer);
    let _ = version::Version::common(api::text(answer, "/MinAPIVersion"), api::text(answer, "/ApiVersion"));
    api::inspected(answer)
}

/// The same: what the kernel says of our own container.
#[doc(hidden)]
pub fn read_any_text(text: &str) {
    let _ = own::found(text, text, text);
}
