//! A file of endpoints as a source, watched as the configuration is: what a broken or a missing file said last stands.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;

use super::line::{self, Line};
use super::watch::Watch;
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::address::EndpointSpec;
use crate::config::{read_text, unreadable};
use crate::discovery::dns::{Names, Resolver};
use crate::route::Target;

pub struct EndpointFile {
    path: PathBuf,
    /// `SIGHUP`: look at it now.
    reload: Arc<Notify>,
    names: Names,
}

/// What was read last.
#[derive(Default)]
struct Known {
    /// Right or wrong. `None` while the file cannot be read.
    text: Option<String>,
    /// Of the last reading without a mistake.
    lines: Vec<Line>,
    shown: Option<Vec<EndpointSpec>>,
    polling: bool,
}

impl EndpointFile {
    pub fn new(path: PathBuf, reload: Arc<Notify>, resolver: Resolver) -> EndpointFile {
        EndpointFile { path, reload, names: Names::new(resolver) }
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
        let mut known = Known::default();
        let reload = self.reload.clone();
        loop {
            let mut reload = pin!(reload.notified());
            let mut watch = Watch::or_poll(&self.path, &mut known.polling);
            self.read(&mut known, publisher).await?;
            loop {
                tokio::select! {
                    () = watch.stirred() => break,
                    () = &mut reload => break,
                    () = self.names.changed() => self.publish(&mut known, publisher).await?,
                }
            }
        }
    }

    async fn read(&mut self, known: &mut Known, publisher: &mut Publisher) -> Result<(), Stopped> {
        let text = match read_text(&self.path) {
            Ok(text) => text,
            Err(error) => {
                known.text = None;
                return publisher.lost(unreadable(&self.path, &error).one_line()).await;
            }
        };
        if known.text.as_ref() == Some(&text) {
            return Ok(());
        }
        let parsed = line::parse(&self.path, &text);
        known.text = Some(text);
        match parsed {
            Ok(lines) => {
                self.names.want(&line::names(&lines));
                known.lines = lines;
                // Anew: a file that was lost must say so when it is back, though nothing has changed.
                known.shown = None;
                self.publish(known, publisher).await
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

    async fn publish(&mut self, known: &mut Known, publisher: &mut Publisher) -> Result<(), Stopped> {
        let target = self.target();
        let endpoints = line::endpoints(&known.lines, &target.to_string(), |name| self.names.addresses(name));
        if known.shown.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        known.shown = Some(endpoints.clone());
        publisher.publish(Snapshot::Target { target, endpoints, problem: None }).await
    }

    fn target(&self) -> Target {
        Target::File(self.path.clone())
    }
}

#[cfg(test)]
mod tests;
