//! Writes files so that a reader finds either the old or the new contents, and never a part of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The mode of files with a private key: for their owner only.
pub(super) const PRIVATE: u32 = 0o600;

/// The mode of certificates and revocation lists.
pub(super) const PUBLIC: u32 = 0o644;

/// Replaces a file. Its directory must exist.
pub(super) fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let draft = draft(path);
    let written = write_draft(&draft, contents, mode).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written?;
    sync_directory(path)
}

/// Creates the draft with its mode, so that a key is never readable for others, not even for a moment.
fn write_draft(draft: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// The draft is in the directory of the file: a rename cannot leave a file system.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Makes the rename survive a power failure, on file systems that can.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let _ = File::open(directory)?.sync_all();
    Ok(())
}
