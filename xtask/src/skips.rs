//! The tests that were skipped, with reasons: one table at the end.

use std::fs;
use std::path::Path;

/// Pairs `(what, why)`. Tests append them to a file, separated by a tab.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Skips(Vec<(String, String)>);

impl Skips {
    pub(crate) fn add(&mut self, what: &str, why: impl Into<String>) {
        self.0.push((what.to_owned(), why.into()));
    }

    /// Reads the skips that the tests wrote to the file.
    pub(crate) fn read(&mut self, file: &Path) {
        let text = fs::read_to_string(file).unwrap_or_default();
        self.0.extend(parse(&text));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Formats the table, sorted, each test once.
    pub(crate) fn table(&self) -> String {
        let mut rows = self.0.clone();
        rows.sort();
        rows.dedup();
        let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
        let lines = rows.iter().map(|(what, why)| format!("  {what:width$}  {why}\n"));
        format!("skipped: {}\n{}", rows.len(), lines.collect::<String>())
    }
}

fn parse(text: &str) -> Vec<(String, String)> {
    let split = |line: &str| line.split_once('\t').map(|(what, why)| (what.to_owned(), why.to_owned()));
    text.lines().filter_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lists_each_skip_once_with_its_reason() {
        let skips = Skips(parse("b::two\tno root\na\tno docker\nb::two\tno root\n"));
        assert_eq!(skips.table(), "skipped: 2\n  a       no docker\n  b::two  no root\n");
    }

    #[test]
    fn line_without_reason_is_ignored() {
        assert_eq!(parse("half a line\n"), []);
    }
}
