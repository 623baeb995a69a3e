//! The temporary directory of the demo, with the configuration file and the admin socket of its ambassador.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::server::Server;
use crate::config::vars::Vars;

/// The maximum number of directories left by killed demos with the same process ID.
const LEFTOVERS_MAX: u32 = 100;

/// The route's name.
pub(super) const ROUTE: &str = "service";

/// The directory. Removed when dropped.
pub(super) struct Workspace {
    dir: PathBuf,
}

impl Workspace {
    /// Creates the directory in `TMPDIR` or /tmp; or in /dev/shm, for an image with neither.
    pub(super) fn create(vars: &Vars) -> io::Result<Workspace> {
        let places = [vars.value("TMPDIR").unwrap_or("/tmp"), "/dev/shm"];
        create_below(Path::new(places[0]))
            .or_else(|error| create_below(Path::new(places[1])).map_err(|_| error))
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("ambassador.toml")
    }

    pub(super) fn admin(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// Writes the configuration file with these servers as targets. The file is replaced atomically.
    pub(super) fn write(&self, servers: &[&Server]) -> io::Result<()> {
        let draft = self.dir.join("ambassador.toml.new");
        std::fs::write(&draft, file(servers))?;
        std::fs::rename(draft, self.file())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Creates a directory that only this user can access. Never uses an existing one, which could belong to another user.
fn create_below(parent: &Path) -> io::Result<Workspace> {
    let process = std::process::id();
    for n in 0..LEFTOVERS_MAX {
        let dir = parent.join(format!("ambassador-demo-{process}-{n}"));
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(Workspace { dir }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn file(servers: &[&Server]) -> String {
    let targets: Vec<String> =
        servers.iter().map(|server| format!("\"{}\", # {}\n", server.addr, server.name)).collect();
    format!(
        "[[route]]\nname = \"{ROUTE}\"\nlisten = \"127.0.0.1:0\"\nbalance = \"round-robin\"\ntarget = [\n{}]\n",
        targets.iter().map(|target| format!("    {target}")).collect::<String>()
    )
}
