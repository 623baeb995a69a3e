//! Builds the web page: esbuild bundles `web/`, and the files in `src/web/page/` are compressed here, so that the same sources
//! result in the same bytes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::install;
use crate::process::{cargo, find, succeed};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only report whether the built files match the sources
    #[arg(long)]
    check: bool,
}

const SOURCES: &str = "web";
const BUILT: &str = "src/web/page";
const FILES: [&str; 4] = ["index.html", "app.js", "app.css", "icon.svg"];
/// Has the hash of the sources. A test compares it, which needs no node.
const HASH: &str = "sources.sha256";
const PICTURES: &str = "docs/images";
/// All files together, compressed.
const SIZE_MAX: usize = 60 * 1024;

pub(crate) fn run(args: &Args) -> Result<()> {
    install_packages()?;
    let built = build()?;
    let size: usize = built.iter().map(|(_, bytes)| bytes.len()).sum();
    ensure!(size <= SIZE_MAX, "the page has {size} bytes: at most {SIZE_MAX} are allowed");
    if args.check {
        return check(&built);
    }
    fs::create_dir_all(BUILT)?;
    for (name, bytes) in &built {
        fs::write(Path::new(BUILT).join(name), bytes)?;
    }
    println!("{BUILT}: {size} bytes");
    Ok(())
}

/// Takes the pictures of the documentation, with few colours so that they are small.
pub(crate) fn screenshots() -> Result<()> {
    let missing = install::missing_for_pictures()?;
    ensure!(missing.is_empty(), "missing: {}", missing.join(", "));
    fs::create_dir_all(PICTURES)?;
    let mut test = cargo("test --quiet --package ambassador --test it -- --ignored --exact");
    // A skip is then a failure.
    succeed(test.arg("web::screenshots::pictures_of_the_documentation").env("CI", "true"))?;
    for entry in fs::read_dir(PICTURES)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "png") {
            succeed(Command::new("pngquant").args(["--force", "--strip", "--ext", ".png", "64"]).arg(&path))?;
            println!("{}: {} bytes", path.display(), fs::metadata(&path)?.len());
        }
    }
    Ok(())
}

/// Installs the packages of the lock file, if they are not there: the bundler, and axe-core for the tests.
pub(crate) fn install_packages() -> Result<()> {
    let (lock, installed) =
        (Path::new(SOURCES).join("package-lock.json"), Path::new(SOURCES).join("node_modules/.lock"));
    let wanted = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    ensure!(find("npm").is_some(), "npm is missing: install Node 20 or later");
    succeed(
        Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(SOURCES),
    )?;
    Ok(fs::write(installed, wanted)?)
}

/// Returns the names and bytes of the built files.
fn build() -> Result<Vec<(String, Vec<u8>)>> {
    let dir = tempfile::tempdir()?;
    let node = |args: &[&Path]| succeed(Command::new("node").args(args).current_dir(SOURCES));
    node(&[Path::new("node_modules/typescript/bin/tsc"), Path::new("--noEmit")])?;
    node(&[Path::new("build.mjs"), dir.path()])?;
    let mut built = vec![(HASH.to_owned(), hash()?.into_bytes())];
    for name in FILES {
        built.push((format!("{name}.gz"), compressed(&fs::read(dir.path().join(name))?)?));
    }
    Ok(built)
}

fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn check(built: &[(String, Vec<u8>)]) -> Result<()> {
    let differs = |(name, bytes): &&(String, Vec<u8>)| {
        fs::read(Path::new(BUILT).join(name)).ok().as_ref() != Some(bytes)
    };
    let different: Vec<&str> = built.iter().filter(differs).map(|(name, _)| name.as_str()).collect();
    if different.is_empty() {
        return Ok(());
    }
    bail!("{BUILT} does not match {SOURCES}: {}: run `cargo xtask web`", different.join(", "));
}

/// Returns the hash of the sources: of each path and its content, in the order of the paths.
fn hash() -> Result<String> {
    let mut paths = Vec::new();
    collect(Path::new(SOURCES), &mut paths)?;
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        let content = fs::read(&path)?;
        hash.update(format!("{} {}\n", path.display(), content.len()));
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "node_modules") {
                collect(&path, paths)?;
            }
        } else {
            paths.push(path);
        }
    }
    Ok(())
}
