//! Reads the text of a configuration file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::diagnostic::{Diagnostic, Place};
use crate::regular;

/// Enough for ten thousand routes, at 50 to 300 bytes each.
const FILE_SIZE_MAX_BYTES: usize = 4 << 20;

/// Reads a regular file; never blocks on anything else at this path.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    utf8(regular::read(path, FILE_SIZE_MAX_BYTES)?)
}

/// Returns whether the path names a descriptor of this process, as a shell's `<(...)` does. It can be read only once.
pub(crate) fn is_own_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd")
}

/// Reads a pipe until its writer closes it.
pub(super) fn read_pipe(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_SIZE_MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > FILE_SIZE_MAX_BYTES {
        return Err(io::Error::other(format!("larger than {FILE_SIZE_MAX_BYTES} bytes")));
    }
    utf8(text)
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Explains why a file cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::IsADirectory => {
            "Docker creates a directory in place of a mounted file that does not exist on the host: check the host's path"
        }
        io::ErrorKind::NotFound => "check the path; in a container the file must be mounted",
        io::ErrorKind::PermissionDenied => "make it readable for the ambassador's user",
        _ => "it must be a regular file of UTF-8 text",
    };
    Diagnostic::new(Place::Path(path.to_owned()), format!("cannot be read: {error}")).help(help)
}
