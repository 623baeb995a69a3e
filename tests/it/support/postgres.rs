//! A real PostgreSQL on a private loopback address. Stopped, and its data removed, when dropped.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::names::private_ip;
use super::skip::variable;

/// Debian's directory with one subdirectory per version; not in `PATH`.
const DEBIAN_DIR: &str = "/usr/lib/postgresql";
/// `nobody` and `nogroup`: a server refuses to run as root.
const NOBODY: u32 = 65534;

pub(crate) struct Postgres {
    /// The directory of its programs.
    programs: PathBuf,
    process: Option<Child>,
    ip: IpAddr,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// Creates a database that is not served yet; returns the reason if that is impossible.
    pub(crate) fn new() -> Result<Postgres, String> {
        let programs = programs().ok_or("no postgres here")?;
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let (dir, ip) = (dir.expect("a directory"), private_ip().parse().expect("an address"));
        let postgres = Postgres { programs, process: None, ip, dir };
        postgres.owns(postgres.dir.path());
        let initdb = postgres
            .command("initdb")
            .args([
                "--username=postgres",
                "--auth=trust",
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(postgres.data())
            .output()
            .expect("initdb");
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        Ok(postgres)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 5432)
    }

    /// Has the server accept TLS too. `write` writes `server.crt` and `server.key` into a directory.
    pub(crate) fn use_tls(&self, write: fn(&Path)) {
        let data = self.data();
        write(&data);
        for file in ["server.crt", "server.key"] {
            let file = data.join(file);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a file of ours");
            self.owns(&file);
        }
        let config = data.join("postgresql.conf");
        let settings = fs::read_to_string(&config).expect("its configuration");
        fs::write(&config, format!("{settings}\nssl = on\n")).expect("its configuration");
    }

    /// Starts the server.
    pub(crate) fn start(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args([
            "-p",
            "5432",
            "-c",
            &format!("listen_addresses={}", self.ip),
        ]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.dir.path().display()));
        command.args(["-c", "fsync=off", "-c", "shared_buffers=1MB", "-c", "max_connections=20"]);
        // A recovering server rejects connections, as one that starts after a crash.
        command.args(["-c", "hot_standby=off"]);
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("a log");
        self.process = Some(command.stderr(log).spawn().expect("postgres"));
    }

    /// Starts a server that recovers until it is promoted.
    pub(crate) fn start_recovering(&mut self) {
        self.signal_file("standby.signal");
        self.start();
    }

    /// Runs the equivalent of `pg_ctl promote`.
    pub(crate) fn promote(&self) {
        self.signal_file("promote");
        self.signal(Signal::USR1);
    }

    /// Stops the server like `pg_ctl stop`: connected clients are disconnected.
    pub(crate) fn stop(&mut self) {
        self.end_by(Signal::INT);
    }

    /// Stops the server like `pg_ctl stop --mode=smart`: it rejects new clients and ends after the last one has
    /// disconnected.
    pub(crate) fn stop_when_left(&self) {
        self.signal(Signal::TERM);
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Returns a client of the server at this address.
    pub(crate) fn psql(&self, addr: SocketAddr) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"]);
        psql.args(["--username=postgres", "--dbname=postgres"]);
        psql.arg(format!("--host={}", addr.ip())).arg(format!("--port={}", addr.port()));
        psql.env_clear().env("PGCONNECT_TIMEOUT", "20");
        psql
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns a command that runs as a user other than root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut setpriv = Command::new("setpriv");
            setpriv.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
            setpriv.arg("--clear-groups").arg(program);
            setpriv
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Creates a signal file of the server.
    fn signal_file(&self, name: &str) {
        let file = self.data().join(name);
        fs::write(&file, "").expect("a file in its directory");
        self.owns(&file);
    }

    fn owns(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("a change of owner");
        }
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("one that was started");
        kill_process(Pid::from_child(process), signal).expect("one that runs");
    }

    fn end_by(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), signal).ok();
            process.wait().ok();
        }
    }
}

impl Drop for Postgres {
    /// Immediate shutdown: SIGKILL would leave its children running.
    fn drop(&mut self) {
        self.end_by(Signal::QUIT);
    }
}

/// Returns the program directory of the newest version.
fn programs() -> Option<PathBuf> {
    let version = |dir: &PathBuf| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let mut debians: Vec<PathBuf> =
        fs::read_dir(DEBIAN_DIR).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    debians.sort_by_key(|dir| std::cmp::Reverse(version(dir)));
    let path = variable("PATH").unwrap_or_default();
    let elsewhere = path.split(':').map(PathBuf::from).collect::<Vec<_>>();
    let mut dirs = debians.into_iter().map(|dir| dir.join("bin")).chain(elsewhere);
    dirs.find(|dir| ["initdb", "postgres", "psql"].iter().all(|program| dir.join(program).exists()))
}
