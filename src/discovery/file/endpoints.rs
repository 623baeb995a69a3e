//! A file of endpoints as a source, watched as the configuration file is: while it is invalid or missing, the endpoints of the last
//! valid one are kept.

mod parse;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use super::watch::FileWatcher;
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::config::{read_text, unreadable};
use crate::discovery::endpoint_resolver::EndpointResolver;
use crate::route::Target;

/// The source for one file of endpoints.
pub(crate) struct EndpointFile {
    path: PathBuf,
    /// `SIGHUP`: check the file now.
    reload: Arc<Notify>,
    endpoints: EndpointResolver,
}

/// The last reading of the file.
#[derive(Default)]
struct LastReading {
    /// The text, valid or not; `None` while the file cannot be read.
    text: Option<String>,
    polling: bool,
}

impl EndpointFile {
    pub(crate) fn new(path: PathBuf, reload: Arc<Notify>, endpoints: EndpointResolver) -> EndpointFile {
        EndpointFile { path, reload, endpoints }
    }
}

impl Source for EndpointFile {
    fn name(&self) -> String {
        self.target().to_string()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(stopped) => stopped.into(),
        }
    }
}

impl EndpointFile {
    async fn follow(&mut self, publisher: &mut Publisher) -> Result<Infallible, Stopped> {
        let mut last = LastReading::default();
        let reload = self.reload.clone();
        loop {
            let mut reload = pin!(reload.notified());
            let mut watcher = FileWatcher::or_poll(&self.path, &mut last.polling);
            self.read(&mut last, publisher).await?;
            loop {
                tokio::select! {
                    () = watcher.changed() => break,
                    () = &mut reload => break,
                    () = self.endpoints.changed() => self.publish(publisher).await?,
                }
            }
        }
    }

    async fn read(&mut self, last: &mut LastReading, publisher: &mut Publisher) -> Result<(), Stopped> {
        let text = match read_text(&self.path) {
            Ok(text) => text,
            Err(error) => {
                last.text = None;
                return publisher.lost(unreadable(&self.path, &error).one_line()).await;
            }
        };
        if last.text.as_ref() == Some(&text) {
            return Ok(());
        }
        let parsed = parse::parse(&self.path, &self.name(), &text);
        last.text = Some(text);
        match parsed {
            Ok(endpoints) => {
                publisher.answered().record();
                self.endpoints.set(endpoints);
                self.publish(publisher).await
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| tracing::error!("{}", mistake.one_line()));
                let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
                let more = mistakes.len().saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!("; and {more} more") };
                publisher.lost(format!("refused as a whole: {first}{more}").replace("\n  help:", ";")).await
            }
        }
    }

    async fn publish(&mut self, publisher: &mut Publisher) -> Result<(), Stopped> {
        let endpoints = self.endpoints.endpoints();
        let problem = self.endpoints.problem();
        publisher.publish_changed(Snapshot::Target { target: self.target(), endpoints, problem }).await
    }

    fn target(&self) -> Target {
        Target::File(self.path.clone())
    }
}

/// Fuzz target: reads a file of endpoints.
pub(super) fn read_any(text: &str) {
    let _ = parse::parse(Path::new("any"), "any", text);
}

#[cfg(test)]
mod tests;
