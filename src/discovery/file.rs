//! The configuration file as a source: read again when it changes, however it is changed.
//!
//! ```text
//!   watch ──► read ──► other bytes than before? ──► publish ─┐
//!     ▲                                                      │
//!     └── quiet for 50 ms ◄── something stirred, or SIGHUP ◄─┘
//! ```
//!
//! The watch stands before the file is read, so that no change falls between the two. A file with a mistake is refused
//! as a whole, and so is a file that cannot be read: what was published last stays in use.

pub mod endpoints;
mod line;
mod watch;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use self::watch::Watch;
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::config::file::{ConfigFile, parse_file};
use crate::config::settings::SettingValues;
use crate::config::{read_text, unreadable};
use crate::diagnostic::Diagnostic;
use crate::events::{EventKind, Events};

/// Mistakes of a file that one event carries: a file of 4 MiB can have a hundred thousand.
const MISTAKES_MAX: usize = 10;

/// Publishes the file's routes at each change that holds no mistake; reports the mistakes of one that does, and changes
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
            match known.read(&self.path, asked, &self.events) {
                Some(Ok(file)) => publisher.publish(Snapshot::File(file.routes)).await?,
                Some(Err(why)) => publisher.refuse(why).await?,
                None => {}
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
    unreadable: Option<String>,
    /// Of the last reading without a mistake.
    settings: Option<SettingValues>,
    polling: bool,
}

impl Known {
    /// The file, or why it is refused, if there is something new about it, or if `asked`.
    fn read(&mut self, path: &Path, asked: bool, events: &Events) -> Option<Result<ConfigFile, String>> {
        // On the control thread, which does nothing else meanwhile: the file is local and small.
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                let why = unreadable(path, &error).one_line();
                let is_known = self.unreadable.replace(why.clone()).is_some_and(|before| before == why);
                return (!is_known).then(|| Err(refuse(path, why, events)));
            }
        };
        let was_unreadable = self.unreadable.take().is_some();
        if self.text.as_ref() == Some(&text) && !asked && !was_unreadable {
            return None;
        }
        let parsed = parse_file(path, &text);
        let again = self.text.replace(text).is_some();
        Some(match parsed {
            Ok(file) => Ok(self.accept(path, file, again, events)),
            Err(mistakes) => Err(refuse(path, summary(&mistakes), events)),
        })
    }

    fn accept(&mut self, path: &Path, file: ConfigFile, again: bool, events: &Events) -> ConfigFile {
        if again {
            let path = path.display().to_string();
            events.emit(EventKind::FileRead { path, routes: file.routes.len() });
        }
        let before = self.settings.replace(file.settings.clone());
        if before.is_some_and(|before| before != file.settings) {
            tracing::warn!("settings in {} other than routes take effect at the next start", path.display());
        }
        file
    }
}

fn refuse(path: &Path, why: String, events: &Events) -> String {
    events.emit(EventKind::FileRefused { path: path.display().to_string(), why: why.clone() });
    why
}

fn summary(mistakes: &[Diagnostic]) -> String {
    let shown: Vec<String> = mistakes.iter().take(MISTAKES_MAX).map(Diagnostic::one_line).collect();
    let more = mistakes.len().saturating_sub(MISTAKES_MAX);
    let more =
        if more > 0 { format!("; and {more} more: `ambassador check` lists them") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

/// What the fuzz targets feed: a file of endpoints.
#[doc(hidden)]
pub fn read_any(text: &str) {
    let _ = line::parse(Path::new("any"), text);
}

#[cfg(test)]
mod tests;
