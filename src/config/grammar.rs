//! The route in one line: `LISTEN=TARGET[,TARGET...][?option=value[&...]]`. Pure.
//!
//! Whatever is read here prints as a line that reads the same (`Display` of [`Route`]): names, hosts and paths keep to
//! characters that no part of the grammar uses, and anything else is a mistake with a way out.

pub(crate) mod listen;
pub(crate) mod options;
pub(crate) mod target;

use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::{Listen, Options, PortRange, Protocol, Route, Target};
pub use options::Author;

/// Reads one route; every mistake in it at once.
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

/// Reads the LISTEN part alone, as labels have it in their key. A label opens no unix socket: its path may be another
/// program's.
pub fn parse_listen(text: &str, author: Author, place: &Place) -> Result<Listen, Diagnostic> {
    let listen = listen::parse(text).map_err(|mistake| mistake.at(place))?;
    if author == Author::Label && matches!(listen, Listen::Unix(_)) {
        let mistake = Mistake::new(format!("a label cannot listen on the unix socket `{text}`")).help(
            format!("listen on a port, or let the operator write the route: `{text}=docker://NAME:PORT`"),
        );
        return Err(mistake.at(place));
    }
    Ok(listen)
}

/// Checks that every port of `listen` leads to a port, where the first leads to `port`.
pub(crate) fn check_port(port: u16, listen: &Listen) -> Result<(), Mistake> {
    target::check_range(port, &port, listen)
}

/// Reads `host:port` where no listener could lend a port.
pub(crate) fn parse_address(text: &str) -> Result<Target, Mistake> {
    target::address(text)
}

/// Reads what stands after the `?`, for a listener's route.
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

/// A route being read: goes on after a mistake, to find the others.
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
                Draft { listen: stand_in(), targets: Vec::new(), options, mistakes: vec![mistake] }
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
        let Draft { listen, targets, options, mistakes } = self;
        if mistakes.is_empty() {
            return Ok(Route { listen, targets, options, origin: place.clone() });
        }
        Err(mistakes.into_iter().map(|mistake| mistake.at(place)).collect())
    }
}

/// Stands for a listener that could not be read, while the rest of the line is. Never leaves this module.
pub(crate) fn stand_in() -> Listen {
    Listen::Inet { protocol: Protocol::Tcp, ip: None, ports: PortRange::single(1) }
}

fn split(text: &str) -> Result<(&str, &str), Mistake> {
    if let Some(white) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(Mistake::new(format!("`{}` holds {white:?}", text.escape_debug()))
            .help("a route is one word; give several as several arguments, or in AMBASSADOR_ROUTES"));
    }
    match text.split_once('=') {
        Some((listen, rest)) if !listen.contains('?') => Ok((listen, rest)),
        _ => Err(lone_word(text)),
    }
}

/// A word without `=`: half a route, most likely. Says which half is missing.
fn lone_word(text: &str) -> Mistake {
    let word = text.split('?').next().unwrap_or_default();
    let mistake = Mistake::new(format!("`{text}` is no route: `=` is missing"));
    if word.is_empty() {
        return mistake.help("write `LISTEN=TARGET`, as in `6379=redis:6379`");
    }
    if listen::parse(word).is_ok() {
        return mistake.help(format!("say what stands behind it: `{word}=HOST`, as in `6379=redis:6379`"));
    }
    let listener = stand_in();
    match target::parse_list(word, &listener).as_deref() {
        Ok([Target::Host { host, port: 1 }]) => mistake.help(format!(
            "say where to listen: `PORT={host}`, as in `6379={host}`; or the two words `{host} 6379`"
        )),
        Ok([Target::Host { port, .. }, ..]) => mistake.help(format!("say where to listen: `{port}={word}`")),
        Ok([Target::Addr(addr), ..]) if addr.port() != 1 => {
            mistake.help(format!("say where to listen: `{}={word}`", addr.port()))
        }
        Ok([_, ..]) => mistake.help(format!("say where to listen: `PORT={word}`, as in `6379={word}`")),
        _ => mistake.help("write `LISTEN=TARGET[,TARGET...][?option=value[&...]]`, as in `6379=redis:6379`"),
    }
}

#[cfg(test)]
mod tests;
