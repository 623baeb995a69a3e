//! The log: one line an event, on standard error, as text or JSON.
//!
//! Lines go through a bounded queue to a thread of its own, so that a reader of our log who stalls cannot stall a session.
//! When the queue is full, lines are dropped; how many is said at the end.

use std::io::IsTerminal;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use super::escape::Escaping;
use crate::config::vars::Vars;
use crate::config::{LogConfig, LogFormat, LogLevel};

/// Lines that wait for a slow reader: at 200 bytes each, 1.6 MB. Half a second of the most connections that a core can end. The
/// empty queue takes 32 bytes a line.
const LINES_MAX: usize = 8192;

/// Writes what is still queued when it is dropped.
pub struct Guard {
    dropped: ErrorCounter,
    _worker: WorkerGuard,
}

/// Starts logging for the whole process. Once.
pub fn start(config: LogConfig, vars: &Vars) -> Guard {
    let (writer, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let color = std::io::stderr().is_terminal() && vars.value("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(config.level))
        .with_writer(writer)
        .with_ansi(color)
        .with_target(matches!(config.level, LogLevel::Debug | LogLevel::Trace));
    let started = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.fmt_fields(OneLine).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_target(true).finish(),
        ),
    };
    if started.is_err() {
        tracing::warn!("logging was started before");
    }
    Guard { dropped, _worker: worker }
}

/// An event's message and fields, as tracing itself writes them, without a character that would end the line or command a
/// terminal. The field names have no style, since what styles them cannot be told from what is to be escaped.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut escaping = Escaping(&mut writer);
        DefaultFields::new().format_fields(Writer::new(&mut escaping), fields)
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    LevelFilter::from_level(match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    })
}

impl Drop for Guard {
    fn drop(&mut self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            tracing::warn!(dropped, "log lines were dropped: their reader was too slow");
        }
    }
}
