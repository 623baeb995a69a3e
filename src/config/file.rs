//! The configuration file: TOML with the option names of the grammar. Holds what was written, without defaults.
//!
//! ```toml
//! drain-timeout = "30s"
//!
//! [[route]]
//! listen = 5432
//! target = ["db1:5432", "db2:5432"]
//! hold = "30s"
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::conflicts::conflicts;
use super::grammar::{self, listen, options, target};
use super::settings::{SETTINGS, Setting, SettingValues, certificates};
use super::suggest::{nearest, suggest};
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::{Listen, Options, Route};
use crate::tls::CertificateFiles;

/// The tables of certificates, and of the settings of peers.
pub(crate) const CERTIFICATE: &str = "certificate";
const PEER: &str = "peer";

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// Sorted by their position in the file.
    pub routes: Vec<Route>,
    /// Their values are valid.
    pub settings: SettingValues,
    /// The place of each setting.
    pub places: BTreeMap<&'static str, Place>,
}

impl ConfigFile {
    /// Returns the certificates.
    pub fn certificates(&self) -> Vec<CertificateFiles> {
        let written = self.settings.iter().find(|(setting, _)| setting.name == CERTIFICATE);
        written.and_then(|(_, text)| certificates(text).ok()).unwrap_or_default()
    }
}

/// Parses a file.
///
/// # Errors
///
/// Returns every mistake, each with line and column, in the order of the file.
pub fn parse_file(path: &Path, text: &str) -> Result<ConfigFile, Vec<Diagnostic>> {
    let mut reader = Reader { path, text, lines: lines(text), mistakes: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or_default();
        reader.wrong(span, Mistake::new(format!("invalid TOML: {}", error.message().trim())));
    }
    // After a syntax error, the recovered table would cause misleading mistakes.
    let file = if reader.mistakes.is_empty() { reader.file(table.get_ref()) } else { ConfigFile::default() };
    reader.mistakes.extend(conflicts(&file.routes));
    reader.mistakes.sort_by(|a, b| a.place.cmp(&b.place));
    if reader.mistakes.is_empty() { Ok(file) } else { Err(reader.mistakes) }
}

/// The state of parsing one file.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// The offset of each line.
    lines: Vec<usize>,
    mistakes: Vec<Diagnostic>,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn file(&mut self, table: &DeTable<'_>) -> ConfigFile {
        let mut file = ConfigFile::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if name == "route" {
                file.routes = self.routes(value);
            } else if name == CERTIFICATE && value.get_ref().is_array() {
                self.certificates(&mut file, value);
            } else if name == PEER {
                self.peer(&mut file, value);
            } else if let Some(setting) = at_top(name) {
                self.setting(&mut file, setting, value);
            } else {
                self.wrong(key.span(), unknown_at_top(name));
            }
        }
        file.routes.sort_by(|a, b| a.origin.cmp(&b.origin));
        file
    }

    /// Reads the table `[peer]`.
    fn peer(&mut self, file: &mut ConfigFile, value: &Value<'_>) {
        let Some(table) = value.get_ref().as_table() else {
            let mistake = Mistake::new("`peer` must be a table")
                .help("write `[peer]`, and below it keys such as `secret-file = \"/etc/ambassador/secret\"`");
            return self.wrong(value.span(), mistake);
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match SETTINGS.iter().find(|setting| setting.table_key() == Some(name)) {
                Some(setting) => self.setting(file, setting, value),
                None => self.wrong(key.span(), unknown_of_peer(name)),
            }
        }
    }

    /// Reads the tables `[[certificate]]`.
    fn certificates(&mut self, file: &mut ConfigFile, value: &Value<'_>) {
        let (before, mut words) = (self.mistakes.len(), Vec::new());
        for item in value.get_ref().as_array().into_iter().flat_map(|array| array.iter()) {
            match self.certificate(item) {
                Some(word) => words.push(word),
                None if self.mistakes.len() == before => self.wrong(item.span(), certificate_form()),
                None => {}
            }
        }
        if let Some(setting) = Setting::find(CERTIFICATE)
            && self.mistakes.len() == before
        {
            file.places.insert(setting.name, self.place(value.span()));
            file.settings.push((setting, words.join(",")));
        }
    }

    /// Returns a certificate in the syntax of `--certificate`.
    fn certificate(&mut self, item: &Value<'_>) -> Option<String> {
        let table = item.get_ref().as_table()?;
        let text =
            |key| table.get(key).and_then(|value| value.get_ref().as_str()).filter(|text| !text.is_empty());
        let is_known = |key: &str| matches!(key, "name" | "cert" | "key");
        if let Some((key, _)) = table.iter().find(|(key, _)| !is_known(key.get_ref())) {
            let name = key.get_ref().as_ref();
            let mistake = Mistake::new(format!("unknown key `{name}` of `[[{CERTIFICATE}]]`"));
            self.wrong(key.span(), mistake.help(suggest(name, &["name", "cert", "key"])));
            return None;
        }
        let (name, cert) = (text("name")?, text("cert")?);
        let key = match table.get("key") {
            Some(_) => format!(",{}", text("key")?),
            None => String::new(),
        };
        let word = format!("{name}={cert}{key}");
        let mistake = Setting::find(CERTIFICATE)?.check(&word).err();
        if let Some(mistake) = mistake {
            self.wrong(item.span(), mistake);
            return None;
        }
        Some(word)
    }

    fn setting(&mut self, file: &mut ConfigFile, setting: &'static Setting, value: &Value<'_>) {
        let mut words = Vec::new();
        for (word, span) in self.words(setting.name, value) {
            match setting.check(&word) {
                Ok(()) => words.push(word),
                Err(mistake) => self.wrong(span, mistake),
            }
        }
        if !words.is_empty() {
            file.places.insert(setting.name, self.place(value.span()));
            file.settings.push((setting, words.join(",")));
        }
    }

    fn routes(&mut self, value: &Value<'_>) -> Vec<Route> {
        let Some(array) = value.get_ref().as_array() else {
            let mistake =
                Mistake::new("`route` must be a list of tables").help("start each route with `[[route]]`");
            self.wrong(value.span(), mistake);
            return Vec::new();
        };
        array.iter().filter_map(|item| self.route(item)).collect()
    }

    fn route(&mut self, item: &Value<'_>) -> Option<Route> {
        let before = self.mistakes.len();
        let Some(table) = item.get_ref().as_table() else {
            let mistake = Mistake::new("a route must be a table").help("start each route with `[[route]]`");
            self.wrong(item.span(), mistake);
            return None;
        };
        let (listen, name) = self.listen(item, table);
        let targets = self.targets(item, table, &listen);
        let mut options = Options::named(name);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "listen" | "target" => {}
                name => self.option(&mut options, name, key.span(), value, &listen),
            }
        }
        if self.mistakes.len() == before {
            for (name, mistake) in options::without_effect(&targets, &options) {
                let span = table.get_key_value(name).map_or_else(|| item.span(), |(key, _)| key.span());
                self.wrong(span, mistake);
            }
        }
        let origin = self.place(item.span());
        (self.mistakes.len() == before).then_some(Route { listen, targets, options, origin })
    }

    /// Returns the listener and its text, or a placeholder, so that the rest of the table can be parsed.
    fn listen(&mut self, item: &Value<'_>, table: &DeTable<'_>) -> (Listen, String) {
        let Some(value) = table.get("listen") else {
            self.wrong(
                item.span(),
                Mistake::new("missing `listen` in this route").help("add `listen = 6379`"),
            );
            return (grammar::placeholder(), String::new());
        };
        for (word, span) in self.words("listen", value) {
            match listen::parse(&word) {
                Ok(listen) => return (listen, word),
                Err(mistake) => self.wrong(span, mistake),
            }
        }
        (grammar::placeholder(), String::new())
    }

    fn targets(
        &mut self,
        item: &Value<'_>,
        table: &DeTable<'_>,
        listen: &Listen,
    ) -> Vec<crate::route::Target> {
        let mut targets = Vec::new();
        let Some(value) = table.get("target") else {
            let mistake =
                Mistake::new("missing `target` in this route").help("add `target = \"redis:6379\"`");
            self.wrong(item.span(), mistake);
            return targets;
        };
        if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            self.wrong(value.span(), Mistake::new("`target` is empty").help("write at least one target"));
        }
        for (word, span) in self.words("target", value) {
            match target::parse_list(&word, listen) {
                Ok(found) => targets.extend(found),
                Err(mistakes) => mistakes.into_iter().for_each(|mistake| self.wrong(span.clone(), mistake)),
            }
        }
        let mut once = Vec::new();
        targets.retain(|target| {
            let new = !once.contains(target);
            once.push(target.clone());
            new
        });
        targets
    }

    fn option(
        &mut self,
        options: &mut Options,
        name: &str,
        key: Range<usize>,
        value: &Value<'_>,
        listen: &Listen,
    ) {
        if options::key(name).is_none() {
            return self.wrong(key, unknown_in_route(name));
        }
        for (word, span) in self.words(name, value) {
            let mistakes = options::set(options, name, &word, listen).err().unwrap_or_default();
            mistakes.into_iter().for_each(|mistake| self.wrong(span.clone(), mistake));
        }
    }

    /// Returns the words of a value: one for a string or a number, several for a list if the key takes one.
    fn words(&mut self, key: &str, value: &Value<'_>) -> Vec<(String, Range<usize>)> {
        let takes_list = key == "target"
            || options::key(key).is_some_and(|option| option.is_list)
            || Setting::find(key).is_some_and(Setting::is_list);
        match value.get_ref() {
            DeValue::Array(array) if takes_list => {
                array.iter().filter_map(|item| self.word(key, item)).collect()
            }
            _ => self.word(key, value).into_iter().collect(),
        }
    }

    fn word(&mut self, key: &str, value: &Value<'_>) -> Option<(String, Range<usize>)> {
        let word = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            other => {
                let mistake =
                    Mistake::new(format!("`{}` cannot be {}", written(key), kind(other))).help(form(key));
                self.wrong(value.span(), mistake);
                return None;
            }
        };
        Some((word, value.span()))
    }

    fn wrong(&mut self, span: Range<usize>, mistake: Mistake) {
        let place = self.place(span);
        self.mistakes.push(mistake.at(&place));
    }

    fn place(&self, span: Range<usize>) -> Place {
        let at = span.start.min(self.text.len());
        let line = self.lines.partition_point(|begin| *begin <= at);
        let begin =
            line.checked_sub(1).and_then(|before| self.lines.get(before)).copied().unwrap_or_default();
        let column = self.text.get(begin..at).unwrap_or_default().chars().count() + 1;
        Place::File { path: self.path.to_owned(), line, column }
    }
}

/// Returns the offset of each line. Computed once, since every route has a place.
fn lines(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn unknown_at_top(name: &str) -> Mistake {
    let mistake = Mistake::new(format!("unknown key `{name}`"));
    if name == "routes" || name == "listen" || name == "target" {
        return mistake.help("start each route with `[[route]]`");
    }
    if options::key(name).is_some() {
        return mistake.help(format!("write `{name}` below a `[[route]]`"));
    }
    if let Some(key) = Setting::find(name).and_then(Setting::table_key) {
        return mistake.help(format!("write `{key}` below `[{PEER}]`"));
    }
    let settings = SETTINGS.iter().filter(|setting| setting.table_key().is_none());
    let keys: Vec<&str> = ["route", PEER].into_iter().chain(settings.map(|setting| setting.name)).collect();
    mistake.help(suggest(name, &keys))
}

fn certificate_form() -> Mistake {
    Mistake::new("a certificate needs `name` and `cert`, which are strings")
        .help("write `name = \"web\"`, `cert = \"/etc/ssl/web.crt\"`, and `key` if it is in another file")
}

fn unknown_of_peer(name: &str) -> Mistake {
    let mistake = Mistake::new(format!("unknown key `{name}` of `[{PEER}]`"));
    if at_top(name).is_some() {
        return mistake.help(format!("write `{name}` above the first table"));
    }
    let keys: Vec<&str> = SETTINGS.iter().filter_map(Setting::table_key).collect();
    mistake.help(suggest(name, &keys))
}

/// Returns the setting that is a key outside of tables.
fn at_top(name: &str) -> Option<&'static Setting> {
    Setting::find(name).filter(|setting| setting.table_key().is_none())
}

fn unknown_in_route(name: &str) -> Mistake {
    let mistake = Mistake::new(format!("unknown key `{name}` of a route"));
    if Setting::find(name).is_some() {
        return mistake.help(format!("write `{name}` above the first `[[route]]`"));
    }
    let keys: Vec<&str> = ["listen", "target"].into_iter().chain(options::names()).collect();
    match nearest(name, &["targets", "backend", "upstream", "to"]) {
        Some(_) => mistake.help("did you mean `target`?"),
        None => mistake.help(suggest(name, &keys)),
    }
}

/// Returns a key as the file has it.
fn written(key: &str) -> &str {
    Setting::find(key).and_then(Setting::table_key).unwrap_or(key)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number that is not decimal",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Describes the type of a key's value.
fn form(key: &str) -> String {
    match key {
        "listen" => {
            "write one listener per route, as in `listen = 6379` or `listen = \"127.0.0.1:6379\"`".to_owned()
        }
        "target" => "write `target = \"redis:6379\"` or `target = [\"db1:5432\", \"db2:5432\"]`".to_owned(),
        _ if is_integer(key) => format!("write a whole number, as in `{key} = 100`"),
        _ => format!("write a string, as in `{} = \"...\"`", written(key)),
    }
}

fn is_integer(key: &str) -> bool {
    Setting::find(key).is_some_and(Setting::is_integer)
        || options::key(key).is_some_and(options::Key::is_integer)
}

#[cfg(test)]
mod tests;
