//! Docker hosts on one machine: `a` and `b`, joined by a veth pair; `c`, whose daemon tests may kill; and `d`, which
//! tests may make a swarm manager.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::engine::Engine;
use crate::host::{Host, Lifetime, remove_dir};
use crate::image::{self, Profile};
use crate::process::{command, succeed};
use crate::{cgroups, host, images, install, sudo};

pub(crate) const IP_A: &str = "10.77.0.1";
pub(crate) const IP_B: &str = "10.77.0.2";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the hosts; must be short, because a socket's path has at most 107 bytes
    #[arg(long, value_name = "DIR", default_value = "/tmp/ambassador-hosts")]
    at: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    place: Args,
    /// Build profile of the image's binary
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Docker engine of the hosts
    #[arg(long, value_enum, default_value_t = Engine::Installed)]
    engine: Engine,
}

#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) a: Host,
    pub(crate) b: Host,
    /// Its containers outlive its daemon (`--live-restore`, which is incompatible with swarm mode).
    pub(crate) c: Host,
    /// Separate because a swarm adds networks and rules that would disturb other tests.
    pub(crate) d: Host,
}

impl Hosts {
    /// Starts the hosts below `dir`, whose path must be short: a socket's path has at most 107 bytes.
    pub(crate) fn up(dir: &Path, lifetime: Lifetime, engine: Engine) -> Result<Hosts> {
        let overlay = engine.overlay()?;
        let host = |letter: &str, options: &[&str]| {
            let name = format!("amb-{letter}-{}", std::process::id());
            Host::new(name, dir.join(letter), lifetime, overlay.as_deref(), options)
        };
        let mut hosts = Hosts {
            a: host("a", &[])?,
            b: host("b", &[])?,
            c: host("c", &["--live-restore"])?,
            d: host("d", &[])?,
        };
        hosts.connect()?;
        for host in hosts.each_mut() {
            host.start_daemon()?;
        }
        hosts.each().into_iter().try_for_each(Host::wait)?;
        Ok(hosts)
    }

    /// Joins `a` and `b` by a veth pair, which the kernel removes with the namespaces.
    fn connect(&self) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        let veth = format!("link add eth0 netns {} type veth peer name eth0 netns {}", a.pid(), b.pid());
        succeed(command("ip").args(veth.split(' ')))?;
        for (host, ip) in [(a, IP_A), (b, IP_B)] {
            succeed(&mut host.inside(&format!("ip addr add {ip}/24 dev eth0")))?;
            succeed(&mut host.inside("ip link set eth0 up"))?;
        }
        Ok(())
    }

    pub(crate) fn each(&self) -> [&Host; 4] {
        [&self.a, &self.b, &self.c, &self.d]
    }

    fn each_mut(&mut self) -> [&mut Host; 4] {
        [&mut self.a, &mut self.b, &mut self.c, &mut self.d]
    }

    /// Sets the environment variables by which tests find the hosts.
    pub(crate) fn set_environment(&self, command: &mut Command) {
        for (letter, host) in ["A", "B", "C", "D"].into_iter().zip(self.each()) {
            command.env(format!("AMBASSADOR_TEST_DOCKER_{letter}"), host.docker_host());
            command.env(format!("AMBASSADOR_TEST_NETNS_{letter}"), host.netns());
        }
        command.env("AMBASSADOR_TEST_HOSTA_IP", IP_A).env("AMBASSADOR_TEST_HOSTB_IP", IP_B);
    }
}

/// Runs `cargo xtask hosts up`.
pub(crate) fn up(UpArgs { place: args, profile, engine }: &UpArgs) -> Result<()> {
    sudo::become_root()?;
    let missing = install::missing_after_install()?;
    if let Some(why) = host::unavailable_reason() {
        bail!("{why}");
    }
    let at = args.at.display();
    let down = format!("cargo xtask hosts down --at {at}");
    if args.at.exists() {
        bail!("{at} already exists: run `{down}` first");
    }
    let program = image::build(*profile)?;
    let hosts = Hosts::up(&args.at, Lifetime::Detached, *engine).inspect_err(|_| remove_dir(&args.at))?;
    images::load_all(&hosts, &program, &missing)?;
    for (host, ip) in [(&hosts.a, IP_A), (&hosts.b, IP_B)] {
        println!(
            "export DOCKER_HOST={}   # {ip}; `nsenter --net={}`",
            host.docker_host(),
            host.netns().display()
        );
    }
    let Hosts { a, b, c, d } = hosts;
    drop((c, d));
    [a, b].into_iter().for_each(Host::leave_running);
    println!("stop them with `{down}`");
    Ok(())
}

/// Runs `cargo xtask hosts down`.
pub(crate) fn down(args: &Args) -> Result<()> {
    sudo::become_root()?;
    for dir in fs::read_dir(&args.at).context("no hosts are running")? {
        stop(&dir?.path())?;
    }
    remove_dir(&args.at);
    Ok(())
}

/// Kills the holder recorded in this directory.
fn stop(dir: &Path) -> Result<()> {
    let Some((pid, name)) = holder(dir) else { return Ok(()) };
    kill_process(pid, Signal::KILL)?;
    cgroups::remove(&name)
}

/// Returns the pid of the holder that was started for this directory, if it still runs, and the name of its host.
fn holder(dir: &Path) -> Option<(Pid, String)> {
    let pid: i32 = fs::read_to_string(dir.join("holder.pid")).ok()?.trim().parse().ok()?;
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words =
        words.split(|byte| *byte == 0).skip_while(|word| *word != dir.as_os_str().as_encoded_bytes());
    let name = words.nth(1)?;
    Some((Pid::from_raw(pid)?, String::from_utf8_lossy(name).into_owned()))
}

/// Removes directories of killed runs, whose holders no longer run.
pub(crate) fn remove_stale(parent: &Path, prefix: &str) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for dir in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())) {
        let hosts = ["a", "b", "c", "d"].map(|letter| dir.path().join(letter));
        if hosts[0].join("holder.pid").exists() && hosts.iter().all(|host| holder(host).is_none()) {
            remove_dir(&dir.path());
        }
    }
}
