//! The file system of an image as a tar: programs of this machine with the libraries they need, links and text files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use crate::process::{find, output};

/// glibc loads these by name when it resolves a host name, so `ldd` does not list them.
const NAME_SERVICES: &[&str] = &["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

pub(crate) struct Rootfs {
    tar: Builder<Vec<u8>>,
    libraries: BTreeSet<PathBuf>,
}

impl Rootfs {
    pub(crate) fn new() -> Rootfs {
        Rootfs { tar: Builder::new(Vec::new()), libraries: BTreeSet::new() }
    }

    /// Adds a file of this machine under another name.
    pub(crate) fn file(&mut self, from: &Path, to: &str) -> Result<&mut Rootfs> {
        let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.entry(to, &bytes, 0o755)
    }

    /// Adds a file or a script with this content.
    pub(crate) fn text(&mut self, to: &str, text: &str) -> Result<&mut Rootfs> {
        self.entry(to, text.as_bytes(), 0o755)
    }

    /// Adds an installed program to `/bin`, and its libraries to the directories in which the loader searches them.
    pub(crate) fn program(&mut self, name: &str) -> Result<&mut Rootfs> {
        let path = find(name).with_context(|| format!("{name} is not installed"))?;
        self.file(&path, &format!("bin/{name}"))?;
        for library in libraries(&path) {
            self.library(&library)?;
        }
        Ok(self)
    }

    fn library(&mut self, path: &Path) -> Result<()> {
        let first = self.libraries.is_empty();
        if !self.libraries.insert(path.to_owned()) {
            return Ok(());
        }
        self.file(path, &inside(path))?;
        if let Some(dir) = path.parent().filter(|_| first) {
            for name in NAME_SERVICES {
                let service = dir.join(name);
                if service.exists() {
                    self.library(&service)?;
                }
            }
        }
        Ok(())
    }

    /// Adds busybox under all its names: a shell, a web server and the small tools.
    ///
    /// Even a static busybox loads libraries to resolve names, and crashes if they are missing: they are the same as
    /// those of the shell.
    pub(crate) fn busybox(&mut self) -> Result<&mut Rootfs> {
        self.program("busybox")?;
        for library in libraries(Path::new("/bin/sh")) {
            self.library(&library)?;
        }
        self.text("etc/nsswitch.conf", "hosts: files dns\n")?;
        for applet in output(Command::new("busybox").arg("--list"))?.lines().filter(|name| *name != "busybox")
        {
            self.link(&format!("bin/{applet}"), "busybox")?;
        }
        self.text("etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
    }

    fn link(&mut self, at: &str, to: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0, 0o777);
        self.tar.append_link(&mut header, at, to)?;
        Ok(())
    }

    pub(crate) fn directory(&mut self, path: &str) -> Result<&mut Rootfs> {
        let mut header = header(EntryType::Directory, 0, 0o777);
        self.tar.append_data(&mut header, format!("{path}/"), &[][..])?;
        Ok(self)
    }

    fn entry(&mut self, to: &str, bytes: &[u8], mode: u32) -> Result<&mut Rootfs> {
        let mut header = header(EntryType::Regular, bytes.len() as u64, mode);
        self.tar.append_data(&mut header, to, bytes)?;
        Ok(self)
    }

    pub(crate) fn into_tar(self) -> Result<Vec<u8>> {
        Ok(self.tar.into_inner()?)
    }
}

/// Has no owner and no time, so that the same binary gives the same image.
fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

/// Returns the libraries that `ldd` lists; none for a static program.
pub(crate) fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = output(Command::new("ldd").arg(program)).unwrap_or_default();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Returns whether a program needs neither interpreter nor library, so that it runs in an empty image.
pub(crate) fn is_static(program: &Path) -> bool {
    libraries(program).is_empty()
}

fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}
