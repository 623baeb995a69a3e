//! The built page belongs to its sources, which is checked without Node.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// As `cargo xtask web` computes it.
fn hash() -> String {
    let mut paths = Vec::new();
    collect(Path::new("web"), &mut paths);
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        let content = fs::read(&path).unwrap();
        hash.update(format!("{} {}\n", path.display(), content.len()));
        hash.update(content);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("node_modules") => {}
            true => collect(&path, paths),
            false => paths.push(path),
        }
    }
}

#[test]
fn built_page_belongs_to_its_sources() {
    let recorded = fs::read_to_string("src/web/page/sources.sha256").unwrap();
    assert_eq!(recorded.trim(), hash(), "the sources in web/ have changed: run `cargo xtask web`");
}

#[test]
fn page_is_at_most_60_kilobytes() {
    let files = fs::read_dir("src/web/page").unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(files.sum::<u64>() <= 60 * 1024);
}

#[test]
fn page_writes_no_markup() {
    let mut paths = Vec::new();
    collect(Path::new("web/src"), &mut paths);
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
        {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}
