//! The error message for a configuration without routes: what was read, and how to proceed.

use std::fmt::Write;
use std::path::Path;

use crate::config::args::RunArgs;
use crate::config::vars::Vars;
use crate::config::{CONFIG, Config, DockerHost, ROUTES, SOCKET_DEFAULT, docker_host};

const HELP: &str = "\
Docker does not set link variables since version 29. Choose one of:
  write a route:                ambassador 6379=redis:6379
  set the variable yourself:    docker run -e REDIS_PORT_6379_TCP=tcp://HOST:6379 ...
  mount Docker's socket, so that links and labels are read from Docker:
                                docker run -v /var/run/docker.sock:/var/run/docker.sock:ro ...
  have dockerd set them:        DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1 in its environment
`ambassador --help` lists all options.
";

/// Explains an empty configuration ([`Config::is_empty`]) in several lines.
pub(super) fn message(config: &Config, vars: &Vars) -> String {
    let state = |name| match vars.value(name) {
        Some(_) => "empty",
        None => "not set",
    };
    let mut text = "nothing to do: no routes were given, and none were found in\n".to_owned();
    for (source, found) in [
        ("the arguments", "no route, no -name".to_owned()),
        (ROUTES, state(ROUTES).to_owned()),
        ("--config, AMBASSADOR_CONFIG", state(CONFIG).to_owned()),
        ("link variables", links(vars)),
        ("Docker", docker(vars)),
    ] {
        let _ = writeln!(text, "  {:<28}  {found}", format!("{source}:"));
    }
    for warning in &config.warnings {
        let _ = writeln!(text, "{warning}");
    }
    text.push_str(HELP);
    text
}

fn links(vars: &Vars) -> String {
    format!("none like REDIS_PORT_6379_TCP=tcp://host:6379 among {} variables", vars.iter().count())
}

fn docker(vars: &Vars) -> String {
    match docker_host(&RunArgs::default(), vars) {
        Ok(DockerHost::Unix(path)) if path == Path::new(SOCKET_DEFAULT) => {
            format!("no socket at {SOCKET_DEFAULT}")
        }
        Ok(DockerHost::Unix(path)) => format!("no socket at {} (DOCKER_HOST)", path.display()),
        Ok(DockerHost::Tcp(address) | DockerHost::Tls { address, .. }) => format!("at {address}"),
        Err(mistake) => mistake.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_lists_what_was_read_and_explains_docker_29() {
        let away = ("DOCKER_HOST", "unix:///nowhere/docker.sock");
        let vars: Vars = [away, ("A_PORT_0_TCP", "tcp://10.0.0.2:80"), ("AMBASSADOR_ROUTE", "80=a")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let config = crate::config::load(&RunArgs::default(), &vars).unwrap();
        assert!(config.is_empty());
        let text = message(&config, &vars);
        for word in [
            "AMBASSADOR_ROUTES:            not set",
            "among 3 variables",
            "no socket at /nowhere/docker.sock",
            "version 29",
            "ambassador 6379=redis:6379",
            "-e REDIS_PORT_6379_TCP=tcp://HOST:6379",
            "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1",
            "variable A_PORT_0_TCP: invalid port `0` in the name of this link variable",
            "variable AMBASSADOR_ROUTE: this variable is not read\n  help: did you mean AMBASSADOR_ROUTES?",
        ] {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
    }
}
