//! `ambassador sessions` and `ambassador events`.

use clap::Args;
use serde_json::Value;

use super::request::{self, RequestArgs, refused, unanswered};
use super::{block_on, err, fail, try_out};
use crate::admin::client::{self, AdminRequest, escaped};
use crate::config::vars::Vars;
use crate::escape;
use crate::exit::Exit;
use crate::observe::sessions::Sessions;

/// The maximum length of an event, which is about 200 bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The fields of an event, in the order in which they are printed.
const FIELDS: [&str; 18] = [
    "route",
    "endpoint",
    "source",
    "peer",
    "remote",
    "direction",
    "certificate",
    "identity",
    "until",
    "targets",
    "instead_of",
    "line",
    "origin",
    "weight",
    "path",
    "routes",
    "count",
    "why",
];

#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    /// Only the sessions of this route, by its name in `status`
    route: Option<String>,
    /// Only the sessions in tunnels of this peer, by its identity in `status`
    #[arg(long, value_name = "IDENTITY")]
    peer: Option<String>,
    /// Maximum number of sessions [default and maximum: 20,000]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    args: RequestArgs,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Continue with new events until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    since: u64,
    #[command(flatten)]
    args: RequestArgs,
}

pub(super) fn sessions(SessionsArgs { route, peer, limit, args }: &SessionsArgs, vars: &Vars) -> Exit {
    let route = route.as_ref().map(|route| format!("route={}", escaped(route)));
    let peer = peer.as_ref().map(|peer| format!("peer={}", escaped(peer)));
    let limit = limit.map(|limit| format!("limit={limit}"));
    let query: Vec<String> = route.into_iter().chain(peer).chain(limit).collect();
    let request = AdminRequest::get(format!("/sessions?{}", query.join("&")));
    request::show(args, vars, &request, |sessions: &Sessions| sessions.table())
}

pub(super) fn events(EventsArgs { follow, since, args }: &EventsArgs, vars: &Vars) -> Exit {
    let choice = match args.admin.choice(vars) {
        Ok(choice) => choice,
        Err(mistake) => {
            err(&mistake.to_string());
            return Exit::Usage;
        }
    };
    let request = AdminRequest::get(format!("/events?since={since}&follow={follow}"));
    let mut lines = Lines::default();
    let show = |line: &str| {
        let text = if args.json { format!("{line}\n") } else { formatted(line) };
        try_out(&text)
    };
    let followed = block_on(client::stream(&choice, &request, |piece| lines.take(piece, show)));
    match followed {
        Ok(Ok(answer)) if answer.is_ok() => Exit::Done,
        Ok(Ok(answer)) => refused(&answer, args.json),
        Ok(Err(error)) => unanswered(&error),
        Err(error) => fail(&error.to_string()),
    }
}

/// Splits a stream into lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Passes each complete line to `show`. Returns whether to continue.
    fn take(&mut self, piece: &[u8], show: impl Fn(&str) -> bool) -> bool {
        self.partial.extend_from_slice(piece);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            if !show(String::from_utf8_lossy(&line).trim_end()) {
                return false;
            }
        }
        self.partial.len() <= LINE_BYTES_MAX
    }
}

/// Formats an event like a line of the log: time, event and fields.
fn formatted(line: &str) -> String {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let time = event.get("time").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{time}  {}", described(&event));
    format!("{}\n", escape::escaped(text.trim_start()))
}

/// Returns what happened, without the time.
pub(super) fn described(event: &Value) -> String {
    let text = |key: &str| match event.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let what = text("message").or_else(|| text("event")).unwrap_or_default();
    let mut words = vec![what];
    words.extend(FIELDS.iter().filter_map(|key| Some(format!("{key}={}", text(key)?))));
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn lines_are_independent_of_the_pieces_of_the_stream() {
        let seen = RefCell::new(Vec::new());
        let show = |line: &str| {
            seen.borrow_mut().push(line.to_owned());
            true
        };
        let mut lines = Lines::default();
        for piece in ["a", "b\nc\n", "", "d"] {
            assert!(lines.take(piece.as_bytes(), show));
        }
        assert_eq!(*seen.borrow(), ["ab", "c"]);
        assert!(!lines.take(&vec![b'x'; LINE_BYTES_MAX + 1], show), "too long");
    }

    #[test]
    fn an_event_is_formatted_like_a_line_of_the_log() {
        let line =
            r#"{"seq":1,"time":"T","message":"weight set by hand","event":"x","route":"r","weight":3}"#;
        assert_eq!(formatted(line), "T  weight set by hand  route=r  weight=3\n");
        assert_eq!(formatted(r#"{"event":"missed","count":7}"#), "missed  count=7\n");
    }
}
