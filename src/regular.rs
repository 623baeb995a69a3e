//! Reads regular files at paths that other users may be able to replace, such as in a mounted directory.
//!
//! The kind of file is checked on the opened descriptor, so it cannot change between the check and the read, and the open
//! does not block: a FIFO without a writer would stop the thread that opens it, and `/dev/zero` has no end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

/// Reads a whole file. Returns an error if it is larger than `max` bytes.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let bytes = read_start(path, max.saturating_add(1))?;
    if bytes.len() > max {
        return Err(io::Error::other(format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

/// Reads the first `max` bytes.
pub(crate) fn read_start(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        other => return Err(io::Error::other(format!("not a regular file but {}", name(other)))),
    }
    let mut bytes = Vec::new();
    file.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Socket => "a socket",
        _ => "of another kind",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    fn why(path: &Path) -> String {
        read(path, 100).unwrap_err().to_string()
    }

    #[test]
    fn a_regular_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"0123456789");
        assert_eq!(read_start(&path, 4).unwrap(), b"0123");
        assert_eq!(read(&path, 9).unwrap_err().to_string(), "larger than 9 bytes");
    }

    #[test]
    fn other_kinds_of_file_are_errors_and_do_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
        assert_eq!(why(&fifo), "not a regular file but a FIFO");
        assert_eq!(why(Path::new("/dev/zero")), "not a regular file but a character device");
        assert_eq!(read(dir.path(), 100).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&dir.path().join("gone"), 100).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn replacing_the_file_by_a_fifo_at_any_time_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let (path, fifo, file) = (dir.path().join("a"), dir.path().join("fifo"), dir.path().join("file"));
        std::fs::write(&path, "text").unwrap();
        let is_finished = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_finished.load(Relaxed) {
                    mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
                    std::fs::rename(&fifo, &path).unwrap();
                    std::fs::write(&file, "text").unwrap();
                    std::fs::rename(&file, &path).unwrap();
                }
            });
            let (mut read_whole, mut refused) = (0, 0);
            while read_whole < 500 || refused < 500 {
                match read(&path, 100) {
                    Ok(text) => read_whole += usize::from(text == b"text"),
                    Err(error) => refused += usize::from(error.to_string().ends_with("a FIFO")),
                }
            }
            is_finished.store(true, Relaxed);
        });
    }
}
