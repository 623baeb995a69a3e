//! The screen of `ambassador top`. Pure.

mod canvas;
mod details;
mod dialog;
mod rows;

use std::time::SystemTime;

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use super::model::{Mode, Model, Pane};
use super::sentence::{notes, sentence};
use crate::observe::status::{RouteStatus, Status};
use crate::observe::table::{age, bytes};
use canvas::Canvas;

/// The smallest screen that has room for everything.
const WIDTH_MIN: u16 = 60;
const HEIGHT_MIN: u16 = 16;
/// Notes below the first sentence.
const NOTES_MAX: usize = 3;

/// Whether colours are used. Without them, bold, dim and inverse text remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Palette {
    Colour,
    Plain,
}

impl Palette {
    fn color(self, color: Color) -> Style {
        match self {
            Palette::Colour => Style::new().fg(color),
            Palette::Plain => Style::new(),
        }
    }

    /// The style of a state.
    fn severity(self, severity: u8) -> Style {
        match severity {
            0 => Style::new(),
            1..=3 => self.color(Color::Yellow),
            _ => self.color(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws the screen.
pub(super) fn render(model: &Model, area: Rect, buffer: &mut Buffer, palette: Palette, now: SystemTime) {
    let mut canvas = Canvas::new(buffer, area);
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        canvas.line(
            0,
            &format!("the terminal is too small: at least {WIDTH_MIN}x{HEIGHT_MIN}"),
            Style::new(),
        );
        return;
    }
    let footer = area.height - 1;
    let top = head(model, &mut canvas, palette, now);
    match &model.status {
        None => canvas.line(top + 1, "no status yet", DIM),
        Some(_) if model.mode == Mode::Details => {
            details::draw(model, &mut canvas, (top, footer), palette, now);
        }
        Some(_) => panes(model, &mut canvas, (top, footer), palette, now),
    }
    if model.lost.is_some() {
        canvas.restyle(1..footer, DIM);
    }
    dialog::footer(model, &mut canvas, footer, palette);
    dialog::draw(model, &mut canvas, palette);
}

/// Returns everything as text, for `--once`.
pub(super) fn snapshot(model: &Model, width: u16, now: SystemTime) -> String {
    let routes = model.routes().len();
    let events = model.events.len().min(10);
    let height = u16::try_from(routes + events + NOTES_MAX + 8).unwrap_or(u16::MAX);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    let mut canvas = Canvas::new(&mut buffer, area);
    let top = head(model, &mut canvas, Palette::Plain, now);
    let end = rows::routes(model, &mut canvas, (top, top + 1 + clamped(routes)), Palette::Plain, now);
    if events > 0 {
        rows::events(model, &mut canvas, (end + 1, end + 2 + clamped(events)), Palette::Plain);
    }
    let text = text(&buffer);
    format!("{}\n", text.trim_end())
}

/// Returns the characters of a buffer, without spaces at the ends of lines.
pub(super) fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let line = |cells: &[ratatui_core::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui_core::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content.chunks(width).map(line).collect()
}

fn clamped(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Draws the totals, the first sentence and the notes. Returns the next row.
fn head(model: &Model, canvas: &mut Canvas, palette: Palette, now: SystemTime) -> u16 {
    let Some(status) = &model.status else {
        canvas.line(0, "ambassador", BOLD);
        lost(model, canvas, 1, palette, now);
        return 2;
    };
    canvas.line(0, &totals(model, status), BOLD);
    let (severity, text) = sentence(status, now);
    let style = if severity == 0 { palette.color(Color::Green) } else { palette.severity(severity) };
    if !lost(model, canvas, 1, palette, now) {
        canvas.line(1, &text, style);
    }
    let notes = notes(status);
    for (at, note) in notes.iter().take(NOTES_MAX).enumerate() {
        let more = notes.len() - NOTES_MAX.min(notes.len());
        let is_last = at + 1 == NOTES_MAX && more > 0;
        let text =
            if is_last { format!("{note} (and {more} more: `ambassador status`)") } else { note.clone() };
        canvas.line(2 + clamped(at), &text, palette.color(Color::Yellow));
    }
    2 + clamped(notes.len().min(NOTES_MAX)) + 1
}

/// Draws why there is no connection. Returns whether there is none.
fn lost(model: &Model, canvas: &mut Canvas, row: u16, palette: Palette, now: SystemTime) -> bool {
    let Some((why, since)) = &model.lost else { return false };
    let ago = age(now.duration_since(*since).unwrap_or_default());
    let why = why.lines().next().unwrap_or_default();
    let text = format!("No connection for {ago}, retrying: {why}");
    canvas.line(row, &text, palette.severity(u8::MAX));
    true
}

fn totals(model: &Model, status: &Status) -> String {
    let rates = model.samples.total();
    let sum = |of: fn(&RouteStatus) -> usize| status.routes.iter().map(of).sum::<usize>();
    format!(
        "ambassador {}   {}   {}/s new   {} held   {}/s failed   {}/s",
        status.version,
        rows::counted(sum(|route| route.active), "session"),
        rows::rate(rates.sessions),
        sum(|route| route.held),
        rows::rate(rates.failed),
        bytes(rows::whole(rates.bytes)),
    )
}

/// Draws the routes, the endpoints of the selected one and the events. Additional rows are divided among them.
fn panes(model: &Model, canvas: &mut Canvas, (top, bottom): (u16, u16), palette: Palette, now: SystemTime) {
    let free = bottom - top;
    let endpoints = model.route().map_or(1, |route| clamped(rows::endpoint_count(route)).max(1));
    let events = (free / 4).clamp(3, 12);
    let endpoints = endpoints.min((free / 4).clamp(3, 12));
    let events_at = bottom - events;
    let endpoints_at = events_at - endpoints - 1;
    rows::routes(model, canvas, (top, endpoints_at), palette, now);
    rows::endpoints(model, canvas, (endpoints_at, events_at), palette);
    rows::events(model, canvas, (events_at, bottom), palette);
}

fn selected(style: Style, is_selected: bool, model: &Model, pane: Pane) -> Style {
    match is_selected {
        true if model.pane == pane => style.add_modifier(Modifier::REVERSED),
        true => style.add_modifier(Modifier::BOLD),
        false => style,
    }
}

#[cfg(test)]
mod tests;
