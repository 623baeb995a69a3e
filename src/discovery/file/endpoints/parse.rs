//! The format of a file of endpoints: one endpoint a line, `host:port [weight=N] [tier=N]`, `unix:/path` or `peer://HOST/NAME`; `#` begins a comment.
//! Pure.

use std::collections::BTreeMap;
use std::path::Path;

use crate::address::{BACKUP_TIER, EndpointAddr, Identity, WEIGHT_MAX};
use crate::config::grammar::digits;
use crate::config::grammar::listen::socket_path;
use crate::config::suggest::suggest;
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::discovery::dns::NAMES_MAX;
use crate::discovery::endpoint_resolver::{ListedEndpoint, Location, names};

/// Lines of one file: few enough to be compared at each change.
const LINES_MAX: usize = 16_384;
/// Mistakes that are reported.
const MISTAKES_MAX: usize = 20;

/// Parses a whole file. Reports every mistake, each with its place. Addresses are identified by `source`, the name of the
/// source; the addresses of a name by that name.
pub(super) fn parse(path: &Path, source: &str, text: &str) -> Result<Vec<ListedEndpoint>, Vec<Diagnostic>> {
    let mut lines: BTreeMap<Location, (usize, ListedEndpoint)> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (n, text) in text.lines().enumerate() {
        let written = text.split('#').next().unwrap_or_default();
        let column = written.len() - written.trim_start().len() + 1;
        let place = Place::File { path: path.to_owned(), line: n + 1, column };
        match parse_line(written.trim(), source) {
            Ok(None) => {}
            Ok(Some(endpoint)) => {
                let (first, _) = lines.entry(endpoint.location.clone()).or_insert((n, endpoint));
                if *first != n {
                    let mistake = Mistake::new(format!("duplicate endpoint: already in line {}", *first + 1));
                    mistakes.push(mistake.help("keep one of the two").at(&place));
                }
            }
            Err(mistake) => mistakes.push(mistake.at(&place)),
        }
        if mistakes.len() >= MISTAKES_MAX {
            break;
        }
    }
    let endpoints: Vec<ListedEndpoint> = lines.into_values().map(|(_, endpoint)| endpoint).collect();
    mistakes.extend(too_many(&endpoints).map(|mistake| mistake.at(&Place::Path(path.to_owned()))));
    if mistakes.is_empty() { Ok(endpoints) } else { Err(mistakes) }
}

fn too_many(endpoints: &[ListedEndpoint]) -> Option<Mistake> {
    let mistake = |what: String| Some(Mistake::new(what).help("distribute them over several routes"));
    if endpoints.len() > LINES_MAX {
        return mistake(format!("there are more than {LINES_MAX} endpoints"));
    }
    if names(endpoints).count() > NAMES_MAX {
        return mistake(format!("there are more than {NAMES_MAX} names"));
    }
    None
}

/// Parses one line without its comment. Returns `None` for an empty line.
fn parse_line(text: &str, source: &str) -> Result<Option<ListedEndpoint>, Mistake> {
    let mut words = text.split_whitespace();
    let Some(address) = words.next() else { return Ok(None) };
    let location = match address.strip_prefix("unix:") {
        Some(path) if digits::<u16>(path).is_none() => Location::Addr(EndpointAddr::Unix(socket_path(path)?)),
        _ => Location::parse(address)?,
    };
    let mut options = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let max = match key {
            "weight" => WEIGHT_MAX,
            "tier" => BACKUP_TIER - 1,
            _ => {
                let mistake = Mistake::new(format!("unknown option `{word}` of an endpoint"));
                return Err(mistake.help(suggest(key, &["weight", "tier"])));
            }
        };
        let number = value.parse().ok().filter(|number: &u32| *number <= max);
        let number = number.ok_or_else(|| {
            Mistake::new(format!("invalid number in `{word}`"))
                .help(format!("write `{key}=N`, from 0 to {max}"))
        })?;
        if options.insert(key, number).is_some() {
            return Err(Mistake::new(format!("duplicate option `{key}`")).help("keep one"));
        }
    }
    let identity = match &location {
        Location::Addr(_) | Location::Reverse { .. } => Identity::Key(source.to_owned()),
        Location::Name { host, .. } => Identity::Name(host.clone()),
    };
    let option = |key: &str, default| options.get(key).copied().unwrap_or(default);
    Ok(Some(ListedEndpoint { location, identity, weight: option("weight", 1), tier: option("tier", 0) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::EndpointSpec;
    use crate::discovery::endpoint_resolver::resolve;

    fn read(text: &str) -> Result<Vec<ListedEndpoint>, Vec<String>> {
        let read = parse(Path::new("a"), "file:a", text);
        read.map_err(|mistakes| mistakes.iter().map(Diagnostic::one_line).collect())
    }

    fn shown(text: &str) -> Vec<String> {
        let known = |host: &str| match host {
            "db" => vec!["10.0.0.8".parse().unwrap(), "fd00::8".parse().unwrap()],
            _ => Vec::new(),
        };
        let connected = [("db".to_owned(), [10, 0, 0, 9].into())].into();
        let lines = read(text).unwrap();
        let shown = |spec: &EndpointSpec| format!("{} {} {}", spec.key, spec.weight, spec.tier);
        resolve(&lines, known, &connected).iter().map(shown).collect()
    }

    #[test]
    fn line_is_an_address_with_options_and_a_comment() {
        let text = "# all of them\n\n10.0.0.2:6379\t weight=3 tier=1 # the old one\n  [fd00::1]:6379\n\
                    unix:/run/r.sock weight=0\r\ndb:5432 tier=2\nnowhere:80\npeer://db/pg weight=2\n\
                    peer://10.0.0.2:1/pg\npeer://@db/pg";
        assert_eq!(
            shown(text),
            [
                "10.0.0.2:6379 (file:a) 3 1",
                "[fd00::1]:6379 (file:a) 1 0",
                "unix:/run/r.sock (file:a) 0 0",
                "peer://10.0.0.2:1/pg (file:a) 1 0",
                "10.0.0.8:5432 (db) 1 2",
                "[fd00::8]:5432 (db) 1 2",
                "peer://10.0.0.8:15008/pg (db) 2 0",
                "peer://[fd00::8]:15008/pg (db) 2 0",
                "peer://@db@10.0.0.9/pg (file:a) 1 0",
            ]
        );
        assert_eq!(names(&read(text).unwrap()).collect::<Vec<_>>(), ["db", "nowhere"]);
        assert_eq!(shown("# none\n"), [""; 0]);
    }

    #[test]
    fn every_mistake_has_its_line_and_a_help() {
        for (line, place, expected) in [
            ("10.0.0.2", "a:1:1", "missing port in `10.0.0.2`"),
            ("  redis:99999", "a:1:3", "from 1 to 65535"),
            ("unix:r.sock", "a:1:1", "begin the path"),
            ("db:1 wieght=2", "a:1:1", "did you mean `weight`?"),
            ("db:1 weight", "a:1:1", "`weight=N`, from 0 to 65535"),
            ("db:1 weight=-1", "a:1:1", "`weight=N`, from 0 to 65535"),
            ("db:1 tier=65536", "a:1:1", "`tier=N`, from 0 to 65535"),
            ("db:1 tier=1 tier=1", "a:1:1", "keep one"),
            ("docker://redis", "a:1:1", "`"),
            ("peer://host", "a:1:1", "`peer://host/NAME`"),
            ("db:1\n\ndb:1 weight=2", "a:3:1", "already in line 1"),
        ] {
            let mistakes = read(line).expect_err(line);
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert!(
                mistakes[0].starts_with(&format!("{place}: ")) && mistakes[0].contains(expected),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn all_mistakes_are_reported_up_to_a_limit() {
        assert_eq!(read("a b\nc:1\nd:x\n").unwrap_err().len(), 2);
        assert_eq!(read(&"nonsense\n".repeat(1000)).unwrap_err().len(), MISTAKES_MAX);
        let many: String = (0..=LINES_MAX).map(|n| format!("unix:/{n}\n")).collect();
        assert!(read(&many).unwrap_err()[0].contains("16384"));
        let names: String = (0..=NAMES_MAX).map(|n| format!("h{n}.x:80\n")).collect();
        assert!(read(&names).unwrap_err()[0].contains("256"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted(text in "([a-z0-9.:\\[\\]/= #\\t]{0,24}\\n|\\PC){0,12}") {
            let _ = parse(Path::new("a"), "file:a", &text);
        }
    }
}
