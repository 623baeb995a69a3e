//! The configuration as a table and as JSON, and its mistakes, for `ambassador check` and `/config`. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use super::table::aligned;
use crate::config::peer::PeerSettings;
use crate::config::{Config, DockerConfig, DockerHost};
use crate::diagnostic::{Diagnostic, Place};
use crate::ordered::CollectOrdered;
use crate::route::{Options, Route, Shadowed, Target, merge};

/// Returns the routes as a table. A route that is hidden by another names it.
pub fn table(config: &Config) -> String {
    let (routes, shadowed) = merged(config);
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(routes.iter().map(|route| row(route, String::new())));
    rows.extend(shadowed.iter().map(|Shadowed { route, by }| row(route, format!("hidden by {by}"))));
    let peers = peers(&config.settings.peer, &routes);
    let has_routes = rows.len() > 1;
    let mut text = if has_routes { aligned(&rows) } else { "no routes are written\n".to_owned() };
    if let Some(docker) = &config.docker {
        let adds = if has_routes { " adds" } else { ", which `check` does not ask, adds" };
        let _ = writeln!(text, "Docker at {}{adds} {}", host(&docker.host), from_docker(docker).join(", "));
    }
    if let Some(peers) = peers {
        let _ = writeln!(text, "{peers}");
    }
    for warning in &config.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// Returns the routes and the settings as JSON.
pub fn json(config: &Config) -> Value {
    let (routes, shadowed) = merged(config);
    let hidden = |Shadowed { route, by }: &Shadowed| {
        let mut value = route_json(route);
        value["hidden_by"] = by.to_string().into();
        value
    };
    let mut value = json!({
        "routes": routes.iter().map(route_json).collect::<Vec<_>>(),
        "hidden": shadowed.iter().map(hidden).collect::<Vec<_>>(),
        "file": config.path.as_ref().map(|path| path.display().to_string()),
        "docker": config.docker.as_ref().map(|docker| json!({
            "host": host(&docker.host),
            "names": docker.names,
            "implicit": docker.implicit,
            "share_labels": docker.share_labels,
        })),
        "warnings": config.warnings.iter().map(diagnostic_json).collect::<Vec<_>>(),
    });
    for (name, setting) in config.settings.shown() {
        value[name] = setting;
    }
    value
}

/// Returns the mistakes as text or as JSON, each with its place and help.
pub fn mistakes(mistakes: &[Diagnostic], json: bool) -> String {
    if json {
        let all: Vec<Value> = mistakes.iter().map(diagnostic_json).collect();
        return format!("{:#}\n", json!({ "mistakes": all }));
    }
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

fn merged(config: &Config) -> (Vec<Route>, Vec<Shadowed>) {
    let layers = [&config.arguments, &config.environment, &config.file, &config.links].map(Clone::clone);
    let (table, mut shadowed) = merge(&layers);
    shadowed.sort_by(|a, b| (&a.route.listen, &a.route.origin).cmp(&(&b.route.listen, &b.route.origin)));
    (table.into_values().collect(), shadowed)
}

const HEAD: [&str; 6] = ["NAME", "LISTEN", "TARGETS", "OPTIONS", "FROM", ""];

fn row(route: &Route, note: String) -> [String; 6] {
    let Route { listen, targets, options, origin } = route;
    let pairs = written(options).into_iter().map(|(key, value)| format!("{key}={value}"));
    [
        options.name.clone(),
        listen.to_string(),
        targets.iter().map(Target::to_string).collect::<Vec<_>>().join(","),
        pairs.collect::<Vec<_>>().join("&"),
        origin.to_string(),
        note,
    ]
}

/// Returns the options that differ from the defaults. The name has a column of its own.
fn written(options: &Options) -> Vec<(&'static str, String)> {
    options.differing(&Options::named(options.name.clone()))
}

fn host(host: &DockerHost) -> String {
    match host {
        DockerHost::Unix(path) => path.display().to_string(),
        DockerHost::Tcp(address) => format!("tcp://{address}"),
        DockerHost::Tls { address, verify: true, .. } => format!("tcp://{address} (TLS)"),
        DockerHost::Tls { address, verify: false, .. } => format!("tcp://{address} (TLS, not verified)"),
    }
}

/// Describes the tunnels; `None` without credentials for peers.
fn peers(settings: &PeerSettings, routes: &[Route]) -> Option<String> {
    let PeerSettings { dial, secret_file, cert, .. } = settings;
    let credentials = match (secret_file, cert) {
        (Some(file), _) => format!("the secret in {}", file.display()),
        (None, Some(file)) => format!("the certificate in {}", file.display()),
        (None, None) => return None,
    };
    let listen = match settings.listener(routes.iter()) {
        Some(listen) => format!("listening on {listen}"),
        None => "not listening".to_owned(),
    };
    let dial: Vec<String> = dial.iter().map(ToString::to_string).collect();
    let dial = if dial.is_empty() { String::new() } else { format!(", dialling {}", dial.join(", ")) };
    Some(format!("peers: {listen}{dial}, with {credentials}"))
}

fn from_docker(docker: &DockerConfig) -> Vec<String> {
    let mut adds: Vec<String> =
        docker.names.iter().map(|name| format!("every exposed port of container {name}")).collect();
    if docker.implicit {
        adds.push("labelled containers".to_owned());
        adds.push("this container's links".to_owned());
    }
    if adds.is_empty() {
        adds.push("the endpoints of docker:// targets".to_owned());
    }
    adds
}

fn route_json(route: &Route) -> Value {
    let Route { listen, targets, options, origin } = route;
    let pairs: serde_json::Map<String, Value> =
        written(options).into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect_ordered();
    json!({
        "name": options.name,
        "listen": listen.to_string(),
        "targets": targets.iter().map(Target::to_string).collect::<Vec<_>>(),
        "options": pairs,
        "route": route.to_string(),
        "from": origin.to_string(),
    })
}

fn diagnostic_json(diagnostic: &Diagnostic) -> Value {
    let Diagnostic { place, message, help } = diagnostic;
    let mut value = json!({ "place": place.to_string(), "message": message, "help": help });
    if let Place::File { path, line, column } = place {
        value["file"] = path.display().to_string().into();
        value["line"] = (*line).into();
        value["column"] = (*column).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::grammar::parse_route;
    use crate::route::Layer;

    fn layer(lines: &[&str], origin: &Place) -> Layer {
        Layer { routes: lines.iter().map(|line| parse_route(line, origin).unwrap()).collect() }
    }

    fn config() -> Config {
        let mut config = Config::with_routes(Vec::new());
        config.arguments = layer(&["6379=redis", "80=a,b?name=web&hold=30s&backup=c,d"], &Place::Argument(1));
        let place = Place::File { path: "a.toml".into(), line: 3, column: 1 };
        config.file = layer(&["127.0.0.1:80=x"], &place);
        config
    }

    #[test]
    fn the_table_is_sorted_and_shows_hidden_routes() {
        let mut config = config();
        config.docker = Some(DockerConfig {
            host: DockerHost::Unix("/d.sock".into()),
            names: vec!["fpm".to_owned()],
            implicit: true,
            share_labels: false,
        });
        config.warnings = vec![Diagnostic::new(Place::Variable("A_PORT_0_TCP".to_owned()), "no port")];
        let expected = "\
NAME          LISTEN        TARGETS     OPTIONS                         FROM
web           80            a:80,b:80   backup=c:80,d:80&hold=30s  argument 1
6379          6379          redis:6379                                    argument 1
127.0.0.1:80  127.0.0.1:80  x:80                                          a.toml:3:1  hidden by argument 1
Docker at /d.sock adds every exposed port of container fpm, labelled containers, this container's links
warning: variable A_PORT_0_TCP: no port
";
        let squeeze = |text: &str| {
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let table = table(&config);
        assert_eq!(squeeze(&table), squeeze(expected), "{table}");
        let column = |line: &str, word: &str| line.find(word).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(column(lines[0], "TARGETS"), column(lines[2], "redis:6379"), "{table}");
    }

    #[test]
    fn the_table_of_no_routes_is_a_sentence() {
        assert_eq!(table(&Config::with_routes(Vec::new())), "no routes are written\n");
    }

    #[test]
    fn the_json_has_what_the_table_has() {
        let value = json(&config());
        assert_eq!(value["routes"][0]["name"], "web");
        assert_eq!(value["routes"][0]["options"]["backup"], "c:80,d:80");
        assert_eq!(value["routes"][0]["route"], "80=a:80,b:80?name=web&backup=c:80,d:80&hold=30s");
        assert_eq!(value["routes"][1]["targets"][0], "redis:6379");
        assert_eq!(value["hidden"][0]["hidden_by"], "argument 1");
        assert_eq!(value["drain_timeout"], "9s");
        assert_eq!(value["access_log"], "all");
        assert_eq!(value["admin"], Value::Null);
    }

    #[test]
    fn mistakes_are_shown_as_text_and_as_json() {
        let place = Place::File { path: "a.toml".into(), line: 3, column: 8 };
        let all = [Diagnostic::new(place, "wrong").help("do it right")];
        assert_eq!(mistakes(&all, false), "a.toml:3:8: wrong\n  help: do it right\n");
        let value: Value = serde_json::from_str(&mistakes(&all, true)).unwrap();
        assert_eq!(value["mistakes"][0]["line"], 3);
        assert_eq!(value["mistakes"][0]["help"], "do it right");
    }
}
