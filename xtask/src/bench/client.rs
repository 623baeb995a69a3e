//! The benchmark's side of the load program: a child process that is stepped line by line.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};

use super::child::{Process, killed_with_parent};
use super::load::Outcome;
use crate::interrupt;

pub(super) struct Client {
    _process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(super) fn start(load: &Path, words: &str, target: SocketAddr) -> Result<Client> {
        interrupt::check()?;
        let mut command = killed_with_parent(load);
        command.arg("bench-load").args(words.split_whitespace()).arg(target.to_string());
        let mut process = Process::start_piped(command.stdout(Stdio::piped()))?;
        let stdin = process.0.stdin.take().context("no standard input")?;
        let stdout = process.0.stdout.take().context("no standard output")?;
        Ok(Client { _process: process, stdin, stdout: BufReader::new(stdout) })
    }

    /// Waits until the client prints this line.
    pub(super) fn expect(&mut self, word: &str) -> Result<()> {
        let line = self.line()?;
        ensure!(line == word, "expected {word:?} from the client, got {line:?}");
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<()> {
        self.stdin.write_all(b"\n").context("the client has ended")
    }

    /// Waits for the measurement of the client.
    pub(super) fn outcome(&mut self) -> Result<Outcome> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.stdout.read_line(&mut line)?;
        interrupt::check()?;
        ensure!(length > 0, "the client ended early");
        Ok(line.trim_end().to_owned())
    }
}
