//! Text in a rectangle of cells: control characters are escaped, and what does not fit is cut. Pure.

use std::ops::Range;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;

use crate::escape::escaped;

/// A part of the screen.
pub(super) struct Canvas<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
}

/// The side on which text is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl<'b> Canvas<'b> {
    pub(super) fn new(buffer: &'b mut Buffer, area: Rect) -> Canvas<'b> {
        Canvas { buffer, area }
    }

    pub(super) fn width(&self) -> u16 {
        self.area.width
    }

    pub(super) fn height(&self) -> u16 {
        self.area.height
    }

    /// Draws a whole line.
    pub(super) fn line(&mut self, row: u16, text: &str, style: Style) {
        self.cell((0, row, self.area.width), text, style, Align::Left);
    }

    /// Draws text in a column of a row: `(column, row, width)`.
    pub(super) fn cell(
        &mut self,
        (column, row, width): (u16, u16, u16),
        text: &str,
        style: Style,
        align: Align,
    ) {
        if row >= self.area.height || column >= self.area.width {
            return;
        }
        let width = usize::from(width.min(self.area.width - column));
        let text = fitted(&escaped(text), width);
        let shift = match align {
            Align::Left => 0,
            Align::Right => width - text.chars().count().min(width),
        };
        let column = self.area.x + column + u16::try_from(shift).unwrap_or(0);
        self.buffer.set_stringn(column, self.area.y + row, text, width - shift, style);
    }

    /// Draws a line with a title, which separates two parts.
    pub(super) fn rule(&mut self, row: u16, title: &str, style: Style) {
        let title = fitted(&escaped(title), usize::from(self.area.width.saturating_sub(8)));
        let text = format!("── {title} {}", "─".repeat(usize::from(self.area.width)));
        if row < self.area.height {
            self.buffer.set_stringn(
                self.area.x,
                self.area.y + row,
                text,
                usize::from(self.area.width),
                style,
            );
        }
    }

    /// Adds a style to rows.
    pub(super) fn restyle(&mut self, rows: Range<u16>, style: Style) {
        let rows = rows.start.min(self.area.height)..rows.end.min(self.area.height);
        let area =
            Rect { y: self.area.y + rows.start, height: rows.end - rows.start.min(rows.end), ..self.area };
        self.buffer.set_style(area, style);
    }

    /// Empties a rectangle, and draws a frame around it. Returns a canvas of what is inside.
    pub(super) fn framed(&mut self, (width, height): (u16, u16), style: Style) -> Canvas<'_> {
        let (width, height) = (width.min(self.area.width), height.min(self.area.height));
        let (x, y) =
            (self.area.x + (self.area.width - width) / 2, self.area.y + (self.area.height - height) / 2);
        let bar = "─".repeat(usize::from(width.saturating_sub(2)));
        let blank = " ".repeat(usize::from(width.saturating_sub(2)));
        for row in 0..height {
            let text = match row {
                0 => format!("┌{bar}┐"),
                row if row + 1 == height => format!("└{bar}┘"),
                _ => format!("│{blank}│"),
            };
            self.buffer.set_style(Rect::new(x, y + row, width, 1), Style::reset());
            self.buffer.set_stringn(x, y + row, text, usize::from(width), style);
        }
        let area = Rect::new(x + 2, y + 1, width.saturating_sub(4), height.saturating_sub(2));
        Canvas { buffer: self.buffer, area }
    }
}

/// Cuts text, with `…` at the end.
fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Breaks text into lines at spaces. A longer word is cut.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_wrapped_and_escaped() {
        assert_eq!(
            (fitted("abcdef", 4), fitted("abc", 3), fitted("abc", 0)),
            ("abc…".into(), "abc".into(), "".into())
        );
        assert_eq!(wrapped("a bc def g", 4), ["a bc", "def", "g"]);
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        Canvas::new(&mut buffer, Rect::new(0, 0, 12, 1)).line(0, "a\x1b[31m\n", Style::new());
        let shown: String = buffer.content.iter().map(ratatui_core::buffer::Cell::symbol).collect();
        assert_eq!(shown, "a\\u{1b}[31m…");
    }
}
