//! The log: one line an event, on standard error, as text or JSON.
//!
//! Lines go through a bounded queue to a thread of its own, so that a reader of our log who stalls cannot stall a session.
//! When the queue is full, lines are dropped; how many is said at the end.

pub mod access;
#[cfg(test)]
pub(crate) mod captured;
mod queue;
mod text;
mod time;

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

use self::text::Fields;
use self::time::Clock;
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
    let started = tracing::dispatcher::set_global_default(dispatch(config, color, queue.clone()));
    if started.is_err() {
        tracing::warn!("logging was started before");
    } else if filter(config.level) >= Level::INFO {
        access::start(access::Format::of(config, color), queue);
    }
    Ok(Guard { end })
}

fn dispatch(
    config: LogConfig,
    color: bool,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> Dispatch {
    let builder = tracing_subscriber::fmt()
        .with_max_level(filter(config.level))
        .with_writer(writer)
        .with_timer(Clock)
        .with_ansi(color)
        .with_target(has_target(config.level));
    match config.format {
        LogFormat::Text => builder.fmt_fields(Fields).finish().into(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(true).finish().into(),
    }
}

/// Whether lines of text name the module that they are from.
fn has_target(level: LogLevel) -> bool {
    matches!(level, LogLevel::Debug | LogLevel::Trace)
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
