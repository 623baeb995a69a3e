//! The sources of the configuration and their precedence.

use std::time::Duration;

use super::*;
use crate::config::LogLevel;
use crate::config::args::SettingFlags;

fn flag(name: &str, value: &str) -> SettingFlags {
    SettingFlags(vec![(Setting::find(name).unwrap(), value.to_owned())])
}

fn args(routes: &[&str]) -> RunArgs {
    RunArgs { routes: routes.iter().map(|word| (*word).to_owned()).collect(), ..RunArgs::default() }
}

/// Returns an environment in which Docker is not reachable, whether or not it runs on this machine.
fn vars(pairs: &[(&str, &str)]) -> Vars {
    let away = ("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let pairs = std::iter::once(&away).chain(pairs);
    pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(args: &RunArgs, pairs: &[(&str, &str)]) -> Config {
    load(args, &vars(pairs)).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn mistakes(args: &RunArgs, pairs: &[(&str, &str)]) -> Vec<String> {
    load(args, &vars(pairs)).expect_err("should be an error").iter().map(ToString::to_string).collect()
}

fn lines(layer: &Layer) -> Vec<String> {
    layer.routes.iter().map(ToString::to_string).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

const LINK: (&str, &str) = ("REDIS_PORT_6379_TCP", "tcp://10.0.0.2:6379");

#[test]
fn explicit_sources_add_up_each_in_its_layer() {
    let file = file("[[route]]\nlisten = 82\ntarget = 'c'\n");
    let args = RunArgs { config: Some(file.path().into()), ..args(&["80=a"]) };
    let config = read(&args, &[("AMBASSADOR_ROUTES", " 81=b\n 80=z ")]);
    assert_eq!(lines(&config.arguments), ["80=a:80"]);
    assert_eq!(lines(&config.environment), ["81=b:81", "80=z:80"]);
    assert_eq!(lines(&config.file), ["82=c:82"]);
    assert_eq!(config.path.as_deref(), Some(file.path()));
}

#[test]
fn link_variables_are_read_when_nothing_else_is_given_or_when_asked_for() {
    assert_eq!(lines(&read(&args(&[]), &[LINK]).links), ["6379=10.0.0.2:6379"]);
    assert_eq!(lines(&read(&args(&["80=a"]), &[LINK]).links), [""; 0]);
    assert_eq!(lines(&read(&args(&[]), &[LINK, ("AMBASSADOR_ROUTES", "80=a")]).links), [""; 0]);
    let named = RunArgs { name: vec!["redis".to_owned()], ..args(&[]) };
    assert_eq!(lines(&read(&named, &[LINK]).links), [""; 0]);
    let asked = RunArgs { links: true, ..args(&["80=a"]) };
    assert_eq!(lines(&read(&asked, &[LINK]).links), ["6379=10.0.0.2:6379"]);
}

#[test]
fn a_link_variable_that_cannot_be_used_is_a_warning() {
    let config = read(&args(&[]), &[LINK, ("B_PORT_80_TCP", "tcp://")]);
    assert_eq!(config.links.routes.len(), 1);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn no_input_is_an_empty_configuration() {
    assert!(read(&args(&[]), &[]).is_empty());
    assert!(read(&args(&[]), &[("AMBASSADOR_ROUTES", " \n")]).is_empty());
    assert!(!read(&args(&[]), &[LINK]).is_empty());
    assert!(!read(&args(&["80=a"]), &[]).is_empty());
}

#[test]
fn the_two_words_host_and_port_are_a_route() {
    for (words, line) in [
        (["redis.example.com", "6379"], "6379=redis.example.com:6379"),
        (["10.0.0.2", "6379"], "6379=10.0.0.2:6379"),
        (["::1", "6379"], "6379=[::1]:6379"),
        (["docker://redis", "6379"], "6379=docker://redis:6379"),
    ] {
        assert_eq!(lines(&read(&args(&words), &[]).arguments), [line]);
    }
    assert!(mistakes(&args(&["redis", "0"]), &[]).len() == 2);
    assert!(mistakes(&args(&["redis", "6379", "6380"]), &[]).len() == 3);
}

#[test]
fn a_single_word_near_a_command_suggests_the_command() {
    let found = mistakes(&args(&["staus"]), &[]);
    assert!(found[0].contains("did you mean the command `status`?"), "{found:?}");
    let found = mistakes(&args(&["redis"]), &[]);
    assert!(found[0].contains("`PORT=redis`"), "{found:?}");
}

#[test]
fn every_mistake_of_every_source_is_reported_at_once() {
    let file = file("[[route]]\nlisten = 80\n");
    let args = RunArgs {
        config: Some(file.path().into()),
        settings: flag("workers", "0"),
        name: vec!["a b".to_owned()],
        docker: true,
        ..args(&["80=a", "80=b"])
    };
    let found = mistakes(
        &args,
        &[("AMBASSADOR_ROUTES", "x"), ("AMBASSADOR_LOG_LEVEL", "loud"), ("DOCKER_HOST", "ssh://h")],
    );
    let path = file.path().display();
    let starts = [
        "argument 2: duplicate listener `80`".to_owned(),
        "variable AMBASSADOR_ROUTES: ".to_owned(),
        format!("{path}:1:1: missing `target` in this route"),
        "--workers: ".to_owned(),
        "variable AMBASSADOR_LOG_LEVEL: ".to_owned(),
        "-name a b: ".to_owned(),
        "variable DOCKER_HOST: ".to_owned(),
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(&start), "{found}\n{start}");
    }
}

#[test]
fn an_unreadable_file_is_a_mistake_with_the_error_of_the_system() {
    let found = mistakes(&RunArgs { config: Some("/nowhere/a.toml".into()), ..args(&["80=a"]) }, &[]);
    assert!(found[0].starts_with("/nowhere/a.toml: cannot be read: No such file"), "{found:?}");
    let found = mistakes(&args(&[]), &[("AMBASSADOR_CONFIG", "/tmp")]);
    assert!(found[0].contains("Docker creates a directory"), "{found:?}");
}

#[test]
fn flags_take_precedence_over_variables_and_variables_over_the_file() {
    let file = file("workers = 3\nmax-held = 3\nlog-level = 'warn'\nlog-format = 'json'\n");
    let args = RunArgs { config: Some(file.path().into()), settings: flag("workers", "1"), ..args(&[]) };
    let config = read(&args, &[("AMBASSADOR_WORKERS", "2"), ("AMBASSADOR_MAX_HELD", "2")]);
    assert_eq!((config.settings.workers.get(), config.settings.max_held), (1, 2));
    assert_eq!(config.settings.log, LogConfig { level: LogLevel::Warn, format: LogFormat::Json });
    assert_eq!(config.settings.drain_timeout, Duration::from_secs(9));
}

#[test]
fn docker_is_used_if_a_flag_or_a_route_requires_it() {
    let implicit = |config: Config| config.docker.map(|docker| (docker.names, docker.implicit));
    let none: Vec<String> = Vec::new();
    assert_eq!(implicit(read(&args(&["80=a"]), &[])), None);
    assert_eq!(implicit(read(&args(&["80=docker://a"]), &[])), Some((none.clone(), false)));
    assert_eq!(implicit(read(&args(&["80=b?backup=docker://a"]), &[])), Some((none.clone(), false)));
    let named = RunArgs { name: vec!["/a".to_owned(), "a".to_owned()], ..args(&[]) };
    assert_eq!(implicit(read(&named, &[])), Some((vec!["a".to_owned()], false)));
    let asked = RunArgs { docker: true, ..args(&["80=a"]) };
    assert_eq!(implicit(read(&asked, &[])), Some((none.clone(), true)));
}

#[test]
fn without_routes_docker_is_used_if_it_is_reachable() {
    let socket = tempfile::NamedTempFile::new().unwrap();
    let there = RunArgs { sock: Some(socket.path().into()), ..args(&[]) };
    assert!(read(&there, &[]).docker.is_some_and(|docker| docker.implicit));
    assert!(read(&args(&[]), &[("DOCKER_HOST", "tcp://proxy:2375")]).docker.is_some());
    assert!(read(&args(&[]), &[]).docker.is_none());
    assert!(read(&args(&[]), &[("DOCKER_HOST", "ssh://h")]).docker.is_none());
    let there_but_not_wanted = RunArgs { sock: Some(socket.path().into()), ..args(&["80=a"]) };
    assert!(read(&there_but_not_wanted, &[]).docker.is_none());
}

#[test]
fn a_mistyped_variable_is_a_warning_and_a_link_to_an_ambassador_is_not() {
    let config = read(
        &args(&["80=a"]),
        &[
            ("AMBASSADOR_WORKER", "2"),
            ("AMBASSADOR_PORT", "tcp://10.0.0.2:80"),
            ("AMBASSADOR_NAME", "/b/a"),
            ("AMBASSADOR_ADMIN_PORT", "tcp://10.0.0.2:80"),
        ],
    );
    let found: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["variable AMBASSADOR_WORKER: this variable is not read\n  help: did you mean AMBASSADOR_WORKERS?"]
    );
}

#[test]
fn the_admin_address_is_the_flag_or_the_variable() {
    let local = ("AMBASSADOR_ADMIN", "127.0.0.1:9");
    let tcp = AdminAddr::Tcp("127.0.0.1:9".parse().unwrap());
    assert_eq!(read(&args(&["80=a"]), &[local]).settings.admin, Some(tcp));
    let flag = RunArgs { settings: flag("admin", "/run/a"), ..args(&["80=a"]) };
    assert_eq!(read(&flag, &[local]).settings.admin, Some(AdminAddr::Unix("/run/a".into())));
    assert_eq!(parse_admin("unix:/run/a", &Place::Built), Ok(AdminAddr::Unix("/run/a".into())));
    assert!(parse_admin("x", &Place::Built).is_err());
}

#[test]
fn contradictions_of_peer_settings_and_routes_are_mistakes_with_their_places() {
    let file = file("[peer]\nca = '/ca'\ncert = '/cert'\n[[route]]\nlisten = 'peer:a'\ntarget = 'b:1'\n");
    let both = RunArgs {
        config: Some(file.path().into()),
        settings: flag("peer-secret-file", "/s"),
        ..args(&["peer:c=d:1?peers=web"])
    };
    let found = mistakes(&both, &[("AMBASSADOR_PEER_CRL", "/crl")]);
    let path = file.path().display();
    for (found, start) in found.iter().zip([
        format!("{path}:3:8: `peer-cert` cannot be combined with `peer-secret-file`\n  help: "),
        format!("{path}:2:6: `peer-ca` cannot be combined"),
        "variable AMBASSADOR_PEER_CRL: `peer-crl` cannot be combined".to_owned(),
        "argument 1: `peers` of `peer:c` cannot be checked".to_owned(),
    ]) {
        assert!(found.starts_with(&start), "{found}\n{start}");
    }
    assert_eq!(found.len(), 4, "{found:?}");
    let secret = |words| RunArgs { settings: flag("peer-secret-file", "/s"), ..args(words) };
    let found = mistakes(&secret(&["127.0.0.1:15008=a:1", "peer:a=b:1"]), &[]);
    assert!(
        found[0].starts_with("argument 1: `127.0.0.1:15008` overlaps the address on which peers"),
        "{found:?}"
    );
    read(&secret(&["15008=a:1", "80=peer://a/b"]), &[]);
    read(&secret(&["15008=a:1", "peer:a=b:1"]), &[("AMBASSADOR_PEER_LISTEN", ":15009")]);
    let found = mistakes(&args(&["80=peer://a/b", "peer:a=b:1"]), &[("AMBASSADOR_ROUTES", "81=peer://a/b")]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("argument 1: `peer://a/b` needs credentials for peers"), "{found:?}");
    assert!(found[2].contains("--peer-secret-file"), "{found:?}");
}

#[test]
fn export_without_peers_is_refused_once_the_ca_is_known_to_be_foreign() {
    let file = file("[peer]\ncert = '/c'\nca = '/a'\n[[route]]\nlisten = 'peer:a'\ntarget = 'b:1'\n");
    let args = RunArgs { config: Some(file.path().into()), ..args(&["peer:b=b:1?peers=web", "peer:c=b:1"]) };
    let mut config = read(&args, &[]);
    assert_eq!(config.peer_refusals(), []);
    config.settings.peer.has_foreign_ca = true;
    let refused: Vec<String> = config.peer_refusals().iter().map(ToString::to_string).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].starts_with("argument 2: missing `peers` of `peer:c`"), "{refused:?}");
    assert!(refused[1].contains(":4:1: missing `peers` of `peer:a`"), "{refused:?}");
}

#[test]
fn peers_are_configured_by_flags_and_variables() {
    let secret = RunArgs { settings: flag("peer-secret-file", "/s"), ..args(&["peer:a=b:1"]) };
    let config = read(&secret, &[("AMBASSADOR_PEER_DIAL", "hub"), ("AMBASSADOR_PEER_NAME", "web")]);
    assert_eq!(config.settings.peer.dial.len(), 1);
    assert_eq!(config.settings.peer.name.as_deref(), Some("web"));
    let linked = read(&secret, &[("AMBASSADOR_PEER_NAME", "/consumer/ambassador_peer")]);
    assert_eq!(linked.settings.peer.name, None, "the variable of a link");
}
