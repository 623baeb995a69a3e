//! The configuration file as a source: read again when it changes, however it is changed.
//!
//! ```text
//!   watch ──► read ──► other bytes than before? ──► publish ─┐
//!     ▲                                                      │
//!     └── quiet for 50 ms ◄── something stirred, or SIGHUP ◄─┘
//! ```
//!
//! The watch stands before the file is read, so that no change falls between the two. A file with a mistake is refused
//! as a whole, and a file that is gone is waited for: what was published last stands.

pub mod endpoints;
mod line;
mod watch;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use self::watch::Watch;
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::config::raw::{RawFile, parse_file};
use crate::config::settings::Settings;
use crate::config::{read_text, unreadable};
use crate::diagnostic::Diagnostic;
use crate::observe::events::{Events, Happened};

/// Publishes the file's routes at each change that holds no mistake; logs the mistakes of one that does, and changes
/// nothing then. The first reading is published as well: it differs from that of `config` where the file changed
/// between the two.
pub struct File {
    pub path: PathBuf,
    /// `SIGHUP`: read it now, changed or not.
    pub reload: Arc<Notify>,
    pub events: Arc<Events>,
}

impl Source for File {
    fn name(&self) -> String {
        format!("file:{}", self.path.display())
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(stopped) => stopped.into(),
        }
    }
}

impl File {
    async fn follow(&self, publisher: &mut Publisher) -> Result<Infallible, Stopped> {
        let mut known = Known::default();
        let mut asked = false;
        loop {
            let reload = self.reload.notified();
            let mut watch = Watch::or_poll(&self.path, &mut known.polling);
            if let Some(file) = known.read(&self.path, asked, &self.events) {
                publisher.publish(Snapshot::File(file.routes)).await?;
            }
            asked = tokio::select! {
                () = watch.stirred() => false,
                () = reload => true,
            };
        }
    }
}

/// What was read last, so that each thing is said once.
#[derive(Debug, Default)]
struct Known {
    /// Whatever was in it, right or wrong.
    text: Option<String>,
    /// Why it cannot be read.
    trouble: Option<String>,
    /// Of the last reading without a mistake.
    settings: Option<Settings>,
    polling: bool,
}

impl Known {
    /// The file, if there is something new in it, or if `asked`.
    fn read(&mut self, path: &Path, asked: bool, events: &Events) -> Option<RawFile> {
        // On the control thread, which does nothing else meanwhile: the file is local and small.
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                self.say_trouble(unreadable(path, &error).one_line());
                return None;
            }
        };
        if self.trouble.take().is_some() {
            tracing::info!("{} can be read again", path.display());
        }
        if self.text.as_ref() == Some(&text) && !asked {
            return None;
        }
        let parsed = parse_file(path, &text);
        let again = self.text.replace(text).is_some();
        match parsed {
            Ok(file) => Some(self.accept(path, file, again, events)),
            Err(mistakes) => {
                let why = mistakes.iter().map(Diagnostic::one_line).collect::<Vec<_>>().join("; ");
                events.note(Happened::FileRefused { path: path.display().to_string(), why });
                None
            }
        }
    }

    fn accept(&mut self, path: &Path, file: RawFile, again: bool, events: &Events) -> RawFile {
        if again {
            let path = path.display().to_string();
            events.note(Happened::FileRead { path, routes: file.routes.len() });
        }
        let before = self.settings.replace(file.settings.clone());
        if before.is_some_and(|before| before != file.settings) {
            tracing::warn!("settings in {} other than routes take effect at the next start", path.display());
        }
        file
    }

    fn say_trouble(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}; the routes it had before stand");
            self.trouble = Some(trouble);
        }
    }
}

/// What the fuzz targets feed: a file of endpoints.
#[doc(hidden)]
pub fn read_any(text: &str) {
    let _ = line::parse(Path::new("any"), text);
}

#[cfg(test)]
mod tests;
