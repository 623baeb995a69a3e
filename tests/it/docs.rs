//! The documentation as a whole: links resolve, and the index lists every page.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file, without its code.
struct Page {
    path: PathBuf,
    anchors: HashSet<String>,
    links: Vec<String>,
}

#[test]
fn relative_links_and_anchors_resolve() {
    let pages = pages();
    let broken: Vec<_> = pages
        .iter()
        .flat_map(|page| page.links.iter().filter_map(|link| broken(&pages, page, link)))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn index_links_every_page_of_the_documentation() {
    let pages = pages();
    let docs = root().join("docs");
    let index = pages.iter().find(|page| page.path == docs.join("README.md")).expect("an index");
    let linked: HashSet<_> =
        index.links.iter().filter_map(|link| docs.join(link).canonicalize().ok()).collect();
    let is_missing = |page: &&Page| {
        page.path.starts_with(&docs) && page.path != index.path && !linked.contains(&page.path)
    };
    let missing: Vec<_> = pages.iter().filter(is_missing).map(|page| &page.path).collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:?}");
}

#[test]
fn links_and_anchors_are_those_that_github_renders() {
    let text = "# `status`, and why!\n\n[a](b.md#c) and\n[two\nlines](d.md) `[no](link)`\n\n    [no](code)\n\n```\n# no\n```\n## Twice\n## Twice\n";
    let page = parse(PathBuf::new(), text);
    assert_eq!(page.links, ["b.md#c", "d.md"]);
    let anchors = ["status-and-why", "twice", "twice-1"].map(str::to_owned);
    assert_eq!(page.anchors, HashSet::from(anchors));
}

/// Describes a link whose target does not exist.
fn broken(pages: &[Page], page: &Page, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let dir = page.path.parent().expect("a file has a directory");
    let target = if file.is_empty() { Ok(page.path.clone()) } else { dir.join(file).canonicalize() };
    let resolves = target.is_ok_and(|target| {
        let has_anchor = || pages.iter().any(|page| page.path == target && page.anchors.contains(anchor));
        anchor.is_empty() || has_anchor()
    });
    (!resolves).then(|| format!("{}: broken link `{link}`", page.path.display()))
}

/// Returns every Markdown file of the repository.
fn pages() -> Vec<Page> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    files.into_iter().map(|file| parse(file.clone(), &fs::read_to_string(file).expect("a page"))).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("the repository")
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let skipped = name == "target" || name == "node_modules" || name.to_string_lossy().starts_with('.');
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !skipped {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

fn parse(path: PathBuf, text: &str) -> Page {
    let mut anchors = HashSet::new();
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            if let Some(title) = heading(line) {
                let slug = slug(title);
                let numbered = (1..).map(|n| format!("{slug}-{n}"));
                let mut names = std::iter::once(slug.clone()).chain(numbered);
                anchors.extend(names.find(|name| !anchors.contains(name)));
            }
            prose += &without_code(line);
            prose.push('\n');
        }
    }
    Page { path, anchors, links: links(&prose) }
}

fn heading(line: &str) -> Option<&str> {
    let title = line.trim_start_matches('#');
    (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
}

/// The anchor that GitHub gives a heading.
fn slug(title: &str) -> String {
    let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of `[text](target)`.
fn links(prose: &str) -> Vec<String> {
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}
