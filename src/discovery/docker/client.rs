//! GET requests to one engine, over a unix socket, TCP or TLS, with a version that both sides support.
//!
//! bollard is not used: its models reject a whole response for one unknown value, without access to the JSON; it has no TLS
//! without verification (Docker's `--tls`); and it negotiates a version, but then sends requests without one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{self, ContainerSummary, text};
use super::engine::Inspection;
use super::event::{self, DockerEvent};
use super::model::{Container, ContainerId};
use super::version::Version;
use crate::config::DockerHost;
use crate::discovery::http::{self, Elements, HttpError, Limit, Lines, Request, percent_encoded};

/// The list of 10,000 containers has 20 MB.
const LIST: Limit = Limit { mib: 64, help: "remove containers that ended, or shorten their labels" };
const INSPECTION: Limit = Limit { mib: 8, help: "shorten the labels of this container or image" };

/// An event contains a container's labels and some names.
const EVENT_MAX: usize = 1 << 20;

/// Limits of the cache of image labels: 16 MB in the worst case. What exceeds them is requested again.
const IMAGES_MAX: usize = 1024;
const IMAGE_LABELS_MAX_BYTES: usize = 16 * 1024;

/// Characters of the engine's version that are shown.
const ENGINE_VERSION_MAX: usize = 32;

type Labels = Arc<BTreeMap<String, String>>;

/// Why a request to the engine failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("{0}")]
    Unusable(String),
}

#[derive(Clone)]
pub(super) struct Client {
    http: http::Client,
    /// `/v1.41`, or empty during negotiation.
    prefix: Arc<str>,
    /// The version of the engine, such as `28.5.1`; empty if it does not report one.
    pub(super) engine: Arc<str>,
    /// The labels of images, by ID. An image never changes: its ID is a hash of it.
    images: Arc<Mutex<BTreeMap<String, Labels>>>,
}

impl Client {
    /// Requests the versions that the engine supports, and selects one.
    pub(super) async fn negotiate(host: &DockerHost) -> Result<Client, ApiError> {
        let mut client = Client {
            http: http::Client::new(host.clone()),
            prefix: Arc::from(""),
            engine: Arc::from(""),
            images: Arc::default(),
        };
        let answer: Value = client.get("/version", INSPECTION).await?;
        let version = Version::common(text(&answer, "/MinAPIVersion"), text(&answer, "/ApiVersion"));
        let version = version.map_err(ApiError::Unusable)?;
        let engine = text(&answer, "/Version").unwrap_or_default();
        client.engine = engine.chars().take(ENGINE_VERSION_MAX).collect::<String>().into();
        client.prefix = Arc::from(format!("/v{version}"));
        Ok(client)
    }

    /// Lists every container, running or not.
    pub(super) async fn list(&self) -> Result<Vec<ContainerSummary>, ApiError> {
        let Elements(list) = self.get("/containers/json?all=1", LIST).await?;
        Ok(list)
    }

    /// Inspects a container, and its image where it is needed to separate the labels.
    pub(super) async fn inspect(&self, id: &ContainerId) -> Result<Inspection, ApiError> {
        let path = format!("/containers/{}/json", id.0);
        match self.get(&path, INSPECTION).await {
            Ok(answer) => match api::inspected(&answer) {
                Some((answered, container)) if answered == *id => {
                    Ok(Inspection::Found(Box::new(self.with_own_labels(container).await?)))
                }
                _ => Err(HttpError::exchange(&path, &"the response is for another container").into()),
            },
            Err(HttpError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(Inspection::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Separates the labels of the container from those of its image.
    async fn with_own_labels(&self, mut container: Container) -> Result<Container, ApiError> {
        if !container.labels.is_empty() {
            let image = self.image_labels(&container.image.id).await?;
            container.inherit(image.as_deref());
        }
        Ok(container)
    }

    /// Returns the labels of an image; `None` if the engine, or a proxy in front of it, refuses.
    async fn image_labels(&self, id: &str) -> Result<Option<Labels>, ApiError> {
        if id.is_empty() {
            return Ok(None);
        }
        let known = self.images.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let labels = match self.get(&format!("/images/{id}/json"), INSPECTION).await {
            Ok(answer) => api::image_labels(&answer).map(Arc::new),
            Err(HttpError::Status { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        self.cache(id, labels.as_ref());
        Ok(labels)
    }

    fn cache(&self, id: &str, labels: Option<&Labels>) {
        let size =
            |labels: &&Labels| labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let Some(labels) = labels.filter(|labels| size(labels) <= IMAGE_LABELS_MAX_BYTES) else { return };
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if images.len() >= IMAGES_MAX {
            images.clear();
        }
        images.insert(id.to_owned(), labels.clone());
    }

    /// Subscribes to events. Returns once the engine has begun to respond, at about the time of the subscription (see
    /// [`super::watch::RESYNC_FIRST`]).
    pub(super) async fn events(&self) -> Result<EventStream, ApiError> {
        let filters = json!({ "type": ["container", "network"], "event": event::SUBSCRIBED });
        let path = format!("/events?filters={}", percent_encoded(&filters.to_string()));
        Ok(EventStream { lines: self.http.lines(self.request(&path), EVENT_MAX).await? })
    }

    async fn get<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        limit: Limit,
    ) -> Result<T, HttpError> {
        self.http.send(self.request(path).limit(limit)).await?.json().await
    }

    fn request(&self, path: &str) -> Request {
        Request::get(format!("{}{path}", self.prefix))
    }
}

/// The event stream.
pub(super) struct EventStream {
    lines: Lines,
}

impl EventStream {
    /// Returns the next event that concerns a container. A stream that ends is an error. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<DockerEvent, ApiError> {
        loop {
            if let Some(event) = event::event(&self.lines.next().await?) {
                return Ok(event);
            }
        }
    }
}

#[cfg(test)]
mod tests;
