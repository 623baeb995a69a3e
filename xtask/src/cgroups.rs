//! Removes the control groups that a Docker host leaves behind: they outlive its processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::process::wait_until;

const ROOT: &str = "/sys/fs/cgroup";

/// Removes the groups below the parent named after the host, after the processes in them have ended.
pub(crate) fn remove(host: &str) -> Result<()> {
    wait_until(Duration::from_secs(5), || left(host).iter().all(|dir| remove_tree(dir))).map(|_| ())
}

/// Returns one directory per controller (cgroup v1), or a single one (v2).
fn left(host: &str) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(ROOT)];
    roots.extend(directories(Path::new(ROOT)));
    let mut dirs: Vec<_> = roots.into_iter().map(|root| root.join(host)).filter(|dir| dir.is_dir()).collect();
    // One hierarchy may have several names: `cpu` and `cpuacct` may be links to `cpu,cpuacct`.
    dirs.dedup_by_key(|dir| fs::canonicalize(dir).ok());
    dirs
}

/// Removes children first: the kernel refuses to remove a group that has children. The files in a group are the
/// kernel's.
fn remove_tree(dir: &Path) -> bool {
    for child in directories(dir) {
        remove_tree(&child);
    }
    fs::remove_dir(dir).is_ok() || !dir.exists()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
