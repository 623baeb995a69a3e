//! The ambassador as process 1 of a container.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{needs, within};

const LIMIT: Duration = Duration::from_secs(20);
const ORPHANS: usize = 5;

/// A process namespace; killed when dropped.
struct Namespace(Child);

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in children(self.0.id()) {
            kill_process(child, Signal::KILL).ok();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Returns the children of the first thread, which forks here, including zombies but not reaped processes.
fn children(pid: u32) -> Vec<Pid> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn is_root() -> Result<(), &'static str> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("a PID namespace takes root") }
}

#[test]
fn orphans_of_process_1_are_reaped() {
    needs!(is_root());
    let dir = tempfile::tempdir().unwrap();
    let unshare = Command::new("/usr/bin/unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_ambassador")])
        .args(["--admin", &format!("unix:{}/admin.sock", dir.path().display()), "127.0.0.1:0=127.0.0.1:1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut namespace = Namespace(unshare);
    let first = within(LIMIT, "process 1", || children(namespace.0.id()).first().copied().ok_or("not yet"));
    // It serves, so its setup is complete.
    let mut log = namespace.0.stderr.take().unwrap();
    within(LIMIT, "its first line", || std::io::Read::read_exact(&mut log, &mut [0]));

    let target = first.as_raw_nonzero().to_string();
    for _ in 0..ORPHANS {
        let script = ["/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & exit 0"];
        let status =
            Command::new("/usr/bin/nsenter").args(["--pid", "--target", &target]).args(script).status();
        assert!(status.unwrap().success());
    }
    let ours = || children(first.as_raw_nonzero().get().unsigned_abs());
    let orphans = within(LIMIT, "orphans that are its children now", || {
        let found = ours();
        if found.len() == ORPHANS { Ok(found) } else { Err(format!("{found:?}")) }
    });
    for orphan in orphans {
        kill_process(orphan, Signal::KILL).unwrap();
    }
    within(LIMIT, "no zombies", || if ours().is_empty() { Ok(()) } else { Err(format!("{:?}", ours())) });
}
