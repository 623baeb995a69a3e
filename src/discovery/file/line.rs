//! One endpoint a line: `host:port [weight=N] [tier=N]`, or `unix:/path`; `#` begins a comment. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::address::{BACKUP_TIER, EndpointAddr, EndpointSpec, Identity, WEIGHT_MAX};
use crate::config::grammar::digits;
use crate::config::grammar::listen::socket_path;
use crate::config::grammar::parse_address;
use crate::config::suggest::suggest;
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::discovery::dns::NAMES_MAX;
use crate::route::Target;

/// More than anybody balances over, and few enough to be compared at each change.
const LINES_MAX: usize = 16_384;
/// Further mistakes say nothing new.
const MISTAKES_MAX: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    at: At,
    weight: u32,
    tier: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Addr(EndpointAddr),
    /// Every address of the name is an endpoint.
    Name {
        host: String,
        port: u16,
    },
}

/// The whole file; every mistake at once, each with its place.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Line>, Vec<Diagnostic>> {
    let mut lines: BTreeMap<At, (usize, Line)> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (n, text) in text.lines().enumerate() {
        let written = text.split('#').next().unwrap_or_default();
        let column = written.len() - written.trim_start().len() + 1;
        let place = Place::File { path: path.to_owned(), line: n + 1, column };
        match line(written.trim()) {
            Ok(None) => {}
            Ok(Some(line)) => {
                let (before, _) = lines.entry(line.at.clone()).or_insert((n, line));
                if *before != n {
                    let mistake = Mistake::new(format!("this endpoint is in line {} already", *before + 1));
                    mistakes.push(mistake.help("keep one of the two").at(&place));
                }
            }
            Err(mistake) => mistakes.push(mistake.at(&place)),
        }
        if mistakes.len() >= MISTAKES_MAX {
            break;
        }
    }
    let lines: Vec<Line> = lines.into_values().map(|(_, line)| line).collect();
    mistakes.extend(too_many(&lines).map(|mistake| mistake.at(&Place::Path(path.to_owned()))));
    if mistakes.is_empty() { Ok(lines) } else { Err(mistakes) }
}

fn too_many(lines: &[Line]) -> Option<Mistake> {
    let mistake = |what: String| Some(Mistake::new(what).help("spread them over several routes"));
    if lines.len() > LINES_MAX {
        return mistake(format!("there are more than {LINES_MAX} endpoints"));
    }
    if names(lines).len() > NAMES_MAX {
        return mistake(format!("there are more than {NAMES_MAX} names"));
    }
    None
}

/// `None` for a line with nothing in it.
fn line(text: &str) -> Result<Option<Line>, Mistake> {
    let mut words = text.split_whitespace();
    let Some(address) = words.next() else { return Ok(None) };
    let at = match address.strip_prefix("unix:") {
        Some(path) if digits::<u16>(path).is_none() => At::Addr(EndpointAddr::Unix(socket_path(path)?)),
        _ => inet(address)?,
    };
    let mut options = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let max = match key {
            "weight" => WEIGHT_MAX,
            "tier" => BACKUP_TIER - 1,
            _ => {
                let mistake = Mistake::new(format!("`{word}` is no option of an endpoint"));
                return Err(mistake.help(suggest(key, &["weight", "tier"])));
            }
        };
        let number = value.parse().ok().filter(|number: &u32| *number <= max);
        let number = number.ok_or_else(|| {
            Mistake::new(format!("`{word}` has no number")).help(format!("write `{key}=N`, from 0 to {max}"))
        })?;
        if options.insert(key, number).is_some() {
            return Err(Mistake::new(format!("`{key}` is given twice")).help("keep one"));
        }
    }
    let option = |key: &str, default| options.get(key).copied().unwrap_or(default);
    Ok(Some(Line { at, weight: option("weight", 1), tier: option("tier", 0) }))
}

fn inet(text: &str) -> Result<At, Mistake> {
    match parse_address(text)? {
        Target::Addr(addr) => Ok(At::Addr(EndpointAddr::Inet(addr))),
        Target::Host { host, port } => Ok(At::Name { host, port }),
        _ => Err(Mistake::new(format!("`{text}` is no endpoint")).help("write `host:port` or `unix:/path`")),
    }
}

/// Those to look up.
pub(super) fn names(lines: &[Line]) -> BTreeSet<String> {
    let name = |line: &Line| match &line.at {
        At::Name { host, .. } => Some(host.clone()),
        At::Addr(_) => None,
    };
    lines.iter().filter_map(name).collect()
}

/// What the lines mean now. `source` is what an address without a name is known by.
pub(super) fn endpoints(
    lines: &[Line],
    source: &str,
    addresses: impl Fn(&str) -> Vec<IpAddr>,
) -> Vec<EndpointSpec> {
    let mut endpoints = Vec::new();
    for Line { at, weight, tier } in lines {
        let mut add = |addr: EndpointAddr, identity: Identity| {
            endpoints.push(EndpointSpec {
                weight: *weight,
                tier: *tier,
                ..EndpointSpec::new(addr, identity)
            });
        };
        match at {
            At::Addr(addr) => add(addr.clone(), Identity::Key(source.to_owned())),
            At::Name { host, port } => {
                for ip in addresses(host) {
                    add(EndpointAddr::Inet(SocketAddr::new(ip, *port)), Identity::Name(host.clone()));
                }
            }
        }
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Line>, Vec<String>> {
        let read = parse(Path::new("a"), text);
        read.map_err(|mistakes| mistakes.iter().map(Diagnostic::one_line).collect())
    }

    fn shown(text: &str) -> Vec<String> {
        let known = |host: &str| match host {
            "db" => vec!["10.0.0.8".parse().unwrap(), "fd00::8".parse().unwrap()],
            _ => Vec::new(),
        };
        let lines = read(text).unwrap();
        let shown = |spec: &EndpointSpec| format!("{} {} {}", spec.key, spec.weight, spec.tier);
        endpoints(&lines, "file:a", known).iter().map(shown).collect()
    }

    #[test]
    fn a_line_is_an_address_and_its_options_and_the_rest_is_comment() {
        let text = "# all of them\n\n10.0.0.2:6379\t weight=3 tier=1 # the old one\n  [fd00::1]:6379\n\
                    unix:/run/r.sock weight=0\r\ndb:5432 tier=2\nnowhere:80";
        assert_eq!(
            shown(text),
            [
                "10.0.0.2:6379 (file:a) 3 1",
                "[fd00::1]:6379 (file:a) 1 0",
                "unix:/run/r.sock (file:a) 0 0",
                "10.0.0.8:5432 (db) 1 2",
                "[fd00::8]:5432 (db) 1 2",
            ]
        );
        assert_eq!(names(&read(text).unwrap()).into_iter().collect::<Vec<_>>(), ["db", "nowhere"]);
        assert_eq!(shown("# nobody\n"), [""; 0]);
    }

    #[test]
    fn every_mistake_has_its_line_and_a_way_out() {
        for (line, place, said) in [
            ("10.0.0.2", "a:1:1", "missing port in `10.0.0.2`"),
            ("  redis:99999", "a:1:3", "from 1 to 65535"),
            ("unix:r.sock", "a:1:1", "begin the path"),
            ("db:1 wieght=2", "a:1:1", "did you mean `weight`?"),
            ("db:1 weight", "a:1:1", "`weight=N`, from 0 to 65535"),
            ("db:1 weight=-1", "a:1:1", "`weight=N`, from 0 to 65535"),
            ("db:1 tier=65536", "a:1:1", "`tier=N`, from 0 to 65535"),
            ("db:1 tier=1 tier=1", "a:1:1", "keep one"),
            ("docker://redis", "a:1:1", "`"),
            ("db:1\n\ndb:1 weight=2", "a:3:1", "line 1 already"),
        ] {
            let mistakes = read(line).expect_err(line);
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert!(
                mistakes[0].starts_with(&format!("{place}: ")) && mistakes[0].contains(said),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn mistakes_are_told_together_but_not_without_end() {
        assert_eq!(read("a b\nc:1\nd:x\n").unwrap_err().len(), 2);
        assert_eq!(read(&"nonsense\n".repeat(1000)).unwrap_err().len(), MISTAKES_MAX);
        let many: String = (0..=LINES_MAX).map(|n| format!("unix:/{n}\n")).collect();
        assert!(read(&many).unwrap_err()[0].contains("16384"));
        let names: String = (0..=NAMES_MAX).map(|n| format!("h{n}.x:80\n")).collect();
        assert!(read(&names).unwrap_err()[0].contains("256"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_in_the_file_is_read(text in "([a-z0-9.:\\[\\]/= #\\t]{0,24}\\n|\\PC){0,12}") {
            let _ = parse(Path::new("a"), &text);
        }
    }
}
