//! One Docker host on this machine: a `dockerd` in network, mount and process namespaces of its own.
//!
//! The first process in the namespaces, the holder, keeps them alive: all other processes of the host are its
//! descendants, so that killing it ends them and removes mounts and links. The kernel kills the holder when this
//! process ends, even by SIGKILL.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroups;
use crate::process::{find, output, wait_until};

/// A daemon starts in 1 s here, and in ten times that on a busy machine.
const DAEMON_START: Duration = Duration::from_secs(60);
const LOG_TAIL_LINES: usize = 25;

/// The script of the holder. `$1` is the host's directory, `$2` its name, `$3` a directory to mount over `/usr` or
/// empty; the remaining arguments are options of dockerd. It restarts dockerd, as systemd does, except while the file
/// `stay-down` exists.
const HOLDER: &str = r#"
dir=$1 name=$2 overlay=$3; shift 3
# Another engine, with the C library that it needs.
[ -z "$overlay" ] || mount -t overlay -o "lowerdir=$overlay:/usr" overlay /usr || exit 1
# /var/run/docker.sock is this host's own.
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/lock || exit 1
# A machine that is itself a container may have no cgroups.
[ -d /sys/fs/cgroup/memory ] || [ -e /sys/fs/cgroup/cgroup.controllers ] ||
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# An iptables that cannot speak to this kernel's nf_tables has an elder sister.
if ! iptables -t nat -S >/dev/null 2>&1 && iptables-legacy -t nat -S >/dev/null 2>&1; then
    mkdir -p "$dir/bin" && ln -s "$(command -v iptables-legacy)" "$dir/bin/iptables"
fi
PATH=$dir/bin:$PATH
echo ready; read -r go || exit 1
while :; do
    rm -f "$dir/dockerd.pid"
    dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
        -H "unix://$dir/docker.sock" -H unix:///run/docker.sock \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$name" "$@" >>"$dir/dockerd.log" 2>&1
    sleep 0.3
    while [ -e "$dir/stay-down" ]; do sleep 0.1; done
done
"#;

/// A Docker host; it ends when this value is dropped, unless it is left running.
#[derive(Debug)]
pub(crate) struct Host {
    /// For example `amb-a-1234`: the name of its cgroups, also shown to people.
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    holder: Child,
}

/// When a host ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// With this process, however it ends.
    Process,
    /// When it is stopped by pid.
    Detached,
}

impl Host {
    /// Creates the namespaces, without a daemon. `overlay` is mounted over `/usr` in them.
    pub(crate) fn new(
        name: String,
        dir: PathBuf,
        lifetime: Lifetime,
        overlay: Option<&Path>,
        dockerd_options: &[&str],
    ) -> Result<Host> {
        fs::create_dir_all(&dir)?;
        let log = File::create(dir.join("holder.log"))?;
        let mut command = match lifetime {
            Lifetime::Process => crate::process::command("setpriv --pdeathsig KILL unshare"),
            Lifetime::Detached => Command::new("unshare"),
        };
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", HOLDER, "amb-holder"]).arg(&dir).arg(&name);
        command.arg(overlay.unwrap_or(Path::new(""))).args(dockerd_options);
        command.env("PATH", path_with_sbin());
        let holder = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // An interrupt goes to this process alone: the host ends after its tests have ended.
            .process_group(0)
            .spawn()
            .context("cannot run unshare")?;
        let mut host = Host { name, dir, holder };
        host.wait_for_namespaces()?;
        fs::write(host.dir.join("holder.pid"), host.pid().to_string())?;
        Ok(host)
    }

    fn wait_for_namespaces(&mut self) -> Result<()> {
        let stdout = self.holder.stdout.take().context("the holder has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("cannot create the namespaces of {}: {}", self.name, tail(&self.dir.join("holder.log")));
        }
        Ok(())
    }

    /// Starts the daemon; `wait` waits until it answers.
    pub(crate) fn start_daemon(&mut self) -> Result<()> {
        let mut stdin = self.holder.stdin.take().context("the daemon is already started")?;
        stdin.write_all(b"go\n").context("the holder has ended")
    }

    /// Waits until the daemon answers.
    pub(crate) fn wait(&self) -> Result<()> {
        let up = wait_until(DAEMON_START, || output(self.docker().arg("version")).is_ok())?;
        if !up {
            bail!("dockerd of {} does not answer; its log ends with\n{}", self.name, tail(&self.log()));
        }
        Ok(())
    }

    /// Returns a `docker` command that connects to this host.
    pub(crate) fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", self.docker_host()).env_remove("DOCKER_CONTEXT");
        docker
    }

    pub(crate) fn docker_host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// Returns a command that runs in the host's namespaces.
    pub(crate) fn inside(&self, words: &str) -> Command {
        let proc = format!("/proc/{}/ns", self.pid());
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={proc}/net")).arg(format!("--mount={proc}/mnt"));
        command.arg(format!("--pid={proc}/pid_for_children")).args(words.split_whitespace());
        command
    }

    /// Returns the path of the network namespace, for `nsenter --net=`.
    pub(crate) fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn log(&self) -> PathBuf {
        self.dir.join("dockerd.log")
    }

    /// Leaves the host running; it must be stopped by its pid.
    pub(crate) fn leave_running(self) {
        std::mem::forget(self);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.holder), Signal::KILL).ok();
        self.holder.wait().ok();
        cgroups::remove(&self.name).ok();
        remove_dir(&self.dir);
    }
}

/// Removes a directory, with retries: processes that are ending may still write to it.
pub(crate) fn remove_dir(dir: &Path) {
    for _ in 0..100 {
        if fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("xtask: cannot remove {}", dir.display());
}

/// Returns `PATH` with the directories of daemons, which a user's `PATH` may lack.
fn path_with_sbin() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].join(":");
    format!("{path}:{sbin}")
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// Returns the reason why no hosts can run here; `None` if they can be tried.
pub(crate) fn unavailable_reason() -> Option<String> {
    if !crate::sudo::is_root() {
        return Some("network namespaces and dockerd need root, or sudo without a password".to_owned());
    }
    let missing = ["dockerd", "docker", "iptables", "ip", "unshare", "nsenter", "setpriv"];
    let missing: Vec<_> = missing.into_iter().filter(|program| find(program).is_none()).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}
