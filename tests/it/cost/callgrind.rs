//! Counts the instructions of the released program by valgrind(1): nearly the same in each run, independent of the load
//! of the machine.

use std::fs::{File, read_to_string};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::connection::Connection;
use super::threads;
use crate::support::{eventually, private_ip, variable};

/// The program under callgrind, with an endpoint of the test and one connection. Killed when dropped.
struct Callgrind {
    process: Child,
    route: SocketAddr,
    endpoint: TcpListener,
    dir: tempfile::TempDir,
}

/// Returns the instructions of a process that serves one connection with this many requests and this many connections
/// with one; returns the reason if they cannot be counted.
pub(crate) fn instructions(requests: usize, connections: usize) -> Result<u64, String> {
    let mut callgrind = Callgrind::start()?;
    let mut connection = callgrind.first_connection();
    (0..requests).for_each(|_| connection.exchange());
    callgrind.close(connection);
    for _ in 0..connections {
        let connection = Connection::connect(callgrind.route, &callgrind.endpoint);
        callgrind.exchange_and_close(connection);
    }
    Ok(callgrind.end())
}

impl Callgrind {
    fn start() -> Result<Callgrind, String> {
        let program = variable("AMBASSADOR_TEST_SHIPPED")
            .ok_or("the program that ships is not there: `cargo xtask test` builds it, of profile dist")?;
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = SocketAddr::new(private_ip().parse().unwrap(), 6379);
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", &format!("--callgrind-out-file={}", file("out")), &program]);
        command.args(["--workers", "1", "--log-level", "warn"]);
        command.arg(format!("{route}={}", endpoint.local_addr().unwrap()));
        command.env_clear().env("AMBASSADOR_ADMIN", format!("unix:{}", file("admin.sock")));
        command.stdin(Stdio::null()).stderr(File::create(file("log")).expect("a file"));
        let process = command.spawn().map_err(|why| format!("valgrind: {why}"))?;
        Ok(Callgrind { process, route, endpoint, dir })
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Connects as soon as it listens. Health requests would add instructions.
    fn first_connection(&mut self) -> Connection {
        let client = eventually("the program under valgrind", || match self.process.try_wait() {
            Ok(None) => TcpStream::connect(self.route).map_err(|why| why.to_string()),
            _ => panic!("it ended at once: {}", self.file("log")),
        });
        let (server, _) = self.endpoint.accept().unwrap();
        Connection::between(client, server)
    }

    /// Each step waits for the end of the previous one, as in the count of system calls.
    fn exchange_and_close(&self, mut connection: Connection) {
        threads::at_rest(self.pid());
        connection.exchange();
        self.close(connection);
    }

    fn close(&self, connection: Connection) {
        let open = threads::at_rest(self.pid());
        let server = connection.close();
        threads::settled(self.pid(), open);
        drop(server);
        threads::settled(self.pid(), open - 2);
    }

    fn end(mut self) -> u64 {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("a process that lives");
        let status = self.process.wait().expect("its end");
        assert!(status.success(), "{status}: {}", self.file("log"));
        let out = self.file("out");
        let totals = out.lines().find_map(|connection| connection.strip_prefix("totals: "));
        totals.and_then(|count| count.parse().ok()).expect("a number of instructions")
    }

    fn file(&self, name: &str) -> String {
        read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Callgrind {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
