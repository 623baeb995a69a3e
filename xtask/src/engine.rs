//! The Docker engines that the hosts can run: the installed one, and newer ones of Debian, unpacked beside it.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::debian;
use crate::image::target_dir;

/// The engine with its C library, which is newer than that of the machine's programs.
const PACKAGES: &str = "docker.io containerd runc tini libc6";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The one on this machine
    Installed,
    /// That of Debian 13: 26.1
    Trixie,
    /// That of Debian unstable: 28.5, and whatever follows it
    Sid,
}

impl Engine {
    /// The tree to lay over `/usr` in a host's mount namespace; `None` for the installed engine.
    pub(crate) fn overlay(self) -> Result<Option<PathBuf>> {
        let release = match self {
            Engine::Installed => return Ok(None),
            Engine::Trixie => "trixie",
            Engine::Sid => "sid",
        };
        let dir = std::path::absolute(target_dir().join(format!("engine-{release}")))?;
        debian::unpack(release, PACKAGES, &dir)?;
        Ok(Some(dir.join("root/usr")))
    }
}
