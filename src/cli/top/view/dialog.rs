//! The last line, and what is asked above the rest of the screen. Pure.

use ratatui_core::style::{Color, Style};

use super::canvas::{Canvas, wrapped};
use super::{BOLD, DIM, Palette};
use crate::cli::top::model::{Confirm, Mode, Model, Prompt, Question, Step};

const HELP: [&str; 19] = [
    "arrows, j k      select a route, an endpoint, or scroll the events",
    "Page Up, Down    ten rows;  g G  the first and the last one",
    "Tab              between routes, endpoints and events",
    "Enter            everything about the selected route",
    "/                show only routes with a text; Escape shows all",
    "s                sort by urgency, name, sessions, rate, bytes",
    "",
    "p  r             pause and resume the selected route",
    "x                switch it to other targets",
    "w  d             set the weight of the selected endpoint; drain it",
    "u                undo the last command",
    "",
    "Commands show what they do before they are confirmed.",
    "Their changes last until the next restart of the ambassador.",
    "",
    "!  no endpoint takes sessions, or some wait    ~  less urgent",
    "bars: new sessions of the last minute; red: some failed",
    "",
    "q, Ctrl-C        quit",
];

/// As long as the narrowest usual terminal.
const KEYS: &str = "? help  q quit  / filter  s sort  p pause  r resume  x switch  w weight  d drain";

/// Draws the last line.
pub(super) fn footer(model: &Model, canvas: &mut Canvas, row: u16, palette: Palette) {
    let (text, style) = match (&model.mode, &model.result) {
        (Mode::Filter, _) => (format!("/{}_   Enter keeps the filter, Escape clears it", model.filter), BOLD),
        (_, Some(Ok(done))) => {
            let undo = if model.can_undo() { "   u: undo" } else { "" };
            (format!("{done}{undo}"), palette.color(Color::Green))
        }
        (_, Some(Err(error))) => (error.clone(), palette.severity(u8::MAX)),
        (Mode::Details, None) => {
            ("Escape back  p pause  r resume  x switch  w weight  d drain  ? help".to_owned(), DIM)
        }
        (_, None) if !model.filter.is_empty() => {
            (format!("filter: {}   Escape shows all routes", model.filter), BOLD)
        }
        (_, None) => (KEYS.to_owned(), DIM),
    };
    canvas.line(row, &text, style);
}

/// Draws the dialog of the mode, if it has one.
pub(super) fn draw(model: &Model, canvas: &mut Canvas, palette: Palette) {
    match &model.mode {
        Mode::Browse | Mode::Details | Mode::Filter => {}
        Mode::Help => {
            let lines: Vec<(String, Style)> =
                HELP.iter().map(|line| ((*line).to_owned(), Style::new())).collect();
            dialog(canvas, "Keys", &lines);
        }
        Mode::Prompt(prompt) => dialog(canvas, &title(prompt), &prompt_lines(model, prompt, palette)),
        Mode::Confirm(confirm) => dialog(canvas, &confirm.title, &confirm_lines(confirm, palette)),
    }
}

fn title(prompt: &Prompt) -> String {
    match &prompt.question {
        Question::Targets => format!("Switch {} to other targets", prompt.route),
        Question::Weight { endpoint } => format!("Set the weight of {endpoint} of {}", prompt.route),
    }
}

fn prompt_lines(model: &Model, prompt: &Prompt, palette: Palette) -> Vec<(String, Style)> {
    let route = model.route().filter(|route| route.name == prompt.route);
    let now = match (&prompt.question, route) {
        (Question::Targets, Some(route)) => format!("now {}", route.targets.join(",")),
        (Question::Weight { .. }, Some(route)) => {
            format!("now {}", model.endpoint_of(route).map_or(0, |endpoint| endpoint.weight))
        }
        (_, None) => String::new(),
    };
    let example = match prompt.question {
        Question::Targets => "targets as in a route, such as db2:5432, or `reset`",
        Question::Weight { .. } => "a number, 0 for no new sessions, or `reset`",
    };
    let mut lines = vec![
        (now, DIM),
        (format!("> {}_", prompt.text), BOLD),
        (String::new(), Style::new()),
        (example.to_owned(), DIM),
        ("Enter shows the effects, Escape cancels".to_owned(), DIM),
    ];
    lines.extend(prompt.error.map(|error| (error.to_owned(), palette.severity(u8::MAX))));
    lines
}

fn confirm_lines(confirm: &Confirm, palette: Palette) -> Vec<(String, Style)> {
    let line = |text: &str, style| vec![(text.to_owned(), style)];
    match &confirm.step {
        Step::Checking => line("checking what this does ...", DIM),
        Step::Sending => line("sending ...", DIM),
        Step::Failed(error) => {
            let mut lines = line(error, palette.severity(u8::MAX));
            lines.extend(line("", DIM));
            lines.extend(line("any key closes this", DIM));
            lines
        }
        Step::Ready(effects) => {
            let mut lines: Vec<_> =
                effects.iter().map(|effect| (format!("- {effect}"), Style::new())).collect();
            lines.extend(line("", DIM));
            lines.extend(line("Enter confirms, Escape cancels", BOLD));
            lines
        }
    }
}

/// Draws a frame with a title and wrapped lines. What does not fit is cut.
fn dialog(canvas: &mut Canvas, title: &str, lines: &[(String, Style)]) {
    let width = canvas.width().saturating_sub(8).min(76);
    let room = usize::from(width.saturating_sub(4));
    let wrapped: Vec<(String, Style)> = lines
        .iter()
        .flat_map(|(text, style)| {
            let lines = if text.chars().count() <= room { vec![text.clone()] } else { wrapped(text, room) };
            lines.into_iter().map(|line| (line, *style))
        })
        .collect();
    let height = u16::try_from(wrapped.len() + 4).unwrap_or(u16::MAX).min(canvas.height());
    let mut inner = canvas.framed((width, height), BOLD);
    inner.line(0, title, BOLD);
    for (row, (text, style)) in (2..).zip(&wrapped) {
        inner.line(row, text, *style);
    }
}
