//! Runs the seeds of the fuzz targets and mutations of them in every test run, so that known failures are found without
//! a nightly compiler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::soak::rng::Rng;
use crate::support::variable;

#[expect(unreachable_pub, reason = "a library of its own for cargo-fuzz")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Mutations per seed. `AMBASSADOR_TEST_MUTATIONS` overrides it; the first ones are the same in every run.
const MUTATIONS: usize = 300;
/// Maximum number of changes in one mutation.
const CHANGES_MAX: usize = 4;
/// Tokens that parsers handle specially.
const TOKENS: [&[u8]; 16] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"=",
    b"?",
    b"&",
    b",",
    b":",
    b"/",
    b"%",
    b"\"",
    b"{}",
    b"-1",
    b"65536",
    b"18446744073709551616",
    b"\xff\xfe",
];

/// Sorted, so that every run makes the same mutations.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn feed(name: &str, seed: &Path, bytes: &[u8]) {
    let fed = catch_unwind(AssertUnwindSafe(|| targets::run(name, bytes)));
    assert!(fed.is_ok(), "{name} fails, by {}, for \"{}\"", seed.display(), bytes.escape_ascii());
}

fn mutated(seed: &[u8], others: &[(PathBuf, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.below(CHANGES_MAX) {
        let at = rng.below(bytes.len() + 1);
        let end = at + rng.below(bytes.len() - at + 1).min(16);
        match rng.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            2 => drop(bytes.splice(at..at, rng.choose(&TOKENS).iter().copied())),
            3 => bytes.truncate(at),
            4 => {
                let (_, other) = rng.choose(others);
                let from = rng.below(other.len() + 1);
                drop(bytes.splice(at..end, other[from..].iter().copied().take(64)));
            }
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
        }
    }
    bytes
}

#[test]
fn parsers_accept_all_seeds_and_mutations_without_panic() {
    let mutations = variable("AMBASSADOR_TEST_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    for (name, _) in targets::ALL {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seed");
        for (number, (path, seed)) in seeds.iter().enumerate() {
            feed(name, path, seed);
            let mut rng = Rng::new(number as u64, 7);
            for _ in 0..mutations {
                feed(name, path, &mutated(seed, &seeds, &mut rng));
            }
        }
    }
}

/// Otherwise only a nightly compiler would detect a declared target that does not exist.
#[test]
fn every_fuzz_target_is_declared_and_has_a_program() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for (name, _) in targets::ALL {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(
            std::fs::read_to_string(program).unwrap().contains(&format!("run(\"{name}\", bytes)")),
            "{name}"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets::ALL.len());
}
