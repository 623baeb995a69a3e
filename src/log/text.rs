//! The fields of a text line, written with less effort than tracing's own formatters take: half the instructions for a line of
//! eleven fields, by callgrind.

use std::cell::Cell;
use std::fmt::{self, Arguments, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::escape::Escaping;

/// `message name=value name="a value"`, as logfmt (<https://brandur.org/logfmt>), without a character that would end the line
/// or command a terminal. A value with a blank, a quote or `=` is quoted, with `\"` and `\\` in it.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer: Escaping(writer), is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Escaping<Writer<'w>>,
    is_first: bool,
    result: fmt::Result,
}

/// A longer value is not kept for the next line.
const SCRATCH_BYTES_MAX: usize = 4096;

thread_local! {
    /// A value before it is known whether it must be quoted.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

impl Visitor<'_> {
    /// Writes a value that has no blank, or the message.
    fn bare(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_ok() {
            self.result = self.name(field).and_then(|()| write!(self.writer, "{value:?}"));
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        if self.result.is_ok() {
            self.result = self.name(field).and_then(|()| write_value(&mut self.writer.0, text));
        }
    }

    fn name(&mut self, field: &Field) -> fmt::Result {
        if !std::mem::replace(&mut self.is_first, false) {
            self.writer.write_char(' ')?;
        }
        if field.name() == "message" {
            return Ok(());
        }
        self.writer.write_str(field.name())?;
        self.writer.write_char('=')
    }
}

impl Visit for Visitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            return self.bare(field, value);
        }
        if self.result.is_ok() {
            let written = self
                .name(field)
                .and_then(|()| write_formatted(&mut self.writer.0, format_args!("{value:?}")));
            self.result = written;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.bare(field, &value);
    }
}

/// As [`write_value`], of a value that is not a string.
pub(super) fn write_formatted(to: &mut impl Write, value: Arguments<'_>) -> fmt::Result {
    let mut text = SCRATCH.try_with(Cell::take).unwrap_or_default();
    text.clear();
    text.write_fmt(value)?;
    let written = write_value(to, &text);
    if text.capacity() <= SCRATCH_BYTES_MAX {
        let _ = SCRATCH.try_with(|scratch| scratch.set(text));
    }
    written
}

/// Escaped, and in quotes where it could be misread without.
pub(super) fn write_value(to: &mut impl Write, text: &str) -> fmt::Result {
    // Nearly all values.
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=')) {
        return to.write_str(text);
    }
    let mut to = Escaping(to);
    if !needs_quotes(text) {
        return to.write_str(text);
    }
    to.write_char('"')?;
    for part in text.split_inclusive(['"', '\\']) {
        let before = part.trim_end_matches(['"', '\\']);
        to.write_str(before)?;
        for special in part.get(before.len()..).unwrap_or_default().chars() {
            to.write_char('\\')?;
            to.write_char(special)?;
        }
    }
    to.write_char('"')
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.bytes().any(|byte| byte <= b' ' || matches!(byte, b'"' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::captured::Lines;

    fn written(log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let made = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(Fields)
            .with_writer(move || made.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        lines.text()
    }

    #[test]
    fn values_are_written_bare_where_nothing_in_them_could_be_misread() {
        let line = written(|| {
            tracing::info!(route = %"a", text = "b", bytes = 7_u64, ms = 12.4, held = 0.0, is = true, n = -3, "session");
        });
        assert_eq!(line, " INFO session route=a text=b bytes=7 ms=12.4 held=0.0 is=true n=-3\n");
        assert_eq!(
            written(|| tracing::warn!("alone {}, with \"quotes\"", 1)),
            " WARN alone 1, with \"quotes\"\n"
        );
    }

    #[test]
    fn values_with_blanks_quotes_or_equals_signs_are_quoted_on_one_line() {
        for (value, expected) in [
            ("10.0.0.2:6379 (redis)", r#"v="10.0.0.2:6379 (redis)""#),
            ("80=a:80", r#"v="80=a:80""#),
            (r#"say "hi""#, r#"v="say \"hi\"""#),
            (r"C:\a b", r#"v="C:\\a b""#),
            (r"C:\a", r"v=C:\a"),
            ("", r#"v="""#),
            ("a\nb", r#"v="a\nb""#),
            ("a\u{1b}[2J b\u{202e}", r#"v="a\u{1b}[2J b\u{202e}""#),
        ] {
            assert_eq!(written(|| tracing::info!(v = %value, "m")), format!(" INFO m {expected}\n"));
            assert_eq!(written(|| tracing::info!(v = value, "m")), format!(" INFO m {expected}\n"));
        }
    }
}
