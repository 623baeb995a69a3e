//! A directory of the demo's own, with the ambassador's configuration file and admin socket. Removed at the end.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::backend::Backend;
use crate::config::vars::Vars;

/// Left behind by demos that were killed; more than this is no accident.
const LEFTOVERS_MAX: u32 = 100;

/// The route's name.
pub(super) const ROUTE: &str = "service";

pub(super) struct Home {
    dir: PathBuf,
}

impl Home {
    /// Below `TMPDIR` or /tmp; an image without either has /dev/shm.
    pub(super) fn make(vars: &Vars) -> io::Result<Home> {
        let places = [vars.value("TMPDIR").unwrap_or("/tmp"), "/dev/shm"];
        make_below(Path::new(places[0])).or_else(|error| make_below(Path::new(places[1])).map_err(|_| error))
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("ambassador.toml")
    }

    pub(super) fn admin(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// Says in the file where the service is. Written beside it and renamed over it, as editors do: nobody ever sees
    /// half a file.
    pub(super) fn write(&self, backends: &[&Backend]) -> io::Result<()> {
        let draft = self.dir.join("ambassador.toml.new");
        std::fs::write(&draft, file(backends))?;
        std::fs::rename(draft, self.file())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// For nobody but this user, and never somebody else's: a directory that is there already is left alone.
fn make_below(parent: &Path) -> io::Result<Home> {
    let process = std::process::id();
    for n in 0..LEFTOVERS_MAX {
        let dir = parent.join(format!("ambassador-demo-{process}-{n}"));
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(Home { dir }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn file(backends: &[&Backend]) -> String {
    let targets: Vec<String> =
        backends.iter().map(|backend| format!("\"{}\", # {}\n", backend.addr, backend.name)).collect();
    format!(
        "[[route]]\nname = \"{ROUTE}\"\nlisten = \"127.0.0.1:0\"\nbalance = \"round-robin\"\ntarget = [\n{}]\n",
        targets.iter().map(|target| format!("    {target}")).collect::<String>()
    )
}
