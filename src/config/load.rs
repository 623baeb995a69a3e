//! Reads arguments, environment and file into one [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::args::RunArgs;
use super::conflicts::conflicts;
use super::file::{CERTIFICATE, ConfigFile, parse_file};
use super::grammar::parse_route;
use super::grammar::target::port_of;
use super::peer::PeerSettings;
use super::read::{is_own_descriptor, read_pipe, read_text, unreadable};
use super::settings::{self, SETTINGS, Setting, SettingValues, Settings, variable_name};
use super::suggest::nearest;
use super::vars::Vars;
use super::{AdminAddr, Config, ConsulConfig, LogConfig, LogFormat, consul, docker, etcd, links};
use crate::diagnostic::{Diagnostic, Mistake, Mistakes, Place};
use crate::route::{Layer, Route};

pub(crate) const ROUTES: &str = "AMBASSADOR_ROUTES";
pub(crate) const CONFIG: &str = "AMBASSADOR_CONFIG";

/// The subcommands, which a lone first argument may have been meant to be.
pub(crate) const COMMANDS: [&str; 19] = [
    "ca",
    "check",
    "completions",
    "dashboard",
    "demo",
    "drain",
    "events",
    "health",
    "man",
    "pause",
    "peer",
    "register",
    "resume",
    "routes",
    "sessions",
    "status",
    "switch",
    "top",
    "weight",
];

/// Reads everything that can be read without network access. Returns every mistake at once.
///
/// An empty configuration is not a mistake here: see [`Config::is_empty`].
pub fn load(args: &RunArgs, vars: &Vars) -> Result<Config, Vec<Diagnostic>> {
    let mut mistakes = Mistakes::default();
    let routes = WrittenRoutes::read(args, vars, &mut mistakes);
    let (settings, invalid) = resolve(args, vars, &routes.settings);
    if invalid.is_empty() {
        let place = |name: &str| place_of_setting(name, &routes, args, vars);
        mistakes.partial(((), peer_mistakes(&settings.peer, &routes, place)));
        mistakes.partial(((), settings.web.mistakes(place)));
    }
    let settings = mistakes.partial((settings, invalid));
    let (links, mut warnings) = links(args, vars);
    warnings.extend(mistyped_variables(vars));
    let etcd = mistakes.all(etcd::access(vars));
    let consul = consul_config(&routes, vars, &mut mistakes, &mut warnings);
    let docker = mistakes.all(docker::config(args, vars, is_explicit(args, vars), routes.want_docker()));
    mistakes.into_result()?;

    let WrittenRoutes { arguments, environment, file, .. } = routes;
    Ok(Config {
        arguments,
        environment,
        file,
        links,
        path: config_path(args, vars),
        docker: docker.flatten(),
        docker_host: docker::host(args, vars).ok(),
        etcd: etcd.unwrap_or_default(),
        consul,
        settings,
        certificates_of_file: are_certificates_of_file(args, vars),
        runtime_dir: vars.value("XDG_RUNTIME_DIR").map(PathBuf::from),
        warnings,
    })
}

/// Parses the address of an admin API, for the subcommands that connect to it.
pub fn parse_admin(text: &str, place: &Place) -> Result<AdminAddr, Diagnostic> {
    settings::admin(text).map_err(|mistake| mistake.at(place))
}

/// Returns the settings of the log, for a subcommand that has no others.
pub(crate) fn log_config(
    level: Option<&str>,
    format: Option<&str>,
    vars: &Vars,
) -> Result<LogConfig, Vec<Diagnostic>> {
    let given = [("log-level", level), ("log-format", format)];
    let of_log = |setting: &Setting| given.iter().any(|(name, _)| *name == setting.name);
    let flags = given.into_iter().filter_map(|(name, value)| Some((Setting::find(name)?, value?.to_owned())));
    let variables = variables(vars).into_iter().filter(|(setting, _)| of_log(setting)).collect();
    let (settings, mistakes) = merged(&flags.collect(), &variables, &Vec::new());
    if mistakes.is_empty() { Ok(settings.log) } else { Err(mistakes) }
}

/// Returns the settings of the credentials for peers, for a subcommand that has no others.
pub(crate) fn peer_settings(flags: &SettingValues, vars: &Vars) -> Result<PeerSettings, Vec<Diagnostic>> {
    let variables = variables(vars).into_iter().filter(|(setting, _)| setting.is_credential()).collect();
    let (settings, mut mistakes) = merged(flags, &variables, &Vec::new());
    let place = |name: &str| match flags.iter().any(|(setting, _)| setting.name == name) {
        true => Place::Flag(name.to_owned()),
        false => Place::Variable(variable_name(name)),
    };
    mistakes.extend(settings.peer.mistakes(place));
    if mistakes.is_empty() { Ok(settings.peer) } else { Err(mistakes) }
}

/// Returns the format of the log for a configuration with mistakes, from the sources that can be read.
pub fn log_format(args: &RunArgs, vars: &Vars) -> LogFormat {
    let path = config_path(args, vars).filter(|path| !is_own_descriptor(path));
    let file = path.and_then(|path| read_file(&path).ok()).unwrap_or_default();
    resolve(args, vars, &file.settings).0.log.format
}

// === routes ===

/// The routes of the arguments, of `AMBASSADOR_ROUTES` and of the file; and the settings of the file, which is read only
/// once.
struct WrittenRoutes {
    arguments: Layer,
    environment: Layer,
    file: Layer,
    settings: SettingValues,
    /// The places of the settings of the file.
    places: BTreeMap<&'static str, Place>,
}

impl WrittenRoutes {
    fn read(args: &RunArgs, vars: &Vars, mistakes: &mut Mistakes) -> WrittenRoutes {
        let arguments = mistakes.partial(arguments(args));
        let environment = mistakes.partial(environment(vars));
        let file = config_path(args, vars).and_then(|path| mistakes.all(read_file(&path)));
        let ConfigFile { routes: file, settings, places } = file.unwrap_or_default();
        WrittenRoutes {
            arguments: Layer { routes: arguments },
            environment: Layer { routes: environment },
            file: Layer { routes: file },
            settings,
            places,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Route> + Clone {
        [&self.arguments, &self.environment, &self.file].into_iter().flat_map(|layer| &layer.routes)
    }

    fn want_docker(&self) -> bool {
        self.iter().any(Route::wants_docker)
    }
}

/// Returns whether a source of routes was selected. Otherwise link variables and Docker are tried.
fn is_explicit(args: &RunArgs, vars: &Vars) -> bool {
    let environment = vars.value(ROUTES).is_some_and(|text| !text.trim().is_empty());
    environment || !args.routes.is_empty() || !args.name.is_empty() || config_path(args, vars).is_some()
}

fn config_path(args: &RunArgs, vars: &Vars) -> Option<PathBuf> {
    args.config.clone().or_else(|| vars.value(CONFIG).map(PathBuf::from))
}

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

/// Parses the routes of one source. Returns those that are valid, and the mistakes of the others.
fn routes(words: &[&str], place: impl Fn(usize) -> Place) -> (Vec<Route>, Vec<Diagnostic>) {
    let joined = host_and_port(words);
    let words = joined.as_deref().map_or_else(|| words.to_vec(), |joined| vec![joined]);
    let mut mistakes = Mistakes::default();
    let parsed = words.into_iter().enumerate().map(|(n, word)| parse_route(word, &place(n)));
    let routes: Vec<Route> = parsed.filter_map(|route| mistakes.all(route)).collect();
    let mut mistakes = mistakes.into_result().err().unwrap_or_default();
    mistakes.extend(conflicts(&routes));
    (routes, mistakes)
}

/// Returns the two arguments `HOST PORT` of svendowideit/ambassador as a route.
fn host_and_port(words: &[&str]) -> Option<String> {
    let [host, port] = words else { return None };
    let port = port_of(port).ok().filter(|_| !host.contains('='))?;
    let bare_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    Some(if bare_ipv6 { format!("{port}=[{host}]:{port}") } else { format!("{port}={host}:{port}") })
}

fn read_file(path: &Path) -> Result<ConfigFile, Vec<Diagnostic>> {
    let text = if is_own_descriptor(path) { read_pipe(path) } else { read_text(path) };
    parse_file(path, &text.map_err(|error| vec![unreadable(path, &error)])?)
}

fn links(args: &RunArgs, vars: &Vars) -> (Layer, Vec<Diagnostic>) {
    if !args.links && is_explicit(args, vars) {
        return (Layer::default(), Vec::new());
    }
    let (routes, warnings) = links::links(vars);
    (Layer { routes }, warnings)
}

// === settings ===

/// Resolves the settings by precedence: flags, then variables, then the file, then the defaults.
fn resolve(args: &RunArgs, vars: &Vars, file: &SettingValues) -> (Settings, Vec<Diagnostic>) {
    merged(&args.settings.0, &variables(vars), file)
}

fn are_certificates_of_file(args: &RunArgs, vars: &Vars) -> bool {
    let is_certificate = |(setting, _): &(&Setting, String)| setting.name == CERTIFICATE;
    !args.settings.0.iter().chain(&variables(vars)).any(is_certificate)
}

fn merged(
    flags: &SettingValues,
    variables: &SettingValues,
    file: &SettingValues,
) -> (Settings, Vec<Diagnostic>) {
    let mut settings = Settings::default();
    // No mistakes: `parse_file` has checked the values.
    settings.apply(file, |_| Place::Built);
    let of_variables = settings.apply(variables, |setting| Place::Variable(setting.variable()));
    let mut mistakes = settings.apply(flags, |setting| Place::Flag(setting.name.to_owned()));
    mistakes.extend(of_variables);
    (settings, mistakes)
}

fn variables(vars: &Vars) -> SettingValues {
    let given = |setting: &'static Setting| Some((setting, vars.value(&setting.variable())?.to_owned()));
    // A link to a container named `ambassador_peer` sets the variable of `peer-name` to `/CONTAINER/ambassador_peer`.
    let is_link =
        |(setting, value): &(&Setting, String)| setting.name == "peer-name" && value.starts_with('/');
    SETTINGS.iter().filter_map(given).filter(|given| !is_link(given)).collect()
}

/// Warns about variables that are nearly those of a setting. Not mistakes: the variables of a link to a container named
/// `ambassador` have the same prefix.
fn mistyped_variables(vars: &Vars) -> Vec<Diagnostic> {
    let settings = SETTINGS.iter().map(|setting| setting.name);
    let known: Vec<&str> = ["routes", "config"].into_iter().chain(settings).chain(etcd::KEYS).collect();
    let mistyped = |name: &str| {
        let key = name.strip_prefix("AMBASSADOR_")?.to_lowercase().replace('_', "-");
        // `AMBASSADOR_ADMIN_PORT`, of a link to a container named `ambassador_admin`, is near `admin-host`.
        let near = nearest(&key, &known).filter(|near| *near != key && !key.ends_with("-port"))?;
        let mistake = Mistake::new("this variable is not read");
        let help = format!("did you mean {}?", variable_name(near));
        Some(mistake.help(help).at(&Place::Variable(name.to_owned())))
    };
    vars.iter().filter_map(|(name, _)| mistyped(name)).collect()
}

/// Returns where the value of a setting was written.
fn place_of_setting(name: &str, routes: &WrittenRoutes, args: &RunArgs, vars: &Vars) -> Place {
    if args.settings.0.iter().any(|(setting, _)| setting.name == name) {
        return Place::Flag(name.to_owned());
    }
    let variable = variable_name(name);
    match vars.value(&variable) {
        Some(_) => Place::Variable(variable),
        None => routes.places.get(name).cloned().unwrap_or(Place::Built),
    }
}

// === peers ===

/// Returns the mistakes in the settings of peers, and of the routes that they do not permit.
fn peer_mistakes(
    settings: &PeerSettings,
    routes: &WrittenRoutes,
    place: impl Fn(&str) -> Place,
) -> Vec<Diagnostic> {
    let mut mistakes = settings.mistakes(place);
    mistakes.extend(settings.refusals(routes.iter()));
    mistakes.extend(settings.overlaps(routes.iter()));
    mistakes
}

// === registries ===

/// An invalid variable of Consul is a mistake where a route depends on it, and else a warning.
fn consul_config(
    routes: &WrittenRoutes,
    vars: &Vars,
    mistakes: &mut Mistakes,
    warnings: &mut Vec<Diagnostic>,
) -> ConsulConfig {
    let (config, mistake) = consul::consul(vars);
    if routes.iter().any(Route::wants_default_consul) {
        return mistakes.partial((config, mistake.into_iter().collect()));
    }
    warnings.extend(mistake);
    config
}

#[cfg(test)]
mod tests;
