//! The output of the demo: lines with a time, and a status line that is redrawn.

use std::io::{self, IsTerminal, StdoutLock, Write};
use std::time::{Duration, Instant};

use crate::config::vars::Vars;

/// Standard output. Every method returns an error if it was closed.
pub(super) struct Screen {
    out: StdoutLock<'static>,
    began: Instant,
    terminal: bool,
    /// Whether the last line can be redrawn.
    live: bool,
    color: bool,
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";
const ERASE_LINE: &str = "\r\x1b[2K";

impl Screen {
    pub(super) fn open(vars: &Vars) -> Screen {
        let out = io::stdout();
        let terminal = out.is_terminal();
        let live = terminal && vars.value("TERM") != Some("dumb");
        let color = live && vars.value("NO_COLOR").is_none();
        Screen { out: out.lock(), began: Instant::now(), terminal, live, color }
    }

    /// Returns whether the output is a terminal, and not a pipe or a file.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Prints the description of a step.
    pub(super) fn event(&mut self, what: &str) -> io::Result<()> {
        let line = format!("{}  {}", self.clock(), self.painted(BOLD, what));
        self.line(&line)
    }

    /// Prints a detail of the step.
    pub(super) fn detail(&mut self, what: &str) -> io::Result<()> {
        self.line(&format!("{:10}{what}", ""))
    }

    pub(super) fn error(&mut self, what: &str) -> io::Result<()> {
        let line = format!("{:10}{}", "", self.painted(RED, what));
        self.line(&line)
    }

    /// Redraws the status line, if the terminal supports it.
    pub(super) fn live(&mut self, what: &str) -> io::Result<()> {
        if self.live {
            let what = self.painted(DIM, what);
            write!(self.out, "{ERASE_LINE}{}  {what}", self.clock())?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Prints the summary.
    pub(super) fn end(&mut self, sum: &str) -> io::Result<()> {
        let erase = if self.live { ERASE_LINE } else { "" };
        let sum = self.painted(BOLD, sum);
        writeln!(self.out, "{erase}\n{sum}")?;
        self.out.flush()
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let erase = if self.live { ERASE_LINE } else { "" };
        writeln!(self.out, "{erase}{line}")?;
        self.out.flush()
    }

    fn clock(&self) -> String {
        format!("{:6.1} s", tenths(self.began.elapsed()))
    }

    fn painted(&self, color: &str, text: &str) -> String {
        if self.color { format!("{color}{text}{PLAIN}") } else { text.to_owned() }
    }
}

/// Rounds down to tenths of a second.
fn tenths(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 10.0).floor() / 10.0
}
