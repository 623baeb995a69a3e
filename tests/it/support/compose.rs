//! Compose 1.x, which supports links, and Compose v5.

use std::path::Path;
use std::process::Command;

use super::Host;
use super::host::{EXAMPLES, printed};
use super::skip::variable;

pub(crate) struct Compose {
    program: String,
    /// The separator in names of containers.
    joint: &'static str,
}

/// Returns docker-compose 1.x, which supports files with links, or the reason why it is missing.
pub(crate) fn compose_1() -> Result<Compose, String> {
    let compose = Compose { program: "docker-compose".to_owned(), joint: "_" };
    compose.of_version("1.")
}

/// Returns Compose v5, which `cargo xtask test` fetches, or the reason why it is missing.
pub(crate) fn compose_5() -> Result<Compose, String> {
    let program =
        variable("AMBASSADOR_TEST_COMPOSE_V5").ok_or("no Compose v5: `cargo xtask test` fetches it")?;
    Compose { program, joint: "-" }.of_version("5.")
}

impl Compose {
    /// Returns a file as Compose reads it. Needs no engine.
    pub(crate) fn config(&self, file: &Path) -> String {
        let output = Command::new(&self.program).arg("-f").arg(file).arg("config").output();
        let output = output.expect("the program that said its version");
        printed("docker-compose config", &output).unwrap_or_else(|why| panic!("{why}"))
    }

    fn of_version(self, begins: &str) -> Result<Compose, String> {
        let output = Command::new(&self.program).args(["version", "--short"]).output();
        let output = output.map_err(|error| format!("{}: {error}", self.program))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if version.trim_start_matches('v').starts_with(begins) {
            return Ok(self);
        }
        Err(format!("{} is not {begins}x but {version:?}", self.program))
    }
}

/// A running project of a file in `examples/`; removed when dropped.
pub(crate) struct Project<'a> {
    pub(crate) compose: Compose,
    pub(crate) host: &'a Host,
    pub(crate) name: &'a str,
    pub(crate) file: &'a str,
    /// The value of `AMBASSADOR_IMAGE`.
    pub(crate) image: &'a str,
}

impl Project<'_> {
    pub(crate) fn compose(&self, words: &str) -> String {
        let mut command = self.host.command(&self.compose.program);
        command.args(["-p", self.name, "-f"]).arg(Path::new(EXAMPLES).join(self.file));
        command.args(words.split_whitespace()).env("AMBASSADOR_IMAGE", self.image);
        let output = command.output().expect("the program that said its version");
        printed(&format!("docker-compose {words}"), &output).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Returns the only container of a service.
    pub(crate) fn container(&self, service: &str) -> String {
        [self.name, service, "1"].join(self.compose.joint)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.compose("logs --no-color --tail 50 ambassador"));
        }
        self.compose("down -v --rmi local -t 2");
    }
}
