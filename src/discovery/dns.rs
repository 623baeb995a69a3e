//! One DNS name as a source: its addresses, asked again when their TTL has passed.

use super::{Publisher, Source, SourceError};

/// Shared by all names: the system's servers, search domains and hosts file.
#[derive(Clone)]
pub struct Resolver {}

impl Resolver {
    pub fn from_system() -> Resolver {
        Resolver {}
    }
}

pub struct Host {
    pub host: String,
    pub resolver: Resolver,
}

impl Source for Host {
    fn name(&self) -> String {
        format!("dns:{}", self.host)
    }

    async fn run(&mut self, _publisher: &mut Publisher) -> SourceError {
        SourceError::Stopped
    }
}
