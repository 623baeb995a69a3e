//! Where a path can change, and what the kernel says about it there.
//!
//! A path changes when the file is written, when an entry on the way to it is replaced (an editor's rename, the swap of
//! a symbolic link in a Kubernetes volume), or when what was missing appears. The directories tell of all of these but
//! one: a bind-mounted file is written through a directory that we do not see, so the file itself is watched as well.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// An editor writes in several steps; a pause this long is taken for the end of them.
const QUIET: Duration = Duration::from_millis(50);

/// A writer that does not close the file is not waited for any longer: what it has written so far is read now, and the
/// rest when it stirs again.
const QUIET_MAX: Duration = Duration::from_millis(200);

/// How often to look where the kernel will not tell us (no inotify instance left, a file system without it).
const POLL: Duration = Duration::from_secs(2);

/// More than this at once says nothing new: one is enough to read the file.
const STIRS_MAX: usize = 64;

/// As the kernel's own limit (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: usize = 40;

pub(super) enum Watch {
    Inotify { stirs: mpsc::Receiver<Stir>, _watcher: RecommendedWatcher },
    Poll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stir {
    /// Somebody is in the middle of it, and will close the file at the end.
    Writing,
    Done,
}

impl Watch {
    fn new(path: &Path) -> notify::Result<Watch> {
        let Spots { directories, entries } = spots(&std::path::absolute(path)?);
        let files: Vec<PathBuf> = entries.iter().filter(|entry| entry.is_file()).cloned().collect();
        let (sender, stirs) = mpsc::channel(STIRS_MAX);
        let watched: BTreeSet<PathBuf> = entries.into_iter().chain(directories.clone()).collect();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(stir) = stir(event, &watched) {
                // Full: enough is waiting there to have the file read.
                let _ = sender.try_send(stir);
            }
        })?;
        for directory in &directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        for file in &files {
            // Gone since we looked: its directory tells us.
            let _ = watcher.watch(file, RecursiveMode::NonRecursive);
        }
        Ok(Watch::Inotify { stirs, _watcher: watcher })
    }

    /// Looks from time to time where there is no other way; says so once.
    pub(super) fn or_poll(path: &Path, polling: &mut bool) -> Watch {
        Watch::new(path).unwrap_or_else(|error| {
            if !std::mem::replace(polling, true) {
                let path = path.display();
                tracing::warn!("{path} cannot be watched, so it is looked at from time to time: {error}");
            }
            Watch::Poll
        })
    }

    /// Returns when something happened to the file, and whoever does it seems to be done.
    pub(super) async fn stirred(&mut self) {
        let Watch::Inotify { stirs, .. } = self else {
            return sleep(POLL).await;
        };
        // The watcher lives as long as this does, so the channel does not close.
        let Some(mut last) = stirs.recv().await else {
            return std::future::pending().await;
        };
        let latest = Instant::now() + QUIET_MAX;
        loop {
            let until = match last {
                Stir::Done => latest.min(Instant::now() + QUIET),
                Stir::Writing => latest,
            };
            match timeout_at(until, stirs.recv()).await {
                Ok(Some(stir)) => last = stir,
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// What an event means for the file; `None` for nothing. Our own reading stirs nothing.
fn stir(event: notify::Result<Event>, watched: &BTreeSet<PathBuf>) -> Option<Stir> {
    let Ok(event) = event else {
        return Some(Stir::Done);
    };
    if !event.need_rescan() && !event.paths.iter().any(|path| watched.contains(path)) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Stir::Done),
        EventKind::Access(_) => None,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Some(Stir::Writing),
        EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => Some(Stir::Done),
    }
}

/// The directories on the way to a file in which a change can make the path mean something else, and the entries in
/// them that it goes through.
#[derive(Debug, Default, PartialEq, Eq)]
struct Spots {
    directories: BTreeSet<PathBuf>,
    entries: BTreeSet<PathBuf>,
}

/// Walks an absolute path as the kernel does, link by link, up to the file or to the first entry that is missing.
fn spots(path: &Path) -> Spots {
    let mut spots = Spots::default();
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
                spots.add(&at, next);
                ahead.extend(steps(&link));
            }
            _ if ahead.is_empty() || !next.is_dir() => {
                spots.add(&at, next);
                break;
            }
            _ => at = next,
        }
    }
    spots
}

impl Spots {
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

    /// The spots of `path` below a directory that `lay` fills, with the directory's own path cut off.
    fn check(lay: impl Fn(&Path), path: &str, directories: &[&str], entries: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        lay(&real);
        let found = spots(&real.join(path));
        let under = |set: &[&str]| set.iter().map(|name| real.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(found, Spots { directories: under(directories), entries: under(entries) }, "{path}");
    }

    #[test]
    fn a_plain_file_is_watched_in_its_directory() {
        check(|root| std::fs::write(root.join("a"), "").unwrap(), "a", &[""], &["a"]);
    }

    #[test]
    fn a_kubernetes_volume_is_watched_where_its_link_is_swapped() {
        let lay = |root: &Path| {
            std::fs::create_dir(root.join("..2026")).unwrap();
            std::fs::write(root.join("..2026/a"), "").unwrap();
            symlink("..2026", root.join("..data")).unwrap();
            symlink("..data/a", root.join("a")).unwrap();
        };
        check(lay, "a", &["", "..2026"], &["a", "..data", "..2026/a"]);
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_would_appear() {
        check(|_| {}, "b/c", &[""], &["b"]);
        check(|root| std::fs::create_dir(root.join("b")).unwrap(), "b/c", &["b"], &["b/c"]);
        check(|root| symlink("gone", root.join("a")).unwrap(), "a", &[""], &["a", "gone"]);
    }

    #[test]
    fn links_that_go_in_a_circle_come_to_an_end() {
        let lay = |root: &Path| {
            symlink("b", root.join("a")).unwrap();
            symlink("a", root.join("b")).unwrap();
        };
        check(lay, "a", &[""], &["a", "b"]);
    }

    #[test]
    fn steps_up_are_taken_from_where_the_links_lead() {
        let lay = |root: &Path| {
            std::fs::create_dir_all(root.join("x/y")).unwrap();
            std::fs::write(root.join("x/a"), "").unwrap();
            symlink("x/y", root.join("l")).unwrap();
        };
        check(lay, "l/../a", &["", "x"], &["l", "x/a"]);
    }
}
