//! Valid and invalid files, and the lines and columns of mistakes.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::grammar::parse_route;
use crate::config::peer::{PeerListen, PeerSettings};
use crate::config::settings::Settings;
use crate::config::{AdminAddr, LogConfig, LogFormat, LogLevel};
use crate::ending::AccessLog;

fn read(text: &str) -> ConfigFile {
    parse_file(Path::new("a.toml"), text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn mistakes(text: &str) -> Vec<String> {
    let found = parse_file(Path::new("a.toml"), text).expect_err(text);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_is_equivalent_to_the_route_grammar() {
    let text = r#"
[[route]]
listen = 5432
target = ["db1", "db2:5433"]
name = "pg"
balance = "round-robin"
backup = ["db3", "db4"]
hold = "30s"
connect-timeout = "1s"
idle-timeout = "off"
half-close-timeout = "1m"
max-sessions = 100
allow = ["10.0.0.0/8", "::1"]
health = "off"
on-remove = "cut"

[[route]]
listen = "53/udp"
target = "10.0.0.2"
"#;
    let lines = [
        "5432=db1,db2:5433?name=pg&balance=round-robin&backup=db3,db4&hold=30s&connect-timeout=1s\
         &half-close-timeout=1m&max-sessions=100&allow=10.0.0.0/8,::1&on-remove=cut",
        "53/udp=10.0.0.2",
    ];
    let file = read(text);
    assert_eq!(file.routes.len(), 2);
    for (route, line) in file.routes.iter().zip(lines) {
        assert!(route.runs_like(&parse_route(line, &Place::Built).unwrap()), "{route}\n{line}");
    }
    let place = |line| Place::File { path: "a.toml".into(), line, column: 1 };
    assert_eq!((&file.routes[0].origin, &file.routes[1].origin), (&place(2), &place(17)));
}

#[test]
fn an_empty_file_is_valid() {
    assert_eq!(read(""), ConfigFile::default());
    assert_eq!(read("# nothing yet\n"), ConfigFile::default());
}

#[test]
fn settings_are_written_at_the_top() {
    let text = "workers = 2\ndrain-timeout = \"1m\"\nmax-held = 5\nadmin = \"/run/a\"\n\
                log-level = \"debug\"\nlog-format = \"json\"\naccess-log = \"off\"\n";
    let values = read(text).settings;
    let mut settings = Settings::default();
    assert_eq!(settings.apply(&values, |_| Place::Built), []);
    assert_eq!((settings.workers.get(), settings.drain_timeout), (2, Duration::from_secs(60)));
    assert_eq!((settings.max_held, settings.admin), (5, Some(AdminAddr::Unix("/run/a".into()))));
    assert_eq!(settings.log, LogConfig { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(settings.access_log, AccessLog::Off);
}

#[test]
fn settings_of_peers_are_a_table() {
    let text = "admin-host = [\"a\", \"b\"]\n[peer]\nlisten = 15009\ndial = [\"hub1\", \"hub2:1\"]\n\
                secret-file = \"/s\"\nname = \"web\"\n";
    let file = read(text);
    let mut settings = Settings::default();
    assert_eq!(settings.apply(&file.settings, |_| Place::Built), []);
    assert_eq!(settings.admin_hosts, ["a", "b"]);
    let PeerSettings { listen, dial, secret_file, name, .. } = settings.peer;
    assert_eq!(listen, PeerListen::Addr { ip: None, port: 15009 });
    assert_eq!(dial.iter().map(ToString::to_string).collect::<Vec<_>>(), ["hub1:15008", "hub2:1"]);
    assert_eq!((secret_file, name), (Some("/s".into()), Some("web".to_owned())));
    let place = |line, column| Some(Place::File { path: "a.toml".into(), line, column });
    assert_eq!(file.places.get("peer-secret-file").cloned(), place(5, 15));
    for (text, help) in [
        ("peer = 1", "write `[peer]`"),
        ("peer-listen = ':1'", "write `listen` below `[peer]`"),
        ("[peer]\nlisen = ':1'", "did you mean `listen`?"),
        ("[peer]\nworkers = 1", "write `workers` above the first table"),
        ("[peer]\nlisten = true", "write a string, as in `listen = "),
        ("[peer]\ndial = ['a', 'b:0']", "from 1 to 65535"),
        ("[per]\nlisten = 1", "did you mean `peer`?"),
    ] {
        let found = mistakes(text);
        assert!(found.len() == 1 && found[0].contains(help), "{text}: {found:?}");
    }
}

#[test]
fn routes_of_peers_are_written_as_in_the_grammar() {
    let text = "[[route]]\nlisten = 'peer:redis'\ntarget = 'redis:6379'\npeers = ['web', 'spiffe://td/a']\n\
                [[route]]\nlisten = 6379\ntarget = ['peer://a/redis', 'peer://b/redis']\nidentity = 'redis'\n";
    let routes: Vec<String> = read(text).routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        [
            "peer:redis=redis:6379?peers=web,spiffe://td/a",
            "6379=peer://a/redis,peer://b/redis?identity=redis"
        ]
    );
    let found = mistakes("[[route]]\nlisten = 80\ntarget = 'a'\nidentity = 'b'\npeers = 'c'\n");
    assert!(found[0].starts_with("a.toml:5:9: `peers` is only supported"), "{found:?}");
    let found = mistakes("[[route]]\nlisten = 80\ntarget = 'a'\nidentity = 'b'\n");
    assert!(found[0].starts_with("a.toml:4:1: `identity` has no effect"), "{found:?}");
}

#[test]
fn every_mistake_is_reported_at_its_line_and_column() {
    let text = r#"wrokers = 2
[[route]]
listen = "redis"
targets = "redis:6379"
hodl = "10s"

[[route]]
  listen = 80
  target = ["a:0", "b", "peer://c"]
  hold = 10
"#;
    let found = mistakes(text);
    let starts = [
        "a.toml:1:1: unknown key `wrokers`\n  help: did you mean `workers`?",
        "a.toml:2:1: missing `target` in this route",
        "a.toml:3:10: invalid listener `redis`",
        "a.toml:4:1: unknown key `targets` of a route\n  help: did you mean `target`?",
        "a.toml:5:1: unknown key `hodl` of a route\n  help: did you mean `hold`?",
        "a.toml:9:13: invalid port `0`",
        "a.toml:9:25: missing name of the export in `peer://c`\n  help: write the name under which",
        "a.toml:10:10: missing unit in `10`\n  help: write `10s`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\n{start}");
    }
}

#[test]
fn invalid_toml_is_reported_at_its_position() {
    let found = mistakes("[[route]]\nlisten = \n");
    assert!(found[0].starts_with("a.toml:2:"), "{found:?}");
}

#[test]
fn a_duplicate_listener_names_both_places() {
    let found = mistakes("[[route]]\nlisten = 80\ntarget = 'a'\n[[route]]\nlisten = 80\ntarget = 'b'\n");
    assert!(found[0].starts_with("a.toml:4:1: duplicate listener `80`, first at a.toml:1:1"), "{found:?}");
}

#[test]
fn every_wrong_type_is_explained_by_the_right_one() {
    for (text, help) in [
        ("route = 5", "[[route]]"),
        ("[route]\nlisten = 80\ntarget = 'a'", "[[route]]"),
        ("[[routes]]\nlisten = 80", "[[route]]"),
        ("hold = '1s'", "below a `[[route]]`"),
        ("route = [5]", "[[route]]"),
        ("[[route]]\nlisten = [1, 2]\ntarget = 'a'", "one listener per route"),
        ("[[route]]\nlisten = 80\ntarget = []", "at least one"),
        ("[[route]]\nlisten = 80\ntarget = 5.5", "target = [\"db1"),
        ("[[route]]\nlisten = 80\ntarget = 'a'\nworkers = 1", "above the first"),
        ("[[route]]\nlisten = 80\ntarget = 'a'\nmax-sessions = true", "max-sessions = 100"),
        ("[[route]]\nlisten = 80\ntarget = 'a'\nhold = ['1s']", "hold = \"...\""),
        ("[[route]]\nlisten = 80\ntarget = 'a?hold=1s'", "letters"),
        ("workers = 0x10", "workers = 100"),
    ] {
        let found = mistakes(text);
        assert!(found.iter().any(|mistake| mistake.contains(help)), "{text}: {found:?}");
    }
}

#[test]
fn a_list_may_also_be_one_string_with_commas() {
    let file = read("[[route]]\nlisten = 80\ntarget = 'a, b'\n".replace(", ", ",").as_str());
    assert_eq!(file.routes[0].targets.len(), 2);
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in "(\\[\\[route\\]\\]\n|listen|target|hold| = |[0-9]{1,3}|'[a-z:,]{0,6}'|\n|\\PC){0,20}") {
        let _ = parse_file(Path::new("a.toml"), &text);
    }
}
