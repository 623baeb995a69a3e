//! The access log: one line per session, formatted on the thread where the session ends.
//!
//! The line is not a tracing event, because dispatching an event and visiting its fields costs more than formatting them. It has the
//! same form as one; the tests compare the two.

use std::cell::Cell;
use std::fmt::{self, Display, Write};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::has_target;
use super::queue::Queue;
use super::text::{write_formatted, write_value};
use super::time::Timestamp;
use crate::address::EndpointKey;
use crate::config::{LogConfig, LogFormat};
use crate::digits::{write_digits, write_number};
use crate::ending::Ending;
use crate::listener::ClientAddr;

/// What is logged of a session.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Name of the route.
    pub route: &'a str,
    /// Address of the client, or `unix`.
    #[serde(serialize_with = "display")]
    pub client: ClientAddr,
    /// The last endpoint connected to.
    #[serde(serialize_with = "display")]
    pub endpoint: Connected<'a>,
    /// The identity of the peer, for a session in a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'a str>,
    /// Bytes from client to endpoint.
    pub bytes_up: u64,
    /// Bytes from endpoint to client.
    pub bytes_down: u64,
    /// From accept to end.
    pub duration_ms: Milliseconds,
    /// The part of `duration_ms` in which the session was held.
    pub held_ms: Milliseconds,
    /// Connect attempts, including the successful one.
    pub attempts: u32,
    /// The reason for the end.
    #[serde(serialize_with = "display")]
    pub ending: Ending,
    /// Why no endpoint was connected to.
    #[serde(serialize_with = "display_some", skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The endpoint of a session, or `-`.
#[derive(Clone, Copy, Debug)]
pub struct Connected<'a>(pub Option<&'a EndpointKey>);

/// A duration, written to the microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Milliseconds(pub Duration);

/// Where the lines go, and in which form.
#[derive(Debug)]
pub(crate) struct Sink {
    format: Format,
    queue: Queue,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Fields as `name=value`, after time, level and message.
    Text {
        /// With ANSI escape sequences, as on a terminal.
        color: bool,
        /// With the name of the log's target, `access`.
        target: bool,
    },
    /// One JSON object.
    Json,
}

/// The buffer of a longer line is not kept for the next.
const KEPT_BYTES: usize = 4096;

static SINK: OnceLock<Sink> = OnceLock::new();

thread_local! {
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `None` where nothing is logged at the level `info`.
pub(crate) fn sink() -> Option<&'static Sink> {
    SINK.get()
}

/// For the whole process, once.
pub(super) fn start(format: Format, queue: Queue) {
    // A second log is not started either.
    let _ = SINK.set(Sink { format, queue });
}

impl Format {
    /// As tracing's lines have it.
    pub(super) fn of(config: LogConfig, color: bool) -> Format {
        match config.format {
            LogFormat::Text => Format::Text { color, target: has_target(config.level) },
            LogFormat::Json => Format::Json,
        }
    }
}

impl Sink {
    pub(crate) fn write(&self, line: &Line<'_>) {
        let mut bytes = LINE.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        line.write(self.format, SystemTime::now(), &mut bytes);
        self.queue.push(&bytes);
        if bytes.capacity() <= KEPT_BYTES {
            let _ = LINE.try_with(|line| line.set(bytes));
        }
    }
}

impl Line<'_> {
    /// Writing into a vector does not fail.
    pub fn write(&self, format: Format, now: SystemTime, to: &mut Vec<u8>) {
        let time = Timestamp(now);
        let _ = match format {
            Format::Text { color, target } => self.write_text(time, color, target, &mut Utf8(to)).is_ok(),
            Format::Json => self.write_json(time, to).is_ok(),
        };
        to.push(b'\n');
    }

    fn write_text(&self, time: Timestamp, color: bool, target: bool, to: &mut Utf8<'_>) -> fmt::Result {
        match (color, target) {
            (false, false) => write!(to, "{time}  INFO session")?,
            (false, true) => write!(to, "{time}  INFO access: session")?,
            (true, false) => write!(to, "\x1b[2m{time}\x1b[0m \x1b[32m INFO\x1b[0m session")?,
            (true, true) => {
                let target = "\x1b[2maccess\x1b[0m\x1b[2m:\x1b[0m";
                write!(to, "\x1b[2m{time}\x1b[0m \x1b[32m INFO\x1b[0m {target} session")?;
            }
        }
        self.write_fields(to)
    }

    fn write_fields(&self, to: &mut impl Write) -> fmt::Result {
        let Line { route, client, endpoint, peer, bytes_up, bytes_down, duration_ms, held_ms, .. } = self;
        let Line { attempts, ending, why, .. } = self;
        to.write_str(" route=")?;
        write_value(to, route)?;
        write!(to, " client={client} endpoint=")?;
        write_formatted(to, format_args!("{endpoint}"))?;
        if let Some(peer) = peer {
            to.write_str(" peer=")?;
            write_value(to, peer)?;
        }
        to.write_str(" bytes_up=")?;
        write_number(to, *bytes_up)?;
        to.write_str(" bytes_down=")?;
        write_number(to, *bytes_down)?;
        to.write_str(" duration_ms=")?;
        duration_ms.write(to)?;
        to.write_str(" held_ms=")?;
        held_ms.write(to)?;
        to.write_str(" attempts=")?;
        write_number(to, u64::from(*attempts))?;
        to.write_str(" ending=")?;
        to.write_str(ending.name())?;
        if let Some(why) = why {
            to.write_str(" why=")?;
            write_formatted(to, format_args!("{why}"))?;
        }
        Ok(())
    }

    fn write_json(&self, timestamp: Timestamp, to: &mut Vec<u8>) -> serde_json::Result<()> {
        #[derive(Serialize)]
        struct Event<'a> {
            #[serde(serialize_with = "display")]
            timestamp: Timestamp,
            level: &'static str,
            message: &'static str,
            #[serde(flatten)]
            fields: &'a Line<'a>,
            target: &'static str,
        }
        let (level, message, target) = ("INFO", "session", "access");
        serde_json::to_writer(to, &Event { timestamp, level, message, fields: self, target })
    }
}

/// Text at the end of bytes.
struct Utf8<'a>(&'a mut Vec<u8>);

impl Write for Utf8<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn display<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn display_some<S: Serializer>(value: &Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

impl Display for Connected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(endpoint) => endpoint.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl Milliseconds {
    fn microseconds(self) -> u64 {
        u64::try_from((self.0.as_nanos() + 500) / 1000).unwrap_or(u64::MAX)
    }

    /// With as many digits behind the point as it takes, but one.
    fn write(self, to: &mut impl Write) -> fmt::Result {
        let microseconds = self.microseconds();
        write_number(to, microseconds / 1000)?;
        to.write_char('.')?;
        // Less than 1000.
        let rest = (microseconds % 1000) as u32;
        match (rest % 10, rest % 100) {
            (_, 0) => write_digits(to, rest / 100, 1),
            (0, _) => write_digits(to, rest / 10, 2),
            _ => write_digits(to, rest, 3),
        }
    }
}

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.microseconds() as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests;
