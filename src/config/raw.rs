//! The configuration file as it is written: TOML with the option names of the grammar.

use std::path::Path;

use crate::diagnostic::Diagnostic;
use crate::route::Route;

/// Reads a whole file; every mistake at once, each with line and column.
pub fn parse_file(_path: &Path, _text: &str) -> Result<Vec<Route>, Vec<Diagnostic>> {
    Ok(Vec::new())
}
