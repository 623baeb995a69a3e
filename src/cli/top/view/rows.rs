//! The tables: routes, endpoints and events. Pure.

use std::time::SystemTime;

use ratatui_core::style::{Color, Modifier, Style};
use serde_json::Value;

use super::canvas::{Align, Canvas};
use super::{DIM, Palette, selected};
use crate::cli::top::model::{Model, Pane, Sort};
use crate::cli::top::samples::Sample;
use crate::cli::top::sentence::{problem, since};
use crate::cli::watch;
use crate::observe::status::{EndpointStatus, RouteStatus};
use crate::observe::table::{age, bytes};

/// The columns of the routes, from the left; the sparkline takes the rest.
struct Columns {
    name: u16,
    state: u16,
    sessions: u16,
    rate: u16,
    held: u16,
    bytes: u16,
}

impl Columns {
    fn of(width: u16) -> Columns {
        let wide = width >= 100;
        let name = if wide { (width / 4).min(40) } else { width / 5 };
        Columns { name, state: if wide { 28 } else { 20 }, sessions: 10, rate: 8, held: 5, bytes: 10 }
    }

    /// Returns the positions of the columns after the marker, and of the sparkline.
    fn places(&self) -> [(u16, u16); 7] {
        let mut at = 2;
        let widths = [self.name, self.state, self.sessions, self.rate, self.held, self.bytes];
        let mut places = [(0, 0); 7];
        for (place, width) in places.iter_mut().zip(widths) {
            *place = (at, width - 1);
            at += width;
        }
        places[6] = (at + 1, u16::MAX);
        places
    }
}

/// Draws the routes between two rows, the selected one always. Returns the row after the last one.
pub(super) fn routes(
    model: &Model,
    canvas: &mut Canvas,
    (top, bottom): (u16, u16),
    palette: Palette,
    now: SystemTime,
) -> u16 {
    let places = Columns::of(canvas.width()).places();
    let heads = ["ROUTE", "STATE", "SESSIONS", "NEW/S", "HELD", "BYTES/S", "RECENT"];
    for (column, (head, (at, width))) in heads.into_iter().zip(places).enumerate() {
        let mark = if column == sorted_column(model.sort) { "▾" } else { "" };
        canvas.cell((at, top, width), &format!("{head}{mark}"), DIM, align(column));
    }
    let routes = model.routes();
    let room = usize::from(bottom.saturating_sub(top + 1));
    let position = model.position(&routes);
    let first = (position + 1).saturating_sub(room);
    let mut row = top + 1;
    for (at, route) in routes.iter().enumerate().skip(first).take(room) {
        draw_route(model, canvas, row, (route, at == position), palette, now);
        row += 1;
    }
    if routes.is_empty() {
        let none = if model.filter.is_empty() { "no routes" } else { "no route matches the filter" };
        canvas.cell((2, row, canvas.width()), none, DIM, Align::Left);
        row += 1;
    }
    row
}

fn sorted_column(sort: Sort) -> usize {
    match sort {
        Sort::Name => 0,
        Sort::Urgency => 1,
        Sort::Sessions => 2,
        Sort::Rate => 3,
        Sort::Bytes => 5,
    }
}

fn align(column: usize) -> Align {
    if (2..6).contains(&column) { Align::Right } else { Align::Left }
}

fn draw_route(
    model: &Model,
    canvas: &mut Canvas,
    row: u16,
    (route, is_selected): (&RouteStatus, bool),
    palette: Palette,
    now: SystemTime,
) {
    let places = Columns::of(canvas.width()).places();
    let last = model.samples.last(&route.name);
    let cells = [
        route.name.clone(),
        state(route, now),
        route.active.to_string(),
        rate(last.sessions),
        route.held.to_string(),
        bytes(whole(last.bytes)),
    ];
    let of_state = palette.severity(route.severity);
    let marker = match route.severity {
        0 => " ",
        1..=3 => "~",
        _ => "!",
    };
    canvas.cell((0, row, 1), marker, of_state, Align::Left);
    for (column, (text, (at, width))) in cells.iter().zip(places).enumerate() {
        let style = if column < 2 { of_state } else { Style::new() };
        canvas.cell((at, row, width), text, style, align(column));
    }
    let (at, _) = places[6];
    let width = canvas.width().saturating_sub(at);
    let bars = bars(model, route, usize::from(width));
    let first = at + width - u16::try_from(bars.len()).unwrap_or(width).min(width);
    for (column, (bar, has_failed)) in (first..).zip(bars) {
        let style = if has_failed { palette.color(Color::Red) } else { palette.color(Color::Cyan) };
        canvas.cell((column, row, 1), bar, style, Align::Left);
    }
    if is_selected {
        canvas.restyle(row..row + 1, selected(Style::new(), true, model, Pane::Routes));
    }
}

/// Returns the state, and since when a route is not well.
fn state(route: &RouteStatus, now: SystemTime) -> String {
    let text = problem(route);
    if route.severity == 0 {
        return text;
    }
    let since = since(&route.state_since, now).map(age).unwrap_or_default();
    let since = since.split(' ').next().unwrap_or_default();
    format!("{text} {since}")
}

/// Returns bars, relative to the highest, and whether sessions failed in each. They cover a minute at least.
fn bars(model: &Model, route: &RouteStatus, width: usize) -> Vec<(&'static str, bool)> {
    const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let samples = model.samples.bars(&route.name, width);
    let highest = samples.iter().map(|sample| sample.sessions).fold(0.0, f64::max);
    let bar = |sample: &Sample| {
        let level = if sample.sessions > 0.0 { (sample.sessions / highest * 7.0).round() } else { 0.0 };
        let level = usize::try_from(whole(level)).unwrap_or(0);
        (BARS.get(level).copied().unwrap_or("█"), sample.failed > 0.0)
    };
    samples.iter().map(bar).collect()
}

/// Formats a rate with up to three digits.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        rate if rate < 0.05 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub(super) fn whole(rate: f64) -> u64 {
    rate.max(0.0) as u64
}

/// Returns the number of rows of a route's endpoints.
pub(super) fn endpoint_count(route: &RouteStatus) -> usize {
    route.endpoints.len() + route.leaving.len()
}

/// Draws the endpoints of the selected route below a line with its name.
pub(super) fn endpoints(model: &Model, canvas: &mut Canvas, (top, bottom): (u16, u16), palette: Palette) {
    let Some(route) = model.route() else { return canvas.rule(top, "endpoints", DIM) };
    let title = format!("{} on {} to {}", route.name, listeners(route), route.targets.join(","));
    canvas.rule(top, &title, focus(model, Pane::Endpoints));
    let room = usize::from(bottom.saturating_sub(top + 1));
    let at = model.endpoint.min(route.endpoints.len().saturating_sub(1));
    let first = (at + 1).saturating_sub(room);
    let all = route.endpoints.iter().map(|endpoint| (endpoint, None));
    let all = all.chain(route.leaving.iter().map(|endpoint| (endpoint, Some("leaving"))));
    for (row, (n, (endpoint, leaving))) in (top + 1..bottom).zip(all.enumerate().skip(first)) {
        endpoint_row(canvas, row, endpoint, leaving, palette);
        if n == at && model.pane == Pane::Endpoints {
            canvas.restyle(row..row + 1, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if endpoint_count(route) == 0 {
        let why = route.problems.first().map_or("no endpoint", String::as_str);
        canvas.cell((2, top + 1, canvas.width()), why, palette.severity(route.severity), Align::Left);
    }
}

/// Returns the addresses of a route, or what is configured.
pub(super) fn listeners(route: &RouteStatus) -> String {
    if route.addresses.is_empty() { route.listen.clone() } else { route.addresses.join(",") }
}

pub(super) fn endpoint_row(
    canvas: &mut Canvas,
    row: u16,
    endpoint: &EndpointStatus,
    leaving: Option<&str>,
    palette: Palette,
) {
    let name = canvas.width() * 2 / 5;
    let flaws: Vec<&str> = leaving.into_iter().chain(endpoint.flaws()).collect();
    let style = if flaws.is_empty() { Style::new() } else { palette.color(Color::Yellow) };
    let mut state = if flaws.is_empty() { "ok".to_owned() } else { flaws.join(", ") };
    if endpoint.backup {
        state.push_str(", backup");
    }
    if endpoint.weight != 1 && leaving.is_none() {
        state.push_str(&format!(", weight {}", endpoint.weight));
    }
    if let Some(why) = endpoint.last_error.as_deref().filter(|_| endpoint.failing) {
        state = format!("{state}: {why}");
    }
    let sessions = counted(endpoint.sessions, "session");
    canvas.cell((2, row, name - 2), &endpoint.description, style, Align::Left);
    canvas.cell((name + 1, row, canvas.width() - name - 16), &state, style, Align::Left);
    canvas.cell((canvas.width() - 14, row, 14), &sessions, Style::new(), Align::Right);
}

/// Returns a number with its noun.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Draws the events, newest first, below a line.
pub(super) fn events(model: &Model, canvas: &mut Canvas, (top, bottom): (u16, u16), palette: Palette) {
    canvas.rule(top, "events, newest first", focus(model, Pane::Events));
    for (row, event) in (top + 1..bottom).zip(model.events.iter().skip(model.scrolled)) {
        canvas.cell((2, row, 8), &time(event), DIM, Align::Left);
        canvas.cell((11, row, canvas.width()), &watch::described(event), style(event, palette), Align::Left);
    }
    if model.events.is_empty() {
        canvas.cell((2, top + 1, canvas.width()), "no events", DIM, Align::Left);
    }
}

/// Returns the time of day, in UTC.
fn time(event: &Value) -> String {
    let time = event.get("time").and_then(Value::as_str).unwrap_or_default();
    time.get(11..19).unwrap_or_default().to_owned()
}

fn style(event: &Value, palette: Palette) -> Style {
    let name = event.get("event").and_then(Value::as_str).unwrap_or_default();
    let bad = [
        "lost",
        "expired",
        "ejected",
        "unreachable",
        "down",
        "refused",
        "not-bound",
        "rolled-back",
        "mistake",
        "expiring",
    ];
    if bad.iter().any(|word| name.contains(word)) { palette.color(Color::Yellow) } else { Style::new() }
}

fn focus(model: &Model, pane: Pane) -> Style {
    if model.pane == pane { super::BOLD } else { DIM }
}
