//! A Docker host started by `cargo xtask test`, and the real `docker` client for it.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::eventually;
use super::names::unique;
use super::skip::variable;
use super::terminal::Terminal;
use super::{Container, Namespace};

pub(super) const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Two hosts joined by a veth pair.
pub(crate) struct Hosts {
    pub(crate) a: Host,
    pub(crate) b: Host,
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    docker_host: String,
    /// The address for the other host.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) namespace: Namespace,
}

/// Returns the two hosts, or the reason why there are none.
pub(crate) fn hosts() -> Result<Hosts, String> {
    let host = |letter: &str| {
        let ip = setting(&format!("AMBASSADOR_TEST_HOST{letter}_IP"))?;
        Ok::<_, String>(Host { ip: ip.parse().ok(), ..host(letter)? })
    };
    Ok(Hosts { a: host("A")?, b: host("B")? })
}

/// A host whose daemon a test may kill; its containers continue to run. Used by one test at a time.
pub(crate) struct DaemonHost {
    host: Host,
    _alone: File,
}

pub(crate) fn daemon_host() -> Result<DaemonHost, String> {
    let host = host("C")?;
    let alone = host.lock("alone.lock");
    Ok(DaemonHost { host, _alone: alone })
}

impl DaemonHost {
    /// Kills the daemon, whose pid is one of the host's process namespace. It stays down until it is started.
    pub(crate) fn kill_daemon(&self) {
        File::create(self.dir().join("stay-down")).expect("the host's directory");
        let (holder, daemon) = (self.pid_in("holder.pid"), self.pid_in("dockerd.pid"));
        self.shell(&format!("nsenter --pid=/proc/{holder}/ns/pid_for_children sh -c 'kill -9 {daemon}'"));
        eventually("the daemon is gone", || match self.try_docker("version") {
            Ok(answer) => Err(answer),
            Err(_) => Ok(()),
        });
    }

    pub(crate) fn start_daemon(&self) {
        std::fs::remove_file(self.dir().join("stay-down")).expect("a daemon that was killed");
        eventually("the daemon is back", || self.try_docker("version"));
    }
}

impl Deref for DaemonHost {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Drop for DaemonHost {
    fn drop(&mut self) {
        std::fs::remove_file(self.dir().join("stay-down")).ok();
    }
}

/// A host that is a swarm with one node until this is dropped. Used by one test at a time.
pub(crate) struct SwarmHost {
    host: Host,
    _alone: File,
}

pub(crate) fn swarm_host() -> Result<SwarmHost, String> {
    let host = host("D")?;
    let alone = host.lock("alone.lock");
    let swarm = SwarmHost { host, _alone: alone };
    swarm.docker("swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1");
    Ok(swarm)
}

impl Deref for SwarmHost {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Drop for SwarmHost {
    fn drop(&mut self) {
        self.try_docker("swarm leave --force").ok();
    }
}

fn host(letter: &str) -> Result<Host, String> {
    let docker_host = setting(&format!("AMBASSADOR_TEST_DOCKER_{letter}"))?;
    let namespace = Namespace::new(setting(&format!("AMBASSADOR_TEST_NETNS_{letter}"))?);
    Ok(Host { docker_host, ip: None, namespace })
}

fn setting(name: &str) -> Result<String, String> {
    variable(name).ok_or_else(|| "no Docker hosts: `cargo xtask test` brings them up, as root".to_owned())
}

impl Host {
    /// Runs `docker` with these arguments and returns its output.
    pub(crate) fn docker(&self, words: &str) -> String {
        self.try_docker(words).unwrap_or_else(|why| panic!("{why}"))
    }

    pub(crate) fn try_docker(&self, words: &str) -> Result<String, String> {
        let output = self.command("docker").args(words.split_whitespace()).output();
        printed(&format!("docker {words}"), &output.expect("docker is installed"))
    }

    /// Runs a command line of the documentation in a shell on this host.
    pub(crate) fn shell(&self, line: &str) -> String {
        self.try_shell(line).unwrap_or_else(|why| panic!("{why}"))
    }

    pub(crate) fn try_shell(&self, line: &str) -> Result<String, String> {
        printed(line, &self.command("sh").args(["-ec", line]).output().expect("sh"))
    }

    /// Does the same in a terminal.
    pub(crate) fn terminal(&self, line: &str) -> Terminal {
        Terminal::run(&mut self.command("script"), line)
    }

    /// Runs a file of `examples/` in its directory.
    pub(crate) fn example(&self, file: &str, args: &[&str]) -> Result<String, String> {
        let path = Path::new(EXAMPLES).join(file);
        let mut command = self.command(&path.to_string_lossy());
        command.current_dir(path.parent().expect("a directory")).args(args);
        printed(file, &command.output().expect("an example that can be run"))
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.docker_host).env_remove("DOCKER_CONTEXT").env_remove("CI");
        command
    }

    /// Runs `docker run -d` with a unique name.
    pub(crate) fn start(&self, hint: &str, words: &str) -> Container {
        let container = Container::new(self, unique(hint));
        self.docker(&format!("run -d --name {} {words}", container.name()));
        container
    }

    /// Returns containers with fixed names of the documentation: removed now if they exist, and again when this is
    /// dropped.
    pub(crate) fn named<const N: usize>(&self, names: [&str; N]) -> [Container; N] {
        names.map(|name| {
            self.try_docker(&format!("rm -f -v {name}")).ok();
            Container::new(self, name.to_owned())
        })
    }

    /// Creates a user-defined network with this subnet.
    pub(crate) fn network(&self, hint: &str, options: &str) -> Network {
        let name = unique(hint);
        self.docker(&format!("network create {options} {name}"));
        Network { host: self.clone(), name }
    }

    pub(crate) fn docker_host(&self) -> &str {
        &self.docker_host
    }

    /// Returns the directory of the daemon's socket, pid file and log.
    pub(crate) fn dir(&self) -> PathBuf {
        let socket = Path::new(self.docker_host.trim_start_matches("unix://"));
        socket.parent().expect("a socket in a directory").to_owned()
    }

    /// Reads a pid file of the holder or the daemon.
    pub(super) fn pid_in(&self, file: &str) -> u32 {
        let text = std::fs::read_to_string(self.dir().join(file)).expect("a host that is up");
        text.trim().parse().expect("a pid")
    }

    /// Locks the names and ports that the documentation uses on this host for one test.
    pub(crate) fn documents_names(&self) -> File {
        self.lock("documents-names.lock")
    }

    fn lock(&self, name: &str) -> File {
        let file = File::create(self.dir().join(name)).expect("the host's directory");
        file.lock().expect("a lock");
        file
    }

    /// Returns the address for a client on the other host.
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip.expect("a host on the cable"), port)
    }
}

/// A network; removed when dropped, so it must outlive its containers.
pub(crate) struct Network {
    host: Host,
    pub(crate) name: String,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.host.try_docker(&format!("network rm {}", self.name)).ok();
    }
}

pub(super) fn printed(what: &str, output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("`{what}`: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr)))
}
