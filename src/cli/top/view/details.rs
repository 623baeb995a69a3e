//! Everything about one route. Pure.

use std::time::SystemTime;

use ratatui_core::style::Style;

use super::canvas::{Align, Canvas};
use super::rows::{endpoint_row, listeners, rate, whole};
use super::{BOLD, DIM, Palette};
use crate::cli::top::model::Model;
use crate::cli::top::sentence::{problem, since};
use crate::observe::status::RouteStatus;
use crate::observe::table::{age, bytes};

/// Draws the selected route between two rows.
pub(super) fn draw(
    model: &Model,
    canvas: &mut Canvas,
    (top, bottom): (u16, u16),
    palette: Palette,
    now: SystemTime,
) {
    let Some(route) = model.route() else { return canvas.line(top, "no route", DIM) };
    canvas.rule(top, &route.name, BOLD);
    let mut row = top + 1;
    for (name, text) in fields(model, route, now) {
        let style = if name == "state" { palette.severity(route.severity) } else { Style::new() };
        if row < bottom {
            canvas.cell((2, row, 14), name, DIM, Align::Left);
            canvas.cell((17, row, canvas.width()), &text, style, Align::Left);
        }
        row += 1;
    }
    if row < bottom {
        canvas.rule(row, "endpoints", DIM);
    }
    let all = route.endpoints.iter().map(|endpoint| (endpoint, None));
    let all = all.chain(route.leaving.iter().map(|endpoint| (endpoint, Some("leaving"))));
    for (row, (endpoint, leaving)) in (row + 1..bottom).zip(all) {
        endpoint_row(canvas, row, endpoint, leaving, palette);
    }
}

fn fields(model: &Model, route: &RouteStatus, now: SystemTime) -> Vec<(&'static str, String)> {
    let ago = |time: &str| since(time, now).map(age).unwrap_or_default();
    let rates = model.samples.last(&route.name);
    let mut fields = vec![
        ("state", format!("{} for {}", problem(route), ago(&route.state_since))),
        ("listens on", listeners(route)),
        ("targets", route.targets.join(", ")),
        ("from", format!("{}, balance={}", route.origin, route.balance)),
        (
            "sessions",
            format!(
                "{} open, {} held, {}/s new, {} in total",
                route.active,
                route.held,
                rate(rates.sessions),
                route.sessions_total
            ),
        ),
        (
            "failed",
            format!("{} in total, {}/s{}", route.failed_total, rate(rates.failed), last_failure(route, now)),
        ),
        (
            "bytes",
            format!(
                "{} sent, {} received, {}/s",
                bytes(route.bytes_up),
                bytes(route.bytes_down),
                bytes(whole(rates.bytes))
            ),
        ),
    ];
    let endings: Vec<String> =
        route.endings.iter().map(|(ending, count)| format!("{count} {ending}")).collect();
    if !endings.is_empty() {
        fields.push(("endings", endings.join(", ")));
    }
    if let Some(instead_of) = &route.by_hand.instead_of {
        fields.push(("switched", format!("by hand, instead of {}", instead_of.join(","))));
    }
    fields.extend(route.problems.iter().map(|problem| ("problem", problem.clone())));
    fields
}

fn last_failure(route: &RouteStatus, now: SystemTime) -> String {
    let Some(failure) = &route.last_failure else { return String::new() };
    let ago = since(&failure.at, now).map(age).unwrap_or_default();
    format!(", the last one {ago} ago: {}", failure.ending)
}
