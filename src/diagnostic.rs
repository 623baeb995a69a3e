//! Mistakes in the configuration: where, what, and how to fix them. Pure.

use std::fmt;
use std::path::PathBuf;

/// The place where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The n-th argument, starting at 1.
    Argument(usize),
    /// A flag, without its dashes.
    Flag(String),
    /// An environment variable, by name.
    Variable(String),
    /// A position in a file.
    File {
        /// The file, as it was given.
        path: PathBuf,
        /// Starts at 1.
        line: usize,
        /// Starts at 1.
        column: usize,
    },
    /// A file as a whole.
    Path(PathBuf),
    /// A label of a container.
    Label {
        /// The name of the container.
        container: String,
        /// The key of the label.
        label: String,
    },
    /// A link of this container, as Docker reports it: `redis:db`.
    Link(String),
    /// A container given by `-name`.
    Name(String),
    /// A command of the operator.
    Operator,
    /// The program itself.
    Built,
}

/// A mistake without its place, as returned by parsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong: lower case, without a full stop, values in backquotes.
    pub message: String,
    /// How to fix the mistake, in one sentence.
    pub help: Option<String>,
}

/// A mistake with its place. Displayed as `place: message`, and the help on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where the mistake was written.
    pub place: Place,
    /// What is wrong, as in [`Mistake::message`].
    pub message: String,
    /// How to fix the mistake, in one sentence.
    pub help: Option<String>,
}

impl Mistake {
    /// Returns a mistake without help.
    pub fn new(message: impl Into<String>) -> Mistake {
        Mistake { message: message.into(), help: None }
    }

    /// Adds a help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Mistake {
        self.help = Some(help.into());
        self
    }

    /// Adds the place.
    pub fn at(self, place: &Place) -> Diagnostic {
        let Mistake { message, help } = self;
        Diagnostic { place: place.clone(), message, help }
    }
}

/// Converts one mistake to a list in `?`.
impl From<Mistake> for Vec<Mistake> {
    fn from(mistake: Mistake) -> Vec<Mistake> {
        vec![mistake]
    }
}

impl Diagnostic {
    /// Returns a diagnostic without help.
    pub fn new(place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { place, message: message.into(), help: None }
    }

    /// Adds a help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Returns the diagnostic on one line, for logs.
    pub fn one_line(&self) -> String {
        let Diagnostic { place, message, help } = self;
        match help {
            Some(help) => format!("{place}: {message} ({help})"),
            None => format!("{place}: {message}"),
        }
    }
}

/// Collects diagnostics while the rest is read, so that all of them are reported at once.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Diagnostic>);

impl Mistakes {
    /// Returns a value that was read as far as it is valid, and keeps the mistakes in the rest.
    pub(crate) fn partial<T>(&mut self, (value, mistakes): (T, Vec<Diagnostic>)) -> T {
        self.0.extend(mistakes);
        value
    }

    /// Returns the value, or `None` and keeps the mistake.
    pub(crate) fn one<T>(&mut self, read: Result<T, Diagnostic>) -> Option<T> {
        self.all(read.map_err(|mistake| vec![mistake]))
    }

    /// Returns the value, or `None` and keeps the mistakes.
    pub(crate) fn all<T>(&mut self, read: Result<T, Vec<Diagnostic>>) -> Option<T> {
        read.map_err(|mistakes| self.0.extend(mistakes)).ok()
    }

    /// Returns the mistakes as an error, if there are any.
    pub(crate) fn into_result(self) -> Result<(), Vec<Diagnostic>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Argument(n) => write!(f, "argument {n}"),
            Place::Flag(name) => write!(f, "--{name}"),
            Place::Variable(name) => write!(f, "variable {name}"),
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Label { container, label } => write!(f, "container {container}, label {label}"),
            Place::Link(link) => write!(f, "link {link}"),
            Place::Name(name) => write!(f, "-name {name}"),
            Place::Operator => f.write_str("operator"),
            Place::Built => f.write_str("built in"),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_on_a_line_of_its_own() {
        let place = Place::File { path: "amb.toml".into(), line: 3, column: 8 };
        let diagnostic = Mistake::new("unknown option `hodl`").help("did you mean `hold`?").at(&place);
        assert_eq!(
            diagnostic.to_string(),
            "amb.toml:3:8: unknown option `hodl`\n  help: did you mean `hold`?"
        );
    }

    #[test]
    fn every_place_is_displayed() {
        let label = Place::Label { container: "db".to_owned(), label: "ambassador.listen.80".to_owned() };
        for (place, shown) in [
            (Place::Argument(2), "argument 2"),
            (Place::Flag("workers".to_owned()), "--workers"),
            (Place::Variable("AMBASSADOR_ROUTES".to_owned()), "variable AMBASSADOR_ROUTES"),
            (Place::Path("/etc/amb.toml".into()), "/etc/amb.toml"),
            (label, "container db, label ambassador.listen.80"),
            (Place::Link("redis:db".to_owned()), "link redis:db"),
            (Place::Name("redis".to_owned()), "-name redis"),
            (Place::Operator, "operator"),
            (Place::Built, "built in"),
        ] {
            assert_eq!(place.to_string(), shown);
        }
    }
}
