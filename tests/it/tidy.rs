//! The rules of ARCHITECTURE.md that a compiler does not keep, read off the sources as text.

mod dependencies;

use std::fs;
use std::path::{Path, PathBuf};

/// Words that certain files do without.
struct Rule {
    why: &'static str,
    files: Files,
    but: &'static [&'static str],
    words: &'static [&'static str],
}

/// Which files a rule is for.
enum Files {
    All,
    /// A path that ends with `/` is all files below it.
    At(&'static [&'static str]),
    /// Those whose first comment has the word "Pure": decisions in code that a test can give any input and any moment.
    Pure,
}

const RULES: &[Rule] = &[
    Rule {
        why: "pure modules do no I/O",
        files: Files::Pure,
        but: &[],
        words: &["std::fs", "tokio::", "std::net::Tcp", "std::net::Udp", "std::os::unix::net", "std::thread"],
    },
    Rule {
        why: "pure modules read no clock: `now` is an argument",
        files: Files::Pure,
        but: &[],
        words: &["Instant::now", "SystemTime::now", ".elapsed()"],
    },
    Rule {
        why: "a session takes no lock",
        files: Files::At(&[
            "src/session.rs",
            "src/session/",
            "src/cluster.rs",
            "src/cluster/",
            "src/limit.rs",
            "src/budget.rs",
            "src/fd_budget.rs",
            "src/relay.rs",
            "src/relay/",
            "src/udp.rs",
            "src/udp/",
            "src/balancer.rs",
            "src/balancer/",
            "src/listener.rs",
            "src/listener/",
        ]),
        but: &[],
        words: &["Mutex", "RwLock", ".lock()"],
    },
    Rule {
        why: "a source cannot touch a listener, nor what one accepted",
        files: Files::At(&["src/discovery.rs", "src/discovery/"]),
        but: &[],
        words: &["crate::listener", "crate::session", "crate::worker", "crate::relay", "TcpListener"],
    },
    Rule {
        why: "only `main` exits",
        files: Files::All,
        but: &["src/main.rs"],
        words: &["process::exit", "process::abort"],
    },
    Rule {
        why: "only `cli` and `demo` print",
        files: Files::All,
        but: &["src/cli.rs", "src/cli/", "src/demo.rs", "src/demo/"],
        words: &["println!", "eprintln!", "print!", "eprint!", "dbg!"],
    },
    Rule {
        why: "only `config::vars` reads the environment",
        files: Files::All,
        but: &["src/config/vars.rs"],
        words: &["env::var", "env::set_var", "env::remove_var"],
    },
    Rule {
        why: "our threads never block: connect, sleep and wait through tokio",
        files: Files::All,
        // A verb's own process, which connects without blocking; and what keeps a long answer off the control thread.
        but: &["src/admin/client/find.rs", "src/discovery/http/json.rs"],
        words: &[
            "std::os::unix::net::UnixStream",
            "UnixStream as StdUnixStream",
            "StdUnixStream::connect",
            "std::net::TcpStream",
            "std::net::{TcpStream",
            "thread::sleep",
            "ToSocketAddrs",
            "spawn_blocking",
            "block_in_place",
            ".blocking_recv()",
            ".blocking_send(",
        ],
    },
    Rule {
        why: "the data plane reads no file",
        files: Files::At(&[
            "src/cluster.rs",
            "src/cluster/",
            "src/connect.rs",
            "src/relay.rs",
            "src/relay/",
            "src/udp.rs",
            "src/udp/",
            "src/session.rs",
            "src/session/",
            "src/socket.rs",
            "src/worker.rs",
        ]),
        but: &[],
        words: &["std::fs", "File::open"],
    },
    Rule {
        why: "safe Rust alone",
        files: Files::All,
        but: &[],
        words: &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe_code"],
    },
];

/// What the relay may know of: two streams in, which are sockets or sessions in tunnels, and an ending out.
const RELAY_KNOWS: &[&str] = &["relay", "ending", "scratch", "socket", "stream", "traffic", "tunnel"];

#[test]
fn the_sources_keep_the_rules() {
    // A file of tests may do what it likes.
    let sources = sources("src").into_iter().filter(|(path, _)| !path.ends_with("/tests.rs"));
    let offences: Vec<_> =
        sources.collect::<Vec<_>>().iter().flat_map(|(path, text)| offences(path, text)).collect();
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let files = ["src", "tests", "xtask/src", "benches", "fuzz/fuzz_targets"].into_iter().flat_map(sources);
    let silent: Vec<_> = files.filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these do not open with `//!`: {silent:?}");
}

#[test]
fn each_rule_finds_its_offence() {
    let bad = [
        ("src/route.rs", "let t = Instant::now();", "read no clock"),
        ("src/balancer/p2c.rs", "use std::fs;", "no I/O"),
        ("src/session.rs", "use std::sync::Mutex;", "no lock"),
        ("src/discovery/dns.rs", "use crate::listener::Listener;", "cannot touch a listener"),
        ("src/app.rs", "std::process::exit(1)", "only `main` exits"),
        ("src/app.rs", "println!(\"{x}\");", "print"),
        ("src/config/links.rs", "std::env::var(\"X\")", "environment"),
        ("src/app.rs", "std::net::TcpStream::connect(addr)", "never block"),
        ("src/reconcile.rs", "std::thread::sleep(PAUSE);", "never block"),
        ("src/session.rs", "std::fs::read(path)", "reads no file"),
        ("src/socket.rs", "unsafe { libc::read() }", "safe Rust"),
        ("src/relay/copy.rs", "use crate::route::Route;", "the relay knows no route"),
        ("src/relay.rs", "use crate::{ending::Ending, observe};", "the relay knows no observe"),
        ("src/lib.rs", "#[allow(dead_code)]", "reason"),
        ("src/lib.rs", "#![allow(dead_code)]", "reason"),
    ];
    for (path, line, why) in bad {
        let found = offences(path, &format!("//! A file. Pure.\n{line}\n"));
        assert!(found.iter().any(|offence| offence.contains(why)), "{path}: {line}: {found:?}");
    }
}

#[test]
fn what_is_said_in_comments_or_done_in_tests_is_no_offence() {
    let good = [
        ("src/route.rs", "//! Pure.\n/// Not `Instant::now()`: the caller passes the time.\n"),
        ("src/route.rs", "//! Pure.\n#[cfg(test)]\nmod tests {\n    fn f() { Instant::now(); }\n}\n"),
        ("src/relay.rs", "use crate::ending::Ending;\n"),
        ("src/lib.rs", "#[expect(dead_code, reason = \"read by tests\")]\n"),
        ("src/main.rs", "std::process::exit(code)\n"),
        ("src/socket.rs", "#[expect(x, reason = \"the replacement is unsafe to call\")]\n"),
    ];
    for (path, text) in good {
        assert_eq!(offences(path, text), Vec::<String>::new());
    }
}

/// Each as `path:line: why`.
fn offences(path: &str, text: &str) -> Vec<String> {
    let lines = code(text);
    let pure = is_pure(text);
    let found = lines.iter().flat_map(|(number, line)| {
        let why = broken_by(path, line, pure)
            .into_iter()
            .chain(relay_offences(path, line))
            .chain(allow_offence(line));
        why.map(|why| format!("{path}:{number}: {why}: {}", line.trim())).collect::<Vec<_>>()
    });
    found.collect()
}

/// The numbered lines that are neither comments nor the tests at a file's end.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    lines
        .map(|(n, line)| (n + 1, without_comment(line).to_owned()))
        .filter(|(_, line)| !line.is_empty())
        .collect()
}

/// A `//` that begins a comment follows white space or nothing; that of an URL does not.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split(" // ").next().unwrap_or(line)
}

fn broken_by(path: &str, line: &str, pure: bool) -> Vec<String> {
    // A type alone, whose clock tests can stop.
    let line = &line.replace("tokio::time::Instant", "");
    let applies = |rule: &&Rule| {
        let is_in = match rule.files {
            Files::All => true,
            Files::At(files) => covers(files, path),
            Files::Pure => pure,
        };
        is_in && !covers(rule.but, path)
    };
    let broken =
        RULES.iter().filter(applies).filter(|rule| rule.words.iter().any(|word| has_word(line, word)));
    broken.map(|rule| rule.why.to_owned()).collect()
}

/// Whether the file's first comment says that it is pure.
fn is_pure(text: &str) -> bool {
    let header = text.lines().take_while(|line| line.starts_with("//!"));
    header.flat_map(|line| line.split(|c: char| !c.is_alphanumeric())).any(|word| word == "Pure")
}

fn covers(files: &[&str], path: &str) -> bool {
    files.iter().any(|file| if file.ends_with('/') { path.starts_with(file) } else { path == *file })
}

/// Not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let joins_before = word.starts_with(part_of_name) && line[..at].ends_with(part_of_name);
        !joins_before
    })
}

/// Modules of ours that a line of the relay names, but may not know.
fn relay_offences(path: &str, line: &str) -> Vec<String> {
    if !covers(&["src/relay.rs", "src/relay/"], path) {
        return Vec::new();
    }
    let named = line.split("crate::").skip(1).flat_map(first_modules);
    let unknown = named.filter(|module| !RELAY_KNOWS.contains(&module.as_str()));
    unknown.map(|module| format!("the relay knows no {module}")).collect()
}

/// `a` of `a::b`, and `a`, `c` of `{a::b, c}`.
fn first_modules(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    match path.strip_prefix('{') {
        Some(list) => list.split(',').map(name).filter(|name| !name.is_empty()).collect(),
        None => vec![name(path)],
    }
}

fn allow_offence(line: &str) -> Option<String> {
    let allows = line.contains("#[allow(") || line.contains("#![allow(");
    (allows && !line.contains("reason")).then(|| "an exception says its reason, by `expect`".to_owned())
}

/// Every Rust file below a directory of the package, with its text, sorted.
fn sources(dir: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(dir), &mut files);
    files.sort();
    let read = |file: PathBuf| {
        let path = file.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        (path, fs::read_to_string(&file).expect("a source"))
    };
    files.into_iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
