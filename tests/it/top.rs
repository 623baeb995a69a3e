//! `ambassador top` in a terminal.

use std::process::Command;

use crate::admin::service::{greeting, service};
use crate::support::{Ambassador, Terminal, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ambassador");

/// Runs a command line in a terminal of 80x24, then prints its settings.
fn terminal(ambassador: &Ambassador, line: &str, term: &str) -> Terminal {
    let mut script = Command::new("script");
    script.env("AMBASSADOR_ADMIN", format!("unix:{}", ambassador.admin().display())).env("TERM", term);
    Terminal::run(&mut script, &format!("stty rows 24 cols 80; {line}; echo ended=$?; stty -a"))
}

fn start() -> Ambassador {
    Ambassador::with(&format!("127.0.0.1:0={}?name=r", service("one"))).start()
}

fn is_paused(ambassador: &Ambassador) -> bool {
    let status: serde_json::Value = serde_json::from_slice(&ambassador.verb("status --json").stdout).unwrap();
    status["routes"][0]["by_hand"]["paused"].as_bool().unwrap()
}

/// Presses Enter until the effects are known and the command has been sent.
fn confirm(ambassador: &Ambassador, terminal: &Terminal, paused: bool) {
    eventually("the command", || match is_paused(ambassador) {
        is_paused if is_paused == paused => Ok(()),
        is_paused => {
            terminal.type_line("");
            Err(is_paused.to_string())
        }
    });
}

/// The settings and the screen are as before.
fn is_restored(terminal: &Terminal, code: i32) {
    terminal.shows(&format!("ended={code}"));
    terminal.shows("\u{1b}[?1049l");
    terminal.shows(" icanon");
    terminal.shows(" echo ");
}

#[test]
fn route_is_paused_and_resumed_by_keys_and_the_terminal_is_restored() {
    let ambassador = start();
    let terminal = terminal(&ambassador, &format!("{PROGRAM} top"), "xterm");
    terminal.shows("SESSIONS");
    terminal.type_line("p");
    terminal.shows("confirms");
    confirm(&ambassador, &terminal, true);
    terminal.shows("paused");
    terminal.type_line("\u{1b}");
    terminal.type_line("r");
    confirm(&ambassador, &terminal, false);
    // From the details, the help or the routes.
    terminal.type_line("qqq");
    is_restored(&terminal, 0);
}

#[test]
fn terminal_is_restored_after_a_signal() {
    let ambassador = start();
    let line = format!("timeout --foreground --preserve-status -s TERM 3 {PROGRAM} top");
    is_restored(&terminal(&ambassador, &line, "xterm"), 0);
}

#[test]
fn lost_ambassador_is_shown() {
    let ambassador = start();
    let terminal = terminal(&ambassador, &format!("{PROGRAM} top"), "xterm");
    terminal.shows("SESSIONS");
    drop(ambassador);
    terminal.shows("retrying:");
    terminal.type_line("q");
    is_restored(&terminal, 0);
}

#[test]
fn snapshot_is_text_without_escapes() {
    let ambassador = start();
    let (_open, _) = greeting(ambassador.addr("r")).unwrap();
    let output = ambassador.verb("top --once");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains('\u{1b}'), "{text}");
    for expected in ["All is well: 1 route.", "1 session ", "ROUTE", "route opened"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let row = text.lines().find(|line| line.starts_with("  r ")).unwrap();
    assert!(row.contains(" ok ") && row.contains(" 1 "), "{row}");
}

#[test]
fn missing_terminal_is_explained() {
    let ambassador = start();
    let output = ambassador.verb("top");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(64) && error.contains("top --once"), "{error}");
    let terminal = terminal(&ambassador, &format!("{PROGRAM} top"), "dumb");
    terminal.shows("TERM is `dumb`");
    terminal.shows("ended=64");
}
