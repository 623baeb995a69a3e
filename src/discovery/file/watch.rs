//! Watches a path for changes with inotify.
//!
//! A path changes when the file is written, when a component of the path is replaced (an editor's rename, the swap of a symbolic
//! link in a Kubernetes volume), or when a missing component appears. Watching the directories reports all of these but one: a
//! bind-mounted file is written through another directory, so the file itself is watched as well.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ordered::CollectOrdered;

/// An editor writes in several steps; a pause this long ends them.
const QUIET: Duration = Duration::from_millis(50);

/// The longest wait for a writer to close the file: then the file is read, and read again after the next change.
const QUIET_MAX: Duration = Duration::from_millis(200);

/// The polling interval where inotify is not available (no instance left, a file system without it).
const POLL: Duration = Duration::from_secs(2);

/// Buffered changes. One is enough to read the file, so the others may be dropped.
const CHANGES_MAX: usize = 64;

/// The kernel's own limit (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: usize = 40;

pub(super) enum FileWatcher {
    Inotify { changes: mpsc::Receiver<FileChange>, _watcher: RecommendedWatcher },
    Poll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileChange {
    /// The file is being written, and will be closed at the end.
    Writing,
    Done,
}

impl FileWatcher {
    fn new(path: &Path) -> notify::Result<FileWatcher> {
        let PathComponents { directories, entries } = components(&std::path::absolute(path)?);
        let files: Vec<PathBuf> = entries.iter().filter(|entry| entry.is_file()).cloned().collect();
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let watched: BTreeSet<PathBuf> = entries.into_iter().chain(directories.clone()).collect_ordered();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(change) = file_change(event, &watched) {
                // If the channel is full, the file will be read anyway.
                let _ = sender.try_send(change);
            }
        })?;
        for directory in &directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        for file in &files {
            // Removed in the meantime, which its directory reports.
            let _ = watcher.watch(file, RecursiveMode::NonRecursive);
        }
        Ok(FileWatcher::Inotify { changes, _watcher: watcher })
    }

    /// Watches a path, or polls it where it cannot be watched. Logs that once.
    pub(super) fn or_poll(path: &Path, polling: &mut bool) -> FileWatcher {
        FileWatcher::new(path).unwrap_or_else(|error| {
            if !std::mem::replace(polling, true) {
                let (path, poll) = (path.display(), humantime::format_duration(POLL));
                tracing::warn!("cannot watch {path}; polling it every {poll}: {error}");
            }
            FileWatcher::Poll
        })
    }

    /// Completes when the file has changed and no further change follows.
    pub(super) async fn changed(&mut self) {
        let FileWatcher::Inotify { changes, .. } = self else {
            return sleep(POLL).await;
        };
        // The watcher lives as long as `self`, so the channel does not close.
        let Some(mut last) = changes.recv().await else {
            return std::future::pending().await;
        };
        let latest = Instant::now() + QUIET_MAX;
        loop {
            let until = match last {
                FileChange::Done => latest.min(Instant::now() + QUIET),
                FileChange::Writing => latest,
            };
            match timeout_at(until, changes.recv()).await {
                Ok(Some(change)) => last = change,
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Returns the change that an event reports. Reading the file, as this process does, is not a change.
fn file_change(event: notify::Result<Event>, watched: &BTreeSet<PathBuf>) -> Option<FileChange> {
    let Ok(event) = event else {
        return Some(FileChange::Done);
    };
    if !event.need_rescan() && !event.paths.iter().any(|path| watched.contains(path)) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(FileChange::Done),
        EventKind::Access(_) => None,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Some(FileChange::Writing),
        EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => {
            Some(FileChange::Done)
        }
    }
}

/// The directories in which a change can make a path refer to another file, and the entries of the path in them.
#[derive(Debug, Default, PartialEq, Eq)]
struct PathComponents {
    directories: BTreeSet<PathBuf>,
    entries: BTreeSet<PathBuf>,
}

/// Resolves an absolute path as the kernel does, link by link, up to the file or to the first missing entry.
fn components(path: &Path) -> PathComponents {
    let mut components = PathComponents::default();
    let mut at = PathBuf::from("/");
    let mut ahead = steps(path);
    let mut links = 0;
    while let Some(step) = ahead.pop() {
        if step == ".." {
            at.pop();
            continue;
        }
        let next = if step == "/" { PathBuf::from("/") } else { at.join(&step) };
        match std::fs::read_link(&next) {
            Ok(link) if links < LINKS_MAX => {
                links += 1;
                components.add(&at, next);
                ahead.extend(steps(&link));
            }
            _ if ahead.is_empty() || !next.is_dir() => {
                components.add(&at, next);
                break;
            }
            _ => at = next,
        }
    }
    components
}

impl PathComponents {
    fn add(&mut self, directory: &Path, entry: PathBuf) {
        self.directories.insert(directory.to_owned());
        self.entries.insert(entry);
    }
}

/// The components of a path, the first one last.
fn steps(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|component| *component != Component::CurDir);
    let mut steps: Vec<OsString> = named.map(|component| OsStr::to_owned(component.as_os_str())).collect();
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The components of `path` below a directory that `lay` fills, with the directory's own path cut off.
    fn check(lay: impl Fn(&Path), path: &str, directories: &[&str], entries: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        lay(&real);
        let found = components(&real.join(path));
        let under = |set: &[&str]| set.iter().map(|name| real.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(
            found,
            PathComponents { directories: under(directories), entries: under(entries) },
            "{path}"
        );
    }

    #[test]
    fn plain_file_is_watched_in_its_directory() {
        check(|root| std::fs::write(root.join("a"), "").unwrap(), "a", &[""], &["a"]);
    }

    #[test]
    fn kubernetes_volume_is_watched_where_its_link_is_swapped() {
        let lay = |root: &Path| {
            std::fs::create_dir(root.join("..2026")).unwrap();
            std::fs::write(root.join("..2026/a"), "").unwrap();
            symlink("..2026", root.join("..data")).unwrap();
            symlink("..data/a", root.join("a")).unwrap();
        };
        check(lay, "a", &["", "..2026"], &["a", "..data", "..2026/a"]);
    }

    #[test]
    fn missing_component_is_watched_where_it_would_appear() {
        check(|_| {}, "b/c", &[""], &["b"]);
        check(|root| std::fs::create_dir(root.join("b")).unwrap(), "b/c", &["b"], &["b/c"]);
        check(|root| symlink("gone", root.join("a")).unwrap(), "a", &[""], &["a", "gone"]);
    }

    #[test]
    fn link_cycle_is_limited() {
        let lay = |root: &Path| {
            symlink("b", root.join("a")).unwrap();
            symlink("a", root.join("b")).unwrap();
        };
        check(lay, "a", &[""], &["a", "b"]);
    }

    #[test]
    fn parent_directories_are_those_of_the_link_targets() {
        let lay = |root: &Path| {
            std::fs::create_dir_all(root.join("x/y")).unwrap();
            std::fs::write(root.join("x/a"), "").unwrap();
            symlink("x/y", root.join("l")).unwrap();
        };
        check(lay, "l/../a", &["", "x"], &["l", "x/a"]);
    }
}
