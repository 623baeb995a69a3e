//! The log: one line an event, on standard error, as text or JSON.
//!
//! Lines go through a bounded queue to a thread of its own, so that a reader of our log who stalls cannot stall a session.
//! When the queue is full, lines are dropped; how many is said at the end.

mod queue;
mod text;

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing::level_filters::LevelFilter;

use self::text::{Clock, Fields};
use crate::config::vars::Vars;
use crate::config::{LogConfig, LogFormat, LogLevel};

/// Writes what is still queued when it is dropped.
pub struct Guard {
    end: queue::End,
}

/// Starts logging for the whole process. Once. Fails when there can be no further thread.
pub fn start(config: LogConfig, vars: &Vars) -> io::Result<Guard> {
    let (queue, end) = queue::start(io::stderr())?;
    let color = io::stderr().is_terminal() && vars.value("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(config.level))
        .with_writer(queue)
        .with_timer(Clock)
        .with_ansi(color)
        .with_target(matches!(config.level, LogLevel::Debug | LogLevel::Trace));
    let started = match config.format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.fmt_fields(Fields).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_target(true).finish(),
        ),
    };
    if started.is_err() {
        tracing::warn!("logging was started before");
    }
    Ok(Guard { end })
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
        let dropped = self.end.dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "log lines were dropped: their reader was too slow");
        }
    }
}
