//! `ambassador demo`, run from a fresh build.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// A round takes twelve seconds, and longer on a busy machine.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

/// Builds a shell command that ends in the demo.
fn demo(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(command.replace("DEMO", &format!("exec '{}' demo", env!("CARGO_BIN_EXE_ambassador"))));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    shell
}

async fn output(command: &str) -> Output {
    tokio::time::timeout(ROUND_TIMEOUT, demo(command).output()).await.unwrap().unwrap()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

/// Parses `667 requests, 0 failed, longest pause 1012 ms`.
fn summed_up(line: &str) -> (u64, u64, u64) {
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers.len(), 3, "{line}");
    let (requests, failed, pause) = (numbers[0], numbers[1], numbers[2]);
    assert_eq!(line, format!("{requests} requests, {failed} failed, longest pause {pause} ms"));
    (requests, failed, pause)
}

#[tokio::test]
async fn demo_round_loses_no_request() {
    let output = output("DEMO --once").await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let (requests, failed, pause) = summed_up(&last_line(&output));
    assert!(requests > 100, "{text}");
    assert_eq!(failed, 0, "{text}");
    assert!((1000..10_000).contains(&pause), "held while no server was running: {text}");
    assert!(!text.contains('\x1b'), "no colours without a terminal");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[tokio::test]
async fn demo_that_loses_a_request_exits_with_1() {
    // With so few descriptors, not all connections during the outage can be held.
    let output = output("ulimit -n 60; DEMO --once").await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(summed_up(&last_line(&output)).1 > 0, "{text}");
}

#[tokio::test]
async fn interrupted_demo_prints_its_summary_and_exits() {
    let output = output("DEMO & sleep 2; kill -INT $!; wait $!").await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    summed_up(&last_line(&output));
}

#[tokio::test]
async fn demo_ends_when_its_output_is_closed() {
    let output = output("DEMO | head -n 1; true").await;
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[tokio::test]
async fn demo_output_to_a_pipe_is_one_round_within_80_columns() {
    let output = output("DEMO").await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    summed_up(&last_line(&output));
    assert!(!text.contains("Ctrl-C"), "it ends by itself: {text}");
    let long: Vec<&str> = text.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(long.is_empty(), "{long:#?}");
}
