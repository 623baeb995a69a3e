//! The secret of peers, in a file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A directory with a secret file, removed when dropped.
pub(crate) struct PeerSecret {
    dir: tempfile::TempDir,
}

impl PeerSecret {
    pub(crate) fn new() -> PeerSecret {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, format!("{SECRET}\n")).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("our own file");
        PeerSecret { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the flags of an ambassador that listens for its peers here.
    pub(crate) fn flags(&self, listen: &str) -> String {
        format!("--peer-listen {listen} --peer-secret-file {}", self.dir.path().join("secret").display())
    }
}
