//! The configuration file as a source, read again at each change.
//!
//! ```text
//!   watch ──► read ──► other bytes than before? ──► publish ─┐
//!     ▲                                                      │
//!     └── quiet for 50 ms ◄── a change, or SIGHUP ◄──────────┘
//! ```
//!
//! The watch begins before the file is read, so no change between the two is lost. A file with a mistake is refused as a whole,
//! and so is a file that cannot be read: the last snapshot stays in use.

pub(crate) mod endpoints;
mod watch;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use self::watch::FileWatcher;
use super::{Publisher, Snapshot, Source, SourceError, Stopped};
use crate::config::file::{CERTIFICATE, ConfigFile, parse_file};
use crate::config::peer::PeerSettings;
use crate::config::settings::SettingValues;
use crate::config::{read_text, unreadable};
use crate::diagnostic::Diagnostic;
use crate::events::{EventKind, Events};
use crate::tls::{Prepared, Tls};

/// Mistakes of a file that one event reports: a file of 4 MiB can have 100,000.
const MISTAKES_MAX: usize = 10;

/// Publishes the routes of the file at each change; reports the mistakes of an invalid file instead. The first reading is
/// published as well: it differs from that of `config` if the file changed between the two.
pub struct File {
    /// The path of the file to watch.
    pub path: PathBuf,
    /// `SIGHUP`: read the file now, changed or not.
    pub reload: Arc<Notify>,
    /// Receives an event for each reload and each invalid file.
    pub events: Arc<Events>,
    /// The settings of peers, which may not permit a route.
    pub peer: PeerSettings,
    /// The certificates of routes.
    pub tls: Arc<Tls>,
    /// Whether they are those of the file.
    pub has_certificates: bool,
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
        let mut last = LastReading::default();
        let mut forced = false;
        loop {
            let reload = self.reload.notified();
            let mut watcher = FileWatcher::or_poll(&self.path, &mut last.polling);
            match last.read(self, forced) {
                Some(Ok(file)) => publisher.publish(Snapshot::File(file.routes)).await?,
                Some(Err(why)) => publisher.refuse(why).await?,
                None => {}
            }
            forced = tokio::select! {
                () = watcher.changed() => false,
                () = reload => true,
            };
        }
    }
}

/// The last reading of the file, so that each result is reported once.
#[derive(Debug, Default)]
struct LastReading {
    /// The text, valid or not.
    text: Option<String>,
    /// Why it cannot be read.
    unreadable: Option<String>,
    /// The settings of the last valid file.
    settings: Option<SettingValues>,
    polling: bool,
}

impl LastReading {
    /// Returns the file, or why it is refused, if that has changed or if `forced`.
    fn read(&mut self, file: &File, forced: bool) -> Option<Result<ConfigFile, String>> {
        let File { path, events, .. } = file;
        // Blocks the control thread: the file is local and small.
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                let why = unreadable(path, &error).one_line();
                let is_same = self.unreadable.replace(why.clone()).is_some_and(|before| before == why);
                return (!is_same).then(|| Err(refuse(path, why, events)));
            }
        };
        let was_unreadable = self.unreadable.take().is_some();
        if self.text.as_ref() == Some(&text) && !forced && !was_unreadable {
            return None;
        }
        let parsed = parse_file(path, &text).and_then(|parsed| file.permit(parsed));
        let again = self.text.replace(text).is_some();
        Some(match parsed {
            Ok((parsed, certificates)) => {
                file.tls.install(certificates);
                Ok(self.accept(file, parsed, again))
            }
            Err(mistakes) => Err(refuse(path, summary(&mistakes), events)),
        })
    }

    fn accept(&mut self, source: &File, file: ConfigFile, again: bool) -> ConfigFile {
        let File { path, events, .. } = source;
        if again {
            let path = path.display().to_string();
            events.emit(EventKind::FileRead { path, routes: file.routes.len() });
        }
        let mut settings = file.settings.clone();
        settings.retain(|(setting, _)| !source.has_certificates || setting.name != CERTIFICATE);
        let before = self.settings.replace(settings.clone());
        if before.is_some_and(|before| before != settings) {
            tracing::warn!("settings in {} other than routes take effect at the next start", path.display());
        }
        file
    }
}

impl File {
    /// Returns the file and the certificates to use, if its routes are permitted by the settings of peers and can use TLS.
    fn permit(&self, file: ConfigFile) -> Result<(ConfigFile, Prepared), Vec<Diagnostic>> {
        let of_file = self.has_certificates.then(|| file.certificates());
        let certificates = self.tls.prepare(&of_file.unwrap_or_else(|| self.tls.configured()))?;
        let mut mistakes = self.peer.refusals(&file.routes);
        mistakes.extend(self.tls.refusals(&certificates, &file.routes));
        if mistakes.is_empty() { Ok((file, certificates)) } else { Err(mistakes) }
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

/// Fuzz target: reads a file of endpoints.
#[doc(hidden)]
pub fn read_any(text: &str) {
    endpoints::read_any(text);
}

#[cfg(test)]
mod tests;
