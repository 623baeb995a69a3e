//! Docker as a source: events and inspections over a GET-only API, made into [`Containers`].

use super::{Publisher, Source, SourceError};
use crate::config::DockerConfig;

pub struct Docker {
    pub config: DockerConfig,
}

impl Source for Docker {
    fn name(&self) -> String {
        "docker".to_owned()
    }

    async fn run(&mut self, _publisher: &mut Publisher) -> SourceError {
        SourceError::Stopped
    }
}
