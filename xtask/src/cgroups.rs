//! The control groups that a Docker host leaves behind: directories that outlive its processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::process::eventually;

const ROOT: &str = "/sys/fs/cgroup";

/// Removes those below the parent named after the host, once the processes in them are gone.
pub(crate) fn remove(host: &str) -> Result<()> {
    eventually(Duration::from_secs(5), || left(host).iter().all(|dir| remove_tree(dir))).map(|_| ())
}

/// One under each controller's hierarchy (v1), or one in all (v2).
fn left(host: &str) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(ROOT)];
    roots.extend(directories(Path::new(ROOT)));
    let mut dirs: Vec<_> = roots.into_iter().map(|root| root.join(host)).filter(|dir| dir.is_dir()).collect();
    // Two names of one hierarchy: `cpu` and `cpuacct` may be links to `cpu,cpuacct`.
    dirs.dedup_by_key(|dir| fs::canonicalize(dir).ok());
    dirs
}

/// Leaves first: the kernel refuses a group that has children. The files in them are not ours to remove.
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
