//! The Docker engines that the hosts can run: the installed one, and newer ones from Debian, unpacked beside it.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::debian;
use crate::image::target_dir;

/// The engine and its C library, which is newer than that of the machine's programs.
const PACKAGES: &str = "docker.io containerd runc tini libc6";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The installed engine
    Installed,
    /// The engine of Debian 13: 26.1
    Trixie,
    /// The engine of Debian unstable: 28.5 or newer
    Sid,
}

impl Engine {
    /// Returns the directory to mount over `/usr` in a host's mount namespace; `None` for the installed engine.
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
