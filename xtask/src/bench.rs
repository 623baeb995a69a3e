//! `cargo xtask bench`: measures the ambassador and the alternatives to it on this machine.
//!
//! Each round measures every subject once per row, so that a disturbance of the machine affects all of them alike;
//! ratios are computed within a round. `docs/internals/benchmarks/README.md` describes the method.

mod check;
mod child;
mod client;
mod footprint;
mod hello;
mod listening;
mod load;
mod machine;
mod measure;
mod metric;
mod namespace;
mod opposite;
pub(crate) mod peers;
mod place;
mod report;
mod results;
mod rounds;
mod row;
mod secrets;
mod slow_link;
mod stats;
mod subject;
mod template;
mod usage;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

pub(crate) use self::load::Load;

use self::measure::Bench;
use self::metric::DIRECT;
use self::results::{Described, Results, Role};
use self::rounds::{Places, measure_all};
use self::row::{Proxies, ROWS, Row};
use self::subject::{AccessLog, Kind, LOG_SUFFIX, PLAIN_SUFFIX, Subject, TLS_SUFFIX};
use crate::image::{self, Profile, target_dir};
use crate::process::{cargo, output, output_with, succeed};
use crate::{install, sudo};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run one short round with fewer payloads: a few minutes instead of an hour
    #[arg(long)]
    quick: bool,
    /// Number of rounds [default: 5; with --quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds per measurement [default: 1.5; with --quick: 0.6]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Measure only these rows
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure only these peers
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Measure this binary instead of building one; if repeated, ratios are computed for the first
    #[arg(long, value_name = "[NAME=]PATH")]
    ambassador: Vec<String>,
    /// Directory of the results [default: docs/internals/benchmarks; target/bench if not a full run]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the results as JSON instead of as tables
    #[arg(long)]
    json: bool,
    /// Do not measure: write the report from the results in this file
    #[arg(long, value_name = "RESULTS.JSON")]
    from: Option<PathBuf>,
}

pub(crate) fn load(load: &Load) -> Result<()> {
    load::run(load)
}

pub(crate) fn run(args: &Args) -> Result<()> {
    sudo::become_root()?;
    if let Some(file) = &args.from {
        let results =
            serde_json::from_slice(&std::fs::read(file)?).context("not the results of a benchmark")?;
        return write(&results, &args.out());
    }
    let rows = rows(args)?;
    let mut results = Results { machine: machine::describe(), ..Results::default() };
    results.left_out = install::missing_for_benchmark()?;
    let ambassadors = ambassadors(args)?;
    let load = build_load()?;
    let subjects = subjects(args, ambassadors, &mut results)?;
    raise_file_limit()?;
    let dir = temporary_dir()?;
    let places = Places::make(&rows, &load, dir.path(), &mut results)?;
    let bench = Bench::new(load, dir.path(), args.seconds(), opposite(&rows, &mut results));
    results.settings = args.settings();
    check::encrypted(&bench, &rows, &subjects, &places, &mut results)?;
    measure_all(&bench, args.rounds(), &rows, &subjects, &places, &mut results)?;
    results.add_scaling();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        println!("{}", report::body(&results));
    }
    write(&results, &args.out())
}

impl Args {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.6 } else { 1.5 })
    }

    /// The page in `docs` is written only by full runs.
    fn out(&self) -> PathBuf {
        let partial =
            self.quick || !self.only.is_empty() || self.peers.is_some() || !self.ambassador.is_empty();
        let default =
            || if partial { target_dir().join("bench") } else { PathBuf::from("docs/internals/benchmarks") };
        self.out.clone().unwrap_or_else(default)
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let date = output(Command::new("date").args(["-u", "+%F"])).unwrap_or_default();
        let settings = [
            ("date", date),
            ("rounds", self.rounds().to_string()),
            ("seconds a measurement", self.seconds().to_string()),
        ];
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Writes the report and its plots. The files belong to the user who called, as everything in `target` and `docs` does.
fn write(results: &Results, dir: &Path) -> Result<()> {
    succeed(sudo::as_user("mkdir").arg("-p").arg(dir))?;
    let file = |name: &str, text: String| {
        output_with(sudo::as_user("tee").arg(dir.join(name)), text.into_bytes()).map(drop)
    };
    file("results.json", results.to_json()?)?;
    file("README.md", report::page(results))?;
    for (name, svg) in report::plots(results) {
        file(name, svg)?;
    }
    eprintln!("bench: results written to {}", dir.display());
    Ok(())
}

/// Creates a directory named after this process, and removes those of processes that no longer run.
fn temporary_dir() -> Result<TempDir> {
    const PREFIX: &str = "amb-bench-";
    for old in std::fs::read_dir("/tmp")?.flatten() {
        let name = old.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            std::fs::remove_dir_all(old.path()).ok();
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in("/tmp")?)
}

fn rows(args: &Args) -> Result<Vec<&'static Row>> {
    for name in &args.only {
        let known = || ROWS.iter().map(|row| row.id).collect::<Vec<_>>().join(", ");
        ensure!(ROWS.iter().any(|row| row.id == name), "unknown row `{name}`: choose from {}", known());
    }
    let wanted = |row: &&Row| match args.only.as_slice() {
        [] => row.quick || !args.quick,
        only => only.iter().any(|name| name == row.id),
    };
    Ok(ROWS.iter().filter(wanted).collect())
}

/// Returns the given binaries, or builds the released one.
fn ambassadors(args: &Args) -> Result<Vec<(String, PathBuf)>> {
    if args.ambassador.is_empty() {
        return Ok(vec![("ambassador".to_owned(), std::path::absolute(image::build(Profile::Dist)?)?)]);
    }
    let parse = |text: &String| {
        let (name, path) = text.split_once('=').unwrap_or(("ambassador", text));
        let path = std::fs::canonicalize(path).with_context(|| format!("cannot find the binary {path}"))?;
        Ok((name.to_owned(), path))
    };
    args.ambassador.iter().map(parse).collect()
}

/// Builds this program in the release profile; it contains the client and the service.
fn build_load() -> Result<PathBuf> {
    eprintln!("bench: building the client and the service");
    succeed(&mut cargo("build --quiet --release --package xtask"))?;
    Ok(std::path::absolute(target_dir().join("release/xtask"))?)
}

fn subjects(args: &Args, ambassadors: Vec<(String, PathBuf)>, results: &mut Results) -> Result<Vec<Subject>> {
    let (mut subjects, mut pairs) = (Vec::new(), Vec::new());
    for (index, (name, program)) in ambassadors.into_iter().enumerate() {
        let version = peers::version(Kind::Ambassador(AccessLog::Off), &program)?;
        let subject = |suffix, kind| Subject {
            name: format!("{name}{suffix}"),
            kind,
            program: program.clone(),
            version: version.clone(),
        };
        subjects.push(subject("", Kind::Ambassador(AccessLog::Off)));
        if index == 0 {
            subjects.push(subject(LOG_SUFFIX, Kind::Ambassador(AccessLog::On)));
            pairs.extend([subject(PLAIN_SUFFIX, Kind::PlainPair), subject(TLS_SUFFIX, Kind::TlsPair)]);
        }
    }
    let (peers, left_out) = peers::all(args.peers.as_deref())?;
    left_out.iter().for_each(|why| eprintln!("bench: skipped: {why}"));
    results.left_out.extend(left_out);
    subjects.extend(peers);
    subjects.extend(pairs);
    subjects.push(Subject {
        name: DIRECT.to_owned(),
        kind: Kind::Direct,
        program: PathBuf::new(),
        version: String::new(),
    });
    results.subjects = subjects.iter().enumerate().map(|(index, subject)| describe(index, subject)).collect();
    Ok(subjects)
}

/// Returns the program at the other end of a proxy with one TLS side, if a row needs it. It is fetched here, because the
/// rows are measured in namespaces without a network.
fn opposite(rows: &[&Row], results: &mut Results) -> Option<PathBuf> {
    let is_needed = rows.iter().any(|row| matches!(row.proxies, Proxies::Tls(..)));
    let haproxy = is_needed.then(peers::haproxy)?;
    haproxy.map_err(|error| results.left_out.push(format!("TLS on one side: {error:#}"))).ok()
}

fn describe(index: usize, subject: &Subject) -> Described {
    let role = match subject.kind {
        Kind::Direct => Role::Limit,
        _ if index == 0 => Role::Us,
        Kind::Ambassador(_) | Kind::PlainPair | Kind::TlsPair => Role::Variant,
        _ => Role::Peer,
    };
    Described { name: subject.name.clone(), role, version: subject.version.clone() }
}

/// Raises the limit of open files for this process and its children, but no higher than any row needs: some proxies
/// size their tables by the limit.
fn raise_file_limit() -> Result<()> {
    const ENOUGH: u64 = 65_536;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH)));
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).context("cannot raise the limit of open files")
}
