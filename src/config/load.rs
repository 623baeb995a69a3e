//! Arguments, environment and file, read into one [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::args::RunArgs;
use super::conflicts::conflicts;
use super::etcd::EtcdAccess;
use super::grammar::parse_route;
use super::grammar::target::{container_name, port_of};
use super::nearest::nearest;
use super::raw::{RawFile, parse_file};
use super::settings::{self, Settings};
use super::vars::Vars;
use super::{
    AdminAddr, Config, DRAIN_TIMEOUT_DEFAULT, DockerConfig, DockerHost, LogConfig, LogFormat,
    MAX_HELD_DEFAULT, consul, docker, etcd,
};
use crate::cluster::outlier::MAX_EJECTED_DEFAULT;
use crate::config::dns::Limits;
use crate::config::links;
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::regular;
use crate::route::{Layer, Route};

/// A route is 50 bytes, or 300 with options; ten thousand of them fit. What is larger is some other file.
const FILE_SIZE_MAX_BYTES: usize = 4 << 20;

pub(super) const ROUTES: &str = "AMBASSADOR_ROUTES";
pub(super) const CONFIG: &str = "AMBASSADOR_CONFIG";

/// Commands of ours that a lone first word may have been meant for.
const COMMANDS: [&str; 15] = [
    "check",
    "completions",
    "demo",
    "drain",
    "events",
    "health",
    "man",
    "pause",
    "register",
    "resume",
    "routes",
    "sessions",
    "status",
    "switch",
    "weight",
];

/// Reads everything that can be read without asking the network. Every mistake at once.
///
/// An empty configuration is not a mistake here: see [`Config::is_empty`].
pub fn load(args: &RunArgs, vars: &Vars) -> Result<Config, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let mut keep = |found: Vec<Diagnostic>| mistakes.extend(found);

    let (arguments, found) = arguments(args);
    keep(found);
    let (environment, found) = environment(vars);
    keep(found);
    let path = config_path(args, vars);
    let file = path.as_deref().map_or(Ok(RawFile::default()), read_file);
    let file = file.unwrap_or_else(|found| {
        keep(found);
        RawFile::default()
    });
    let (flags, found) = flag_settings(args);
    keep(found);
    let (variables, found) = variable_settings(vars);
    keep(found);
    let (names, found) = names(args);
    keep(found);

    let etcd = etcd::access(vars).unwrap_or_else(|found| {
        keep(found);
        EtcdAccess::default()
    });

    let words = vars.value(ROUTES).is_some_and(|text| !text.trim().is_empty());
    let explicit = !args.routes.is_empty() || words || path.is_some() || !args.name.is_empty();
    let (links, mut warnings) =
        if args.links || !explicit { links::links(vars) } else { (Vec::new(), Vec::new()) };
    warnings.extend(mistyped_variables(vars));
    let written = [&arguments, &environment, &file.routes];
    let containers = written.into_iter().flatten().any(Route::wants_docker);
    let (consul, mistake) = consul::consul(vars);
    if written.into_iter().flatten().any(Route::wants_default_consul) {
        keep(mistake.into_iter().collect());
    } else {
        warnings.extend(mistake);
    }
    let docker = docker_config(args, vars, names, explicit, containers).unwrap_or_else(|mistake| {
        keep(vec![mistake]);
        None
    });
    if !mistakes.is_empty() {
        return Err(mistakes);
    }

    let RawFile { routes: file, settings: in_file } = file;
    let Settings {
        workers,
        drain_timeout,
        max_held,
        max_ejected,
        dns_max_ttl,
        dns_stale,
        dns_nx_stale,
        admin,
        admin_hosts,
        log_level,
        log_format,
        access_log,
    } = flags.or(variables).or(in_file);
    let dns = Limits::default();
    Ok(Config {
        arguments: Layer { routes: arguments },
        environment: Layer { routes: environment },
        file: Layer { routes: file },
        links: Layer { routes: links },
        path,
        docker,
        docker_host: docker::host(args, vars).ok(),
        etcd,
        workers: workers.unwrap_or_else(cores),
        drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
        max_held: max_held.unwrap_or(MAX_HELD_DEFAULT),
        max_ejected: max_ejected.unwrap_or(MAX_EJECTED_DEFAULT),
        dns: Limits {
            max_ttl: dns_max_ttl.unwrap_or(dns.max_ttl),
            stale: dns_stale.unwrap_or(dns.stale),
            nx_stale: dns_nx_stale.unwrap_or(dns.nx_stale),
        },
        consul,
        admin,
        admin_hosts: admin_hosts.unwrap_or_default(),
        runtime_dir: vars.value("XDG_RUNTIME_DIR").map(PathBuf::from),
        log: LogConfig { level: log_level.unwrap_or_default(), format: log_format.unwrap_or_default() },
        access_log: access_log.unwrap_or_default(),
        warnings,
    })
}

/// An admin address alone, for the commands that speak to a running ambassador.
pub fn parse_admin(text: &str, place: &Place) -> Result<AdminAddr, Diagnostic> {
    settings::admin(text).map_err(|mistake| mistake.at(place))
}

/// The log's settings alone, for a command that has no other.
pub(crate) fn log_config(
    level: Option<&str>,
    format: Option<&str>,
    vars: &Vars,
) -> Result<LogConfig, Vec<Diagnostic>> {
    let given = [("log-level", level), ("log-format", format)].into_iter();
    let given = given.filter_map(|(key, value)| Some((key, value?)));
    let (flags, mut mistakes) = settings_of(given, |key| Place::Flag(key.to_owned()));
    let variables = ["log-level", "log-format"].into_iter();
    let variables = variables.filter_map(|key| Some((key, vars.value(&variable_name(key))?)));
    let (variables, wrong) = settings_of(variables, |key| Place::Variable(variable_name(key)));
    mistakes.extend(wrong);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let Settings { log_level, log_format, .. } = flags.or(variables);
    Ok(LogConfig { level: log_level.unwrap_or_default(), format: log_format.unwrap_or_default() })
}

/// The format of the log where the configuration was refused: by the flag, the variable, or a file without a mistake.
pub fn log_format(args: &RunArgs, vars: &Vars) -> LogFormat {
    let ((flags, _), (variables, _)) = (flag_settings(args), variable_settings(vars));
    let path = config_path(args, vars).filter(|path| !is_own_descriptor(path));
    let in_file = path.and_then(|path| read_file(&path).ok()).unwrap_or_default().settings;
    flags.or(variables).or(in_file).log_format.unwrap_or_default()
}

fn config_path(args: &RunArgs, vars: &Vars) -> Option<PathBuf> {
    args.config.clone().or_else(|| vars.value(CONFIG).map(PathBuf::from))
}

// === routes ===

fn arguments(args: &RunArgs) -> (Vec<Route>, Vec<Diagnostic>) {
    let words: Vec<&str> = args.routes.iter().map(String::as_str).collect();
    let (routes, mut mistakes) = routes(&words, |n| Place::Argument(n + 1));
    if let (Some(word), Some(first)) = (words.first(), mistakes.first_mut())
        && first.place == Place::Argument(1)
        && !word.contains('=')
        && let Some(command) = nearest(word, &COMMANDS)
    {
        first.help = Some(format!("did you mean the command `{command}`? A route is `6379=redis:6379`"));
    }
    (routes, mistakes)
}

fn environment(vars: &Vars) -> (Vec<Route>, Vec<Diagnostic>) {
    let words: Vec<&str> = vars.value(ROUTES).unwrap_or_default().split_whitespace().collect();
    routes(&words, |_| Place::Variable(ROUTES.to_owned()))
}

/// One source's routes: those that can be read, and what is wrong with the others.
fn routes(words: &[&str], place: impl Fn(usize) -> Place) -> (Vec<Route>, Vec<Diagnostic>) {
    let joined = two_words(words);
    let words = joined.as_deref().map_or_else(|| words.to_vec(), |joined| vec![joined]);
    let mut routes = Vec::new();
    let mut mistakes = Vec::new();
    for (n, word) in words.into_iter().enumerate() {
        match parse_route(word, &place(n)) {
            Ok(route) => routes.push(route),
            Err(found) => mistakes.extend(found),
        }
    }
    mistakes.extend(conflicts(&routes));
    (routes, mistakes)
}

/// svendowideit's `HOST PORT` as a route.
fn two_words(words: &[&str]) -> Option<String> {
    let [host, port] = words else { return None };
    let port = port_of(port).ok().filter(|_| !host.contains('='))?;
    let bare_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    Some(if bare_ipv6 { format!("{port}=[{host}]:{port}") } else { format!("{port}={host}:{port}") })
}

fn read_file(path: &Path) -> Result<RawFile, Vec<Diagnostic>> {
    let text = if is_own_descriptor(path) { read_pipe(path) } else { read_text(path) };
    parse_file(path, &text.map_err(|error| vec![unreadable(path, &error)])?)
}

/// A regular file alone, and never blocks on anything else at its path.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    utf8(regular::read(path, FILE_SIZE_MAX_BYTES)?)
}

/// A shell's `<(...)` and `-` by its longer name: whoever started us opened it, and waits until it is read. It can be read
/// once.
pub(crate) fn is_own_descriptor(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd")
}

fn read_pipe(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_SIZE_MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > FILE_SIZE_MAX_BYTES {
        return Err(io::Error::other(format!("larger than {FILE_SIZE_MAX_BYTES} bytes")));
    }
    utf8(text)
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        io::ErrorKind::IsADirectory => {
            "Docker makes a directory of a mounted file that the host does not have: look there"
        }
        io::ErrorKind::NotFound => "check the path; in a container the file must be mounted",
        io::ErrorKind::PermissionDenied => "let our user read it",
        _ => "it must be a regular file of UTF-8 text",
    };
    Diagnostic::new(Place::Path(path.to_owned()), format!("cannot be read: {error}")).help(help)
}

// === settings ===

fn flag_settings(args: &RunArgs) -> (Settings, Vec<Diagnostic>) {
    let values = [
        ("workers", &args.workers),
        ("drain-timeout", &args.drain_timeout),
        ("max-held", &args.max_held),
        ("max-ejected", &args.max_ejected),
        ("dns-max-ttl", &args.dns_max_ttl),
        ("dns-stale", &args.dns_stale),
        ("dns-nx-stale", &args.dns_nx_stale),
        ("admin", &args.admin),
        ("admin-host", &args.admin_host),
        ("log-level", &args.log_level),
        ("log-format", &args.log_format),
        ("access-log", &args.access_log),
    ];
    let given = values.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    settings_of(given, |key| Place::Flag(key.to_owned()))
}

fn variable_settings(vars: &Vars) -> (Settings, Vec<Diagnostic>) {
    let given = settings::KEYS.into_iter().filter_map(|key| Some((key, vars.value(&variable_name(key))?)));
    settings_of(given, |key| Place::Variable(variable_name(key)))
}

fn settings_of<'a>(
    given: impl Iterator<Item = (&'a str, &'a str)>,
    place: impl Fn(&str) -> Place,
) -> (Settings, Vec<Diagnostic>) {
    let mut settings = Settings::default();
    let mut mistakes = Vec::new();
    for (key, value) in given {
        if let Err(mistake) = settings.set(key, value) {
            mistakes.push(mistake.at(&place(key)));
        }
    }
    (settings, mistakes)
}

fn variable_name(key: &str) -> String {
    format!("AMBASSADOR_{}", key.to_uppercase().replace('-', "_"))
}

/// Variables of ours by all but a letter. Only a warning: links to a container called `ambassador` begin alike.
pub(super) fn mistyped_variables(vars: &Vars) -> Vec<Diagnostic> {
    let known: Vec<&str> = ["routes", "config"].into_iter().chain(settings::KEYS).chain(etcd::KEYS).collect();
    let mistyped = |name: &str| {
        let key = name.strip_prefix("AMBASSADOR_")?.to_lowercase().replace('_', "-");
        // That of a link to a container called `ambassador_admin`, and near `admin-host`.
        let near = nearest(&key, &known).filter(|near| *near != key && !key.ends_with("-port"))?;
        let mistake = Mistake::new("this variable is not read");
        let help = format!("did you mean {}?", variable_name(near));
        Some(mistake.help(help).at(&Place::Variable(name.to_owned())))
    };
    vars.iter().filter_map(|(name, _)| mistyped(name)).collect()
}

// === Docker ===

fn names(args: &RunArgs) -> (Vec<String>, Vec<Diagnostic>) {
    let mut names = Vec::new();
    let mut mistakes = Vec::new();
    for text in &args.name {
        match container_name(text) {
            Ok(name) if names.contains(&name) => {}
            Ok(name) => names.push(name),
            Err(mistake) => mistakes.push(mistake.at(&Place::Name(text.clone()))),
        }
    }
    (names, mistakes)
}

/// Docker where something asks for it, whether or not it answers now; and where nothing asks for anything, if it is
/// within reach.
fn docker_config(
    args: &RunArgs,
    vars: &Vars,
    names: Vec<String>,
    explicit: bool,
    containers: bool,
) -> Result<Option<DockerConfig>, Diagnostic> {
    let asked = args.docker || !names.is_empty() || containers;
    let host = match docker::host(args, vars) {
        Ok(host) => host,
        Err(mistake) if asked || args.sock.is_some() => return Err(mistake),
        Err(_) => return Ok(None),
    };
    let within_reach = match &host {
        DockerHost::Unix(path) => path.exists(),
        DockerHost::Tcp(_) | DockerHost::Tls { .. } => true,
    };
    let wanted = asked || (!explicit && within_reach);
    let implicit = args.docker || !explicit;
    Ok(wanted.then_some(DockerConfig { host, names, implicit, share_labels: args.share_labels }))
}

/// One worker per core we may use.
pub(super) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests;
