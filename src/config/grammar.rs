//! The grammar of a route: `LISTEN=TARGET[,TARGET...][?option=value[&...]]`. Pure.
//!
//! A route that is parsed here prints (`Display` of [`Route`]) as text that parses to the same route: names, hosts and
//! paths are restricted to characters that have no meaning in the grammar.

pub(crate) mod listen;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod target;

use std::str::FromStr;

use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::{Listen, Options, PortRange, Protocol, Route, Target};
pub use options::Author;

/// Parses one route.
///
/// # Errors
///
/// Returns every mistake in the route, each with `place` and a help.
///
/// ```
/// use ambassador::config::grammar::parse_route;
/// use ambassador::diagnostic::Place;
///
/// let place = Place::Argument(1);
/// let route = parse_route("5432=db1,db2:5433?hold=30s", &place).unwrap();
/// assert_eq!(route.to_string(), "5432=db1:5432,db2:5433?hold=30s");
///
/// let mistakes = parse_route("redis=a:0?hodl=1s", &place).unwrap_err();
/// assert_eq!(mistakes.len(), 3);
/// assert_eq!(mistakes[2].to_string(), "argument 1: unknown option `hodl`\n  help: did you mean `hold`?");
/// ```
pub fn parse_route(text: &str, place: &Place) -> Result<Route, Vec<Diagnostic>> {
    let text = text.trim();
    let (listen, rest) = split(text).map_err(|mistake| vec![mistake.at(place)])?;
    let (targets, options) = match rest.split_once('?') {
        Some((targets, options)) => (targets, Some(options)),
        None => (rest, None),
    };
    let mut draft = Draft::new(listen);
    draft.targets(targets);
    if let Some(options) = options {
        draft.mistakes.extend(options::parse_into(
            &mut draft.options,
            options,
            &draft.listen,
            Author::Operator,
        ));
    }
    draft.finish(place)
}

/// Parses the LISTEN part alone, as in the key of a label. A label cannot open a unix socket, whose path could belong to
/// another program.
pub fn parse_listen(text: &str, author: Author, place: &Place) -> Result<Listen, Diagnostic> {
    let listen = listen::parse(text).map_err(|mistake| mistake.at(place))?;
    if author == Author::Label && matches!(listen, Listen::Unix(_)) {
        let mistake = Mistake::new(format!("a label cannot listen on the unix socket `{text}`"))
            .help(format!("listen on a port, or configure the route elsewhere: `{text}=docker://NAME:PORT`"));
        return Err(mistake.at(place));
    }
    if author == Author::Label
        && let Listen::Names { names, .. } = &listen
        && let Some(wildcard) = names.iter().find(|name| name.starts_with('*'))
    {
        let mistake = Mistake::new(format!("a label cannot serve the server names `{wildcard}`"))
            .help(format!("write each name, or configure the route elsewhere: `{text}=docker://NAME:PORT`"));
        return Err(mistake.at(place));
    }
    Ok(listen)
}

/// Returns an error if the ports of `listen`, mapped to those from `port` on, exceed 65535.
pub(crate) fn check_port(port: u16, listen: &Listen) -> Result<(), Mistake> {
    target::check_range(port, &port, listen)
}

/// Parses an endpoint as a source lists it: `host:port`, with a port, or `peer://HOST/NAME`.
pub(crate) fn parse_endpoint(text: &str) -> Result<Target, Mistake> {
    target::endpoint(text)
}

/// Parses the options after the `?` of a route with this listener.
pub fn parse_options(
    text: &str,
    listen: &Listen,
    author: Author,
    place: &Place,
) -> Result<Options, Vec<Diagnostic>> {
    let mut options = Options::named(listen.to_string());
    let mistakes = options::parse_into(&mut options, text, listen, author);
    if mistakes.is_empty() {
        return Ok(options);
    }
    Err(mistakes.into_iter().map(|mistake| mistake.at(place)).collect())
}

/// A route that is being parsed. Parsing continues after a mistake, to report all of them.
struct Draft {
    listen: Listen,
    targets: Vec<Target>,
    options: Options,
    mistakes: Vec<Mistake>,
}

impl Draft {
    fn new(listen: &str) -> Draft {
        let options = Options::named(listen);
        match listen::parse(listen) {
            Ok(listen) => Draft { listen, targets: Vec::new(), options, mistakes: Vec::new() },
            Err(mistake) => {
                Draft { listen: placeholder(), targets: Vec::new(), options, mistakes: vec![mistake] }
            }
        }
    }

    fn targets(&mut self, text: &str) {
        match target::parse_list(text, &self.listen) {
            Ok(targets) => self.targets = targets,
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
    }

    fn finish(self, place: &Place) -> Result<Route, Vec<Diagnostic>> {
        let Draft { listen, targets, options, mut mistakes } = self;
        if mistakes.is_empty() {
            let unused = options::without_effect(&targets, &options);
            mistakes.extend(unused.into_iter().map(|(_, mistake)| mistake));
        }
        if mistakes.is_empty() {
            return Ok(Route { listen, targets, options, origin: place.clone() });
        }
        Err(mistakes.into_iter().map(|mistake| mistake.at(place)).collect())
    }
}

/// Returns a listener in place of an invalid one, so that the rest can be parsed. It is not part of any result.
pub(super) fn placeholder() -> Listen {
    Listen::Inet { protocol: Protocol::Tcp, ip: None, ports: PortRange::single(1) }
}

/// Parses an integer without a sign, which `parse` would accept.
pub(crate) fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn split(text: &str) -> Result<(&str, &str), Mistake> {
    if let Some(white) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(Mistake::new(format!("unexpected {white:?} in `{}`", text.escape_debug())).help(
            "a route is one word; write several routes as several arguments, or in AMBASSADOR_ROUTES",
        ));
    }
    match text.split_once('=') {
        Some((listen, rest)) if !listen.contains('?') => Ok((listen, rest)),
        _ => Err(lone_word(text)),
    }
}

/// Explains a word without `=`, which is likely half of a route, by its missing half.
fn lone_word(text: &str) -> Mistake {
    let word = text.split('?').next().unwrap_or_default();
    let mistake = Mistake::new(format!("invalid route `{text}`: missing `=`"));
    if word.is_empty() {
        return mistake.help("write `LISTEN=TARGET`, as in `6379=redis:6379`");
    }
    match listen::parse(word) {
        Ok(Listen::Peer { .. }) => {
            return mistake.help(format!("add a target: `{word}=HOST:PORT`, as in `peer:redis=redis:6379`"));
        }
        Ok(_) => return mistake.help(format!("add a target: `{word}=HOST`, as in `6379=redis:6379`")),
        Err(_) => {}
    }
    let listener = placeholder();
    match target::parse_list(word, &listener).as_deref() {
        Ok([Target::Host { host, port: 1 }]) => mistake.help(format!(
            "add a listener: `PORT={host}`, as in `6379={host}`; or write the two words `{host} 6379`"
        )),
        Ok([Target::Host { port, .. }, ..]) => mistake.help(format!("add a listener: `{port}={word}`")),
        Ok([Target::Addr(addr), ..]) if addr.port() != 1 => {
            mistake.help(format!("add a listener: `{}={word}`", addr.port()))
        }
        Ok([_, ..]) => mistake.help(format!("add a listener: `PORT={word}`, as in `6379={word}`")),
        _ => mistake.help("write `LISTEN=TARGET[,TARGET...][?option=value[&...]]`, as in `6379=redis:6379`"),
    }
}

#[cfg(test)]
mod tests;
