//! `cargo xtask fuzz`: runs libFuzzer on each target of `fuzz`, starting from its seeds.

use anyhow::{Result, bail};

use crate::process::{output, status};
use crate::sudo::as_user;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these targets
    targets: Vec<String>,
    /// Seconds per target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs all targets, then reports those that failed. Failing inputs are in `fuzz/artifacts`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let targets = match args.targets.as_slice() {
        [] => output(nightly().args(["list"]))?.split_whitespace().map(str::to_owned).collect(),
        named => named.to_vec(),
    };
    let mut failed = Vec::new();
    for target in targets {
        let corpus = format!("fuzz/corpus/{target}");
        std::fs::create_dir_all(&corpus)?;
        println!("fuzz: {target}");
        // No sanitizer: the crate has no unsafe code.
        let mut fuzz = nightly();
        fuzz.args(["run", "--sanitizer", "none", &target, &corpus, &format!("fuzz/seeds/{target}"), "--"]);
        fuzz.args([format!("-max_total_time={}", args.seconds), "-print_final_stats=1".to_owned()]);
        if !status(&mut fuzz)?.success() {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("fuzz failed: {}", failed.join(", "));
    }
    Ok(())
}

fn nightly() -> std::process::Command {
    let mut rustup = as_user("rustup");
    rustup.args(["run", "nightly", "cargo", "fuzz"]);
    rustup
}
