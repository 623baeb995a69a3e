//! Text that others wrote, made fit for a terminal and for a log of one line an event. Pure.
//!
//! Labels, keys of a registry, answers of a health check and names of containers are in what we print. A line feed in them would
//! forge a line of the log, an escape sequence would command the terminal (CWE-117, CWE-150), and a bidirectional control
//! would show another text than the one that is there (CVE-2021-42574).

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The same text, with `\n`, `\u{1b}` and the like for characters that a terminal interprets instead of showing.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    // Writing into a string does not fail.
    let _ = Escaping(&mut escaped).write_str(text);
    Cow::Owned(escaped)
}

/// The same for a text of several lines, of which the ends of lines stay.
pub fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// Escapes what is written through it.
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly all that is written.
        if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return self.0.write_str(text);
        }
        let mut rest = text;
        while let Some((at, odd)) = rest.char_indices().find(|(_, c)| is_control(*c)) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            write!(self.0, "{}", odd.escape_default())?;
            rest = after.get(odd.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(is_control)
}

/// Controls (C0, DEL, C1), separators of lines and paragraphs, and controls of the direction of writing.
fn is_control(c: char) -> bool {
    let is_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_direction || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_escaped() {
        for (text, expected) in [
            (
                "plain, r\u{e9}sum\u{e9}, \u{65e5}\u{672c}, \u{1f980}",
                "plain, r\u{e9}sum\u{e9}, \u{65e5}\u{672c}, \u{1f980}",
            ),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            ("\u{1b}[2J\u{7}\u{0}\u{7f}", "\\u{1b}[2J\\u{7}\\u{0}\\u{7f}"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            ("a\u{202e}b\u{2066}c\u{2028}d\u{200f}", "a\\u{202e}b\\u{2066}c\\u{2028}d\\u{200f}"),
        ] {
            assert_eq!(escaped(text), expected);
        }
        assert_eq!(escaped_lines("a\n\u{1b}b\n"), "a\n\\u{1b}b\n");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_control_is_left_and_nothing_else_is_touched(text in "(\\PC|\\pC|[\\n\\r\\t ]){0,40}") {
            let shown = escaped(&text);
            assert!(!shown.chars().any(is_control));
            assert_eq!(shown == text, is_plain(&text));
        }
    }
}
