//! A mistake in what was asked for: where it is, what is wrong, and the way out.

use std::fmt;
use std::path::PathBuf;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The n-th argument, counted from 1.
    Argument(usize),
    /// An environment variable, by name.
    Variable(String),
    /// A position in a file; line and column count from 1.
    File { path: PathBuf, line: usize, column: usize },
    /// A whole file, when it cannot be read.
    Path(PathBuf),
    /// A container's label.
    Label { container: String, label: String },
    /// A link of this container, as Docker reports it: `redis:db`.
    Link(String),
    /// A container that `-name` follows.
    Name(String),
    /// The program itself: tests, the demo.
    Built,
}

/// One mistake. Printed as `place: message`, then the way out on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub place: Place,
    pub message: String,
    /// What to write instead. One sentence.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn new(place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic { place, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Argument(n) => write!(f, "argument {n}"),
            Place::Variable(name) => write!(f, "variable {name}"),
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Label { container, label } => write!(f, "container {container}, label {label}"),
            Place::Link(link) => write!(f, "link {link}"),
            Place::Name(name) => write!(f, "-name {name}"),
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
