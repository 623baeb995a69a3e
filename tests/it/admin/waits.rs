//! `switch --wait` and `drain --wait`: their progress, their end, and what an interruption leaves.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::service::{greeting, service};
use super::{done, fails, start, status};
use crate::support::{Ambassador, Terminal};

/// A command that waits, and the lines of its standard error.
struct Waits {
    process: Child,
    progress: Lines<BufReader<ChildStderr>>,
}

fn waits(ambassador: &Ambassador, words: &str) -> Waits {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambassador"));
    command.args(words.split_whitespace()).env("AMBASSADOR_ADMIN", admin(ambassador));
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let progress = BufReader::new(process.stderr.take().unwrap()).lines();
    Waits { process, progress }
}

fn admin(ambassador: &Ambassador) -> String {
    format!("unix:{}", ambassador.admin().display())
}

impl Waits {
    fn line(&mut self) -> String {
        self.progress.next().unwrap().unwrap()
    }

    /// Waits for the end. Returns the exit code and the output.
    fn ends(mut self) -> (Option<i32>, String) {
        let mut output = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        (self.process.wait().unwrap().code(), output)
    }
}

/// A route with two endpoints, the address of the second, and two sessions on it. Those on the first must stay open as well.
fn world() -> (Ambassador, SocketAddr, Vec<TcpStream>, Vec<TcpStream>) {
    let (one, two) = (service("one"), service("two"));
    let ambassador = Ambassador::with(&format!("127.0.0.1:0={one},{two}?name=r")).start();
    let addr = ambassador.addr("r");
    let sessions: Vec<(TcpStream, String)> = (0..4).map(|_| greeting(addr).unwrap()).collect();
    let (on_two, on_one): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|(_, name)| name == "two");
    let streams =
        |sessions: Vec<(TcpStream, String)>| sessions.into_iter().map(|(stream, _)| stream).collect();
    (ambassador, two, streams(on_two), streams(on_one))
}

#[test]
fn drain_with_wait_shows_the_sessions_that_are_left_and_returns_when_there_are_none() {
    let (ambassador, two, mut sessions, _others) = world();
    let mut drain = waits(&ambassador, &format!("drain r {two} --wait --timeout 1m"));
    assert_eq!(drain.line(), format!("2 sessions left on {two}"));
    sessions.pop();
    assert_eq!(drain.line(), format!("1 session left on {two}"));
    sessions.pop();
    assert_eq!(drain.ends(), (Some(0), format!("route r: {two} is drained and has no sessions\n")));
}

#[test]
fn drain_that_times_out_stays_and_one_that_is_undone_fails() {
    let (ambassador, two, _sessions, _others) = world();
    let (code, why) = fails(&ambassador, &format!("drain r {two} --wait --timeout 300ms"));
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains(&format!("2 sessions left on {two} after 300ms; it stays drained")), "{why}");
    assert_eq!(status(&ambassador, "r")["by_hand"]["drained"][0], two.to_string());

    let mut drain = waits(&ambassador, &format!("drain r {two} --wait"));
    drain.line();
    done(&ambassador, &format!("drain r {two} --undo"));
    assert!(drain.line().contains("the drain was undone meanwhile"));
    assert_eq!(drain.ends().0, Some(1));

    for words in [format!("drain r {two} --timeout 5s"), format!("drain r {two} --wait --timeout soon")] {
        assert_eq!(fails(&ambassador, &words).0, Some(64), "{words}");
    }
}

#[test]
fn switch_with_wait_shows_what_it_waits_for() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let (session, _) = greeting(ambassador.addr("r")).unwrap();
    let mut switch = waits(&ambassador, &format!("switch r {two} --wait --timeout 1m"));
    while switch.line() != format!("1 session left on {one}") {}
    drop(session);
    let (code, output) = switch.ends();
    assert!(code == Some(0) && output.contains("the old endpoints have no sessions"), "{code:?} {output}");

    let mut switch = waits(&ambassador, "switch r 127.0.0.1:1 --wait --timeout 1m");
    while switch.line() != "waiting for 127.0.0.1:1: connection refused" {}
    done(&ambassador, "switch r --reset");
    assert!(switch.line().contains("the route was switched again meanwhile"));
    assert_eq!(switch.ends().0, Some(1));
}

#[test]
fn interrupted_command_says_what_stays_as_it_is() {
    let (ambassador, two, _sessions, _others) = world();
    for (words, says) in [
        (
            "switch r 127.0.0.1:1 --wait --timeout 1h".to_owned(),
            "interrupted: the switch goes on without this command; it is rolled back if it is not complete 1h after it began",
        ),
        (
            "switch r 127.0.0.1:1 --wait".to_owned(),
            "interrupted: the switch goes on without this command; `ambassador switch r --reset` ends it",
        ),
        (format!("drain r {two} --wait"), "stays drained; `ambassador drain r"),
    ] {
        let mut command = waits(&ambassador, &words);
        command.line();
        kill_process(Pid::from_child(&command.process), Signal::INT).unwrap();
        let last = command.progress.by_ref().map(Result::unwrap).last();
        assert!(last.as_deref().is_some_and(|last| last.contains(says)), "{words}: {last:?}");
        assert_eq!(command.ends().0, Some(1), "{words}");
    }
    let by_hand = status(&ambassador, "r")["by_hand"].clone();
    assert_eq!(
        (&by_hand["switch"]["state"], &by_hand["drained"][0]),
        (&"on-trial".into(), &two.to_string().into())
    );
}

#[test]
fn terminal_has_one_line_with_the_time() {
    let (ambassador, two, _sessions, _others) = world();
    let program = env!("CARGO_BIN_EXE_ambassador");
    let line = format!("{program} drain r {two} --wait --timeout 2h --admin {}", admin(&ambassador));
    let terminal = Terminal::run(&mut Command::new("script"), &line);
    terminal.shows(&format!("\r\u{1b}[2K2 sessions left on {two} (1s of 2h)"));
}
