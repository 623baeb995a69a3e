//! What to say when there is nothing to do: what was looked at, and the ways out.

use std::fmt::Write;
use std::path::Path;

use super::args::RunArgs;
use super::load::{CONFIG, ROUTES};
use super::vars::Vars;
use super::{Config, DockerHost, SOCKET_DEFAULT, docker};

const WAYS_OUT: &str = "\
Since version 29 Docker gives no link variables to linked containers any more. Ways out:
  name the service:             ambassador 6379=redis:6379
  set the variable yourself:    docker run -e REDIS_PORT_6379_TCP=tcp://HOST:6379 ...
  mount Docker's socket, so that links and labels are read from Docker itself:
                                docker run -v /var/run/docker.sock:/var/run/docker.sock:ro ...
  have the daemon give them:    DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1 in dockerd's environment
`ambassador --help` shows all there is.
";

impl Config {
    /// The answer to an empty configuration ([`Config::is_empty`]), several lines of it.
    pub fn nothing_to_do(&self, vars: &Vars) -> String {
        let set = |name| match vars.value(name) {
            Some(_) => "empty",
            None => "not set",
        };
        let mut text = "nothing to do: no route was given, and none was found. Looked at:\n".to_owned();
        for (what, found) in [
            ("the arguments", "no route, no -name".to_owned()),
            (ROUTES, set(ROUTES).to_owned()),
            ("--config, AMBASSADOR_CONFIG", set(CONFIG).to_owned()),
            ("link variables", links(vars)),
            ("Docker", engine(vars)),
        ] {
            let _ = writeln!(text, "  {:<28}  {found}", format!("{what}:"));
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "{warning}");
        }
        text.push_str(WAYS_OUT);
        text
    }
}

fn links(vars: &Vars) -> String {
    format!("none like REDIS_PORT_6379_TCP=tcp://host:6379 among {} variables", vars.iter().count())
}

fn engine(vars: &Vars) -> String {
    match docker::host(&RunArgs::default(), vars) {
        Ok(DockerHost::Unix(path)) if path == Path::new(SOCKET_DEFAULT) => {
            format!("no socket at {SOCKET_DEFAULT}")
        }
        Ok(DockerHost::Unix(path)) => format!("no socket at {}, where DOCKER_HOST says", path.display()),
        Ok(DockerHost::Tcp(address) | DockerHost::Tls { address, .. }) => format!("at {address}"),
        Err(mistake) => mistake.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_what_was_looked_at_and_explains_docker_29() {
        let away = ("DOCKER_HOST", "unix:///nowhere/docker.sock");
        let vars: Vars = [away, ("A_PORT_0_TCP", "tcp://10.0.0.2:80"), ("AMBASSADOR_ROUTE", "80=a")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let config = crate::config::load(&RunArgs::default(), &vars).unwrap();
        assert!(config.is_empty());
        let text = config.nothing_to_do(&vars);
        for word in [
            "AMBASSADOR_ROUTES:            not set",
            "among 3 variables",
            "no socket at /nowhere/docker.sock",
            "version 29",
            "ambassador 6379=redis:6379",
            "-e REDIS_PORT_6379_TCP=tcp://HOST:6379",
            "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1",
            "variable A_PORT_0_TCP: the name of this link variable has no port",
            "variable AMBASSADOR_ROUTE: this variable is not read\n  help: did you mean AMBASSADOR_ROUTES?",
        ] {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
    }
}
