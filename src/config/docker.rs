//! How Docker is reached: `--sock`, `DOCKER_HOST` and the TLS settings of Docker's own client
//! (<https://docs.docker.com/reference/cli/docker/#environment-variables>).

use std::path::{Path, PathBuf};

use super::args::RunArgs;
use super::grammar::target::container_name;
use super::server::ClientFiles;
use super::vars::Vars;
use super::{DockerConfig, DockerHost};
use crate::diagnostic::{Diagnostic, Mistake, Mistakes, Place};

pub(crate) const SOCKET_DEFAULT: &str = "/var/run/docker.sock";

/// Returns how Docker is used: if a flag or a route requires it, whether or not it is reachable; if no source of routes is
/// selected (`explicit`), when it is reachable.
pub(super) fn config(
    args: &RunArgs,
    vars: &Vars,
    explicit: bool,
    routes_want_it: bool,
) -> Result<Option<DockerConfig>, Vec<Diagnostic>> {
    let mut mistakes = Mistakes::default();
    let names = names(args, &mut mistakes);
    let is_required = args.docker || !args.name.is_empty() || routes_want_it;
    let host = match host(args, vars) {
        Err(_) if !is_required && args.sock.is_none() => None,
        host => mistakes.one(host),
    };
    mistakes.into_result()?;
    let wanted = host.filter(|host| is_required || (!explicit && is_reachable(host)));
    let implicit = args.docker || !explicit;
    Ok(wanted.map(|host| DockerConfig { host, names, implicit, share_labels: args.share_labels }))
}

fn names(args: &RunArgs, mistakes: &mut Mistakes) -> Vec<String> {
    let mut names = Vec::new();
    for text in &args.name {
        let name = container_name(text).map_err(|mistake| mistake.at(&Place::Name(text.clone())));
        names.extend(mistakes.one(name).filter(|name| !names.contains(name)));
    }
    names
}

fn is_reachable(host: &DockerHost) -> bool {
    match host {
        DockerHost::Unix(path) => path.exists(),
        DockerHost::Tcp(_) | DockerHost::Tls { .. } => true,
    }
}

/// Returns the address of the engine, as given by arguments and environment.
pub(crate) fn host(args: &RunArgs, vars: &Vars) -> Result<DockerHost, Diagnostic> {
    let (text, place) = match (&args.sock, vars.value("DOCKER_HOST")) {
        (Some(sock), _) => (sock.to_string_lossy().into_owned(), Place::Flag("sock".to_owned())),
        (None, Some(host)) => (host.to_owned(), Place::Variable("DOCKER_HOST".to_owned())),
        (None, None) => (SOCKET_DEFAULT.to_owned(), Place::Built),
    };
    let tls = Tls::read(args, vars);
    let host = parse(&text, tls.as_ref()).map_err(|mistake| mistake.at(&place))?;
    let is_tls_required = args.tls == Some(true) || args.tlsverify == Some(true);
    if is_tls_required && matches!(host, DockerHost::Unix(_)) {
        let mistake = Mistake::new(format!("TLS is not supported on the socket {text}"))
            .help("remove `--tls`, or set DOCKER_HOST=tcp://host:2376");
        return Err(mistake.at(&Place::Flag("tls".to_owned())));
    }
    Ok(host)
}

/// Parses `unix:///path`, a path, or `tcp://host:port`.
fn parse(text: &str, tls: Option<&Tls>) -> Result<DockerHost, Mistake> {
    if text.starts_with('/') {
        return Ok(DockerHost::Unix(PathBuf::from(text)));
    }
    if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
        return Ok(DockerHost::Unix(PathBuf::from(path)));
    }
    let Some(address) = text.strip_prefix("tcp://").map(|rest| rest.trim_end_matches('/')) else {
        return Err(unsupported(text));
    };
    if address.is_empty() || address.contains('/') {
        return Err(Mistake::new(format!("invalid Docker host `{text}`"))
            .help("write `tcp://host:2375`, without a path"));
    }
    Ok(match tls {
        Some(tls) => tls.host(with_port(address, 2376)),
        None => DockerHost::Tcp(with_port(address, 2375)),
    })
}

fn unsupported(text: &str) -> Mistake {
    let message = match text.split_once("://") {
        Some((scheme, _)) if scheme != "unix" => format!("`{scheme}://` is not supported"),
        _ => format!("invalid Docker host `{text}`"),
    };
    Mistake::new(message).help("write `unix:///var/run/docker.sock` or `tcp://host:2375`")
}

fn with_port(address: &str, port: u16) -> String {
    let after_brackets = address.rsplit(']').next().unwrap_or(address);
    if after_brackets.contains(':') { address.to_owned() } else { format!("{address}:{port}") }
}

#[derive(Clone)]
struct Tls {
    ca: PathBuf,
    client: ClientFiles,
    verify: bool,
}

impl Tls {
    /// Returns `None` without TLS. A flag takes precedence over the variable; `--tlsverify` implies `--tls`.
    fn read(args: &RunArgs, vars: &Vars) -> Option<Tls> {
        let verify = args.tlsverify.unwrap_or_else(|| vars.value("DOCKER_TLS_VERIFY").is_some());
        if !verify && args.tls != Some(true) {
            return None;
        }
        let home = vars.value("HOME").unwrap_or("/root");
        let directory =
            vars.value("DOCKER_CERT_PATH").map_or_else(|| Path::new(home).join(".docker"), PathBuf::from);
        let file = |flag: &Option<PathBuf>, name: &str| flag.clone().unwrap_or_else(|| directory.join(name));
        Some(Tls {
            ca: file(&args.tlscacert, "ca.pem"),
            client: ClientFiles { cert: file(&args.tlscert, "cert.pem"), key: file(&args.tlskey, "key.pem") },
            verify,
        })
    }

    fn host(&self, address: String) -> DockerHost {
        let Tls { ca, client, verify } = self.clone();
        DockerHost::Tls { address, ca, client: Some(client), verify }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(args: &RunArgs, pairs: &[(&str, &str)]) -> DockerHost {
        host(args, &vars(pairs)).unwrap()
    }

    #[test]
    fn the_socket_is_the_flag_or_the_variable_or_the_default() {
        let unix = |path: &str| DockerHost::Unix(path.into());
        let none = RunArgs::default();
        assert_eq!(read(&none, &[]), unix(SOCKET_DEFAULT));
        assert_eq!(read(&none, &[("DOCKER_HOST", "unix:///d.sock")]), unix("/d.sock"));
        let sock = RunArgs { sock: Some("/s.sock".into()), ..RunArgs::default() };
        assert_eq!(read(&sock, &[("DOCKER_HOST", "tcp://h:1")]), unix("/s.sock"));
    }

    #[test]
    fn a_socket_proxy_is_reached_over_tcp() {
        let none = RunArgs::default();
        for (text, expected) in
            [("tcp://proxy:2375", "proxy:2375"), ("tcp://proxy", "proxy:2375"), ("tcp://[::1]", "[::1]:2375")]
        {
            assert_eq!(read(&none, &[("DOCKER_HOST", text)]), DockerHost::Tcp(expected.to_owned()));
        }
    }

    #[test]
    fn tls_is_configured_as_in_dockers_own_client() {
        let tls = |directory: &str, verify| DockerHost::Tls {
            address: "h:2376".to_owned(),
            ca: format!("{directory}/ca.pem").into(),
            client: Some(ClientFiles {
                cert: format!("{directory}/cert.pem").into(),
                key: format!("{directory}/key.pem").into(),
            }),
            verify,
        };
        let none = RunArgs::default();
        let host = ("DOCKER_HOST", "tcp://h");
        let certs = ("DOCKER_CERT_PATH", "/certs");
        assert_eq!(read(&none, &[host, certs, ("DOCKER_TLS_VERIFY", "1")]), tls("/certs", true));
        assert_eq!(read(&none, &[host, certs]), DockerHost::Tcp("h:2375".to_owned()));
        let flag = RunArgs { tls: Some(true), ..RunArgs::default() };
        assert_eq!(read(&flag, &[host, ("HOME", "/h")]), tls("/h/.docker", false));
        let off = RunArgs { tlsverify: Some(false), ..RunArgs::default() };
        assert_eq!(read(&off, &[host, ("DOCKER_TLS_VERIFY", "1")]), DockerHost::Tcp("h:2375".to_owned()));
    }

    #[test]
    fn unsupported_hosts_are_rejected_with_a_help() {
        for text in ["npipe:////./pipe/docker", "ssh://h", "h:2375", "tcp://", "tcp://h/v1", "unix://d.sock"]
        {
            let mistake = host(&RunArgs::default(), &vars(&[("DOCKER_HOST", text)])).expect_err(text);
            assert!(mistake.help.is_some(), "{mistake}");
        }
        let tls = RunArgs { tls: Some(true), ..RunArgs::default() };
        assert!(host(&tls, &Vars::default()).is_err());
    }
}
