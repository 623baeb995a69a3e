//! The state of `ambassador top`: keys and responses in, effects out. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::action::{Action, Outcome};
use super::samples::Samples;
use crate::observe::history::HistoryStatus;
use crate::observe::status::{EndpointStatus, RouteStatus, Status};

/// Events that are kept.
const EVENTS_MAX: usize = 200;
/// The longest text that can be typed.
const TEXT_MAX: usize = 500;
/// Rows per Page Up and Page Down.
const PAGE: usize = 10;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
}

/// What happens to the model.
#[derive(Debug)]
pub(super) enum Input {
    Key(Key),
    Fetched(Box<Fetched>),
    /// The ambassador does not answer, and why.
    Lost(String),
    /// The response to a command, or to its dry run.
    Answered {
        dry_run: bool,
        result: Result<Outcome, String>,
    },
}

/// What was read from the ambassador.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: Status,
    /// New events, oldest first.
    pub(super) events: Vec<Value>,
    /// Only the first time.
    pub(super) history: Option<HistoryStatus>,
    pub(super) at: Instant,
}

/// What the program does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    /// Reads the status at once.
    Refresh,
    Send {
        action: Action,
        dry_run: bool,
    },
}

/// A part of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Routes,
    Endpoints,
    Events,
}

/// The order of the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Urgency,
    Name,
    Sessions,
    Rate,
    Bytes,
}

/// What keys mean at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Browse,
    Details,
    Help,
    /// The filter is typed.
    Filter,
    Prompt(Prompt),
    Confirm(Confirm),
}

/// Text is typed for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) question: Question,
    pub(super) route: String,
    pub(super) text: String,
    pub(super) error: Option<&'static str>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Targets,
    Weight { endpoint: String },
}

/// A command waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Confirm {
    pub(super) title: String,
    action: Action,
    pub(super) step: Step,
}

/// How far a command is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The dry run is under way.
    Checking,
    /// What the command would do.
    Ready(Vec<String>),
    Sending,
    Failed(String),
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) status: Option<Status>,
    /// Why the ambassador does not answer, and since when.
    pub(super) lost: Option<(String, SystemTime)>,
    pub(super) samples: Samples,
    /// Newest first.
    pub(super) events: VecDeque<Value>,
    pub(super) interval: Duration,
    pub(super) pane: Pane,
    /// The selected route, by name. `None` for the first one.
    selected: Option<String>,
    pub(super) endpoint: usize,
    /// The number of events that are scrolled past.
    pub(super) scrolled: usize,
    pub(super) filter: String,
    pub(super) sort: Sort,
    pub(super) mode: Mode,
    /// The result of the last command.
    pub(super) result: Option<Result<String, String>>,
    undo: Option<Action>,
}

impl Sort {
    const ALL: [Sort; 5] = [Sort::Urgency, Sort::Name, Sort::Sessions, Sort::Rate, Sort::Bytes];

    fn next(self) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL.get(at + 1).copied().unwrap_or_default()
    }
}

impl Model {
    pub(super) fn new(interval: Duration) -> Model {
        Model { interval, ..Model::default() }
    }

    /// Returns the number of the last event.
    pub(super) fn last_event(&self) -> u64 {
        self.events.front().and_then(|event| event.get("seq")).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Returns whether the last command can be undone.
    pub(super) fn can_undo(&self) -> bool {
        self.undo.is_some()
    }

    /// Returns the routes that match the filter, in the chosen order.
    pub(super) fn routes(&self) -> Vec<&RouteStatus> {
        let Some(status) = &self.status else { return Vec::new() };
        let filter = self.filter.to_lowercase();
        let mut routes: Vec<&RouteStatus> =
            status.routes.iter().filter(|route| matches(route, &filter)).collect();
        let rate = |route: &RouteStatus| self.samples.last(&route.name);
        match self.sort {
            Sort::Urgency => routes.sort_by_key(|route| std::cmp::Reverse(route.severity)),
            Sort::Name => routes.sort_by(|a, b| a.name.cmp(&b.name)),
            Sort::Sessions => routes.sort_by_key(|route| std::cmp::Reverse(route.active)),
            Sort::Rate => routes.sort_by(|a, b| rate(b).sessions.total_cmp(&rate(a).sessions)),
            Sort::Bytes => routes.sort_by(|a, b| rate(b).bytes.total_cmp(&rate(a).bytes)),
        }
        routes
    }

    /// Returns the position of the selected route.
    pub(super) fn position(&self, routes: &[&RouteStatus]) -> usize {
        let name = self.selected.as_deref();
        routes.iter().position(|route| Some(route.name.as_str()) == name).unwrap_or(0)
    }

    /// Returns the selected route.
    pub(super) fn route(&self) -> Option<&RouteStatus> {
        let routes = self.routes();
        routes.get(self.position(&routes)).copied()
    }

    /// Returns the selected endpoint of a route.
    pub(super) fn endpoint_of<'r>(&self, route: &'r RouteStatus) -> Option<&'r EndpointStatus> {
        route.endpoints.get(self.endpoint.min(route.endpoints.len().saturating_sub(1)))
    }

    /// Processes an input. Returns what to do.
    pub(super) fn update(&mut self, input: Input, now: SystemTime) -> Option<Effect> {
        match input {
            Input::Key(Key::Interrupt) => Some(Effect::Quit),
            Input::Key(key) => self.key(key),
            Input::Fetched(fetched) => {
                self.fetched(*fetched);
                None
            }
            Input::Lost(why) => {
                let since = self.lost.take().map_or(now, |(_, since)| since);
                self.lost = Some((why, since));
                None
            }
            Input::Answered { dry_run, result } => self.answered(dry_run, result),
        }
    }

    fn fetched(&mut self, Fetched { status, events, history, at }: Fetched) {
        if let Some(history) = history {
            self.samples.seed(&history, self.interval);
        }
        self.samples.add(&status, at);
        let seq = |event: &Value| event.get("seq").and_then(Value::as_u64);
        let last = self.last_event();
        // Numbers of a process that was restarted begin at 1.
        if events.iter().filter_map(seq).any(|seq| seq <= last) {
            self.events.clear();
        }
        events
            .into_iter()
            .filter(|event| seq(event).is_some())
            .for_each(|event| self.events.push_front(event));
        self.events.truncate(EVENTS_MAX);
        self.status = Some(status);
        self.lost = None;
    }

    fn answered(&mut self, dry_run: bool, result: Result<Outcome, String>) -> Option<Effect> {
        let Mode::Confirm(confirm) = &mut self.mode else { return None };
        match result {
            Ok(outcome) if dry_run => confirm.step = Step::Ready(outcome.effects),
            // An ambassador of an earlier version, which executes no dry run.
            Err(error) if dry_run && error.contains("dry_run") => {
                confirm.step = Step::Ready(vec!["this ambassador does not describe the effects".to_owned()]);
            }
            Ok(outcome) => {
                self.result = Some(Ok(outcome.message));
                self.undo = outcome.undo;
                self.mode = Mode::Browse;
                return Some(Effect::Refresh);
            }
            Err(error) => confirm.step = Step::Failed(error),
        }
        None
    }

    fn key(&mut self, key: Key) -> Option<Effect> {
        match &mut self.mode {
            Mode::Browse => self.browse(key),
            Mode::Details => match key {
                Key::Escape | Key::Enter | Key::Char('q') => {
                    self.mode = Mode::Browse;
                    None
                }
                key => self.browse(key),
            },
            Mode::Help => {
                self.mode = Mode::Browse;
                None
            }
            Mode::Filter => {
                self.filter_key(key);
                None
            }
            Mode::Prompt(prompt) => {
                let prompt = prompt.clone();
                self.prompt_key(prompt, key)
            }
            Mode::Confirm(confirm) => match (key, &confirm.step) {
                (Key::Escape | Key::Char('n' | 'q'), _) | (_, Step::Failed(_)) => {
                    self.mode = Mode::Browse;
                    None
                }
                (Key::Enter | Key::Char('y'), Step::Ready(_)) => {
                    confirm.step = Step::Sending;
                    Some(Effect::Send { action: confirm.action.clone(), dry_run: false })
                }
                _ => None,
            },
        }
    }

    fn browse(&mut self, key: Key) -> Option<Effect> {
        match key {
            Key::Char('q') => return Some(Effect::Quit),
            Key::Char('j') | Key::Down => self.move_by(1),
            Key::Char('k') | Key::Up => self.move_by(-1),
            Key::PageDown => self.move_by(PAGE.cast_signed()),
            Key::PageUp => self.move_by(-PAGE.cast_signed()),
            Key::Char('g') | Key::Home => self.move_by(isize::MIN),
            Key::Char('G') | Key::End => self.move_by(isize::MAX),
            Key::Tab => self.pane = self.pane.next(),
            Key::BackTab => self.pane = self.pane.next().next(),
            Key::Enter => self.mode = Mode::Details,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Escape => {
                self.filter.clear();
                self.result = None;
            }
            Key::Char(verb) => return self.verb(verb),
            Key::Backspace | Key::Interrupt => {}
        }
        None
    }

    fn move_by(&mut self, rows: isize) {
        match self.pane {
            Pane::Routes => {
                let routes = self.routes();
                let at = moved(self.position(&routes), rows, routes.len());
                self.selected = routes.get(at).map(|route| route.name.clone());
                self.endpoint = 0;
            }
            Pane::Endpoints => {
                let count = self.route().map_or(0, |route| route.endpoints.len());
                self.endpoint = moved(self.endpoint, rows, count);
            }
            Pane::Events => self.scrolled = moved(self.scrolled, rows, self.events.len()),
        }
    }

    /// Begins the command of a key.
    fn verb(&mut self, verb: char) -> Option<Effect> {
        if verb == 'u' {
            let action = self.undo.clone()?;
            return Some(self.confirm("Undo the last command".to_owned(), action));
        }
        let route = self.route()?;
        let name = route.name.clone();
        let endpoint =
            self.endpoint_of(route).map(|endpoint| (endpoint.description.clone(), endpoint.drained));
        // What is selected by position now must not be another route when the order has changed.
        self.selected = Some(name.clone());
        let plain = |verb| Action::new(&name, verb, Value::Null);
        match verb {
            'p' => Some(self.confirm(format!("Pause {name}"), plain("pause"))),
            'r' => Some(self.confirm(format!("Resume {name}"), plain("resume"))),
            'd' => {
                let (endpoint, is_drained) = endpoint?;
                let title = if is_drained { "Send new sessions again to" } else { "Drain" };
                let title = format!("{title} {endpoint} of {name}");
                Some(self.confirm(title, Action::drain(&name, &endpoint, is_drained)))
            }
            'w' => self.ask(name, Question::Weight { endpoint: endpoint?.0 }),
            'x' => self.ask(name, Question::Targets),
            _ => None,
        }
    }

    fn ask(&mut self, route: String, question: Question) -> Option<Effect> {
        self.mode = Mode::Prompt(Prompt { question, route, text: String::new(), error: None });
        None
    }

    /// Requests the effects of a command, which are confirmed before it is sent.
    fn confirm(&mut self, title: String, action: Action) -> Effect {
        self.result = None;
        self.mode = Mode::Confirm(Confirm { title, action: action.clone(), step: Step::Checking });
        Effect::Send { action, dry_run: true }
    }

    fn filter_key(&mut self, key: Key) {
        match key {
            Key::Enter => self.mode = Mode::Browse,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            key => {
                edit(&mut self.filter, key);
                self.selected = None;
            }
        }
    }

    fn prompt_key(&mut self, mut prompt: Prompt, key: Key) -> Option<Effect> {
        match key {
            Key::Escape => {
                self.mode = Mode::Browse;
                return None;
            }
            Key::Enter => match prompt.action() {
                Ok((title, action)) => return Some(self.confirm(title, action)),
                Err(error) => prompt.error = Some(error),
            },
            key => edit(&mut prompt.text, key),
        }
        self.mode = Mode::Prompt(prompt);
        None
    }
}

impl Pane {
    fn next(self) -> Pane {
        match self {
            Pane::Routes => Pane::Endpoints,
            Pane::Endpoints => Pane::Events,
            Pane::Events => Pane::Routes,
        }
    }
}

impl Prompt {
    /// Returns the command, with its title.
    fn action(&self) -> Result<(String, Action), &'static str> {
        let (route, text) = (&self.route, self.text.trim());
        let given = Some(text).filter(|text| *text != "reset");
        match (&self.question, given) {
            (_, Some("")) => Err("type a value, or `reset` for the configured one"),
            (Question::Targets, None) => {
                Ok((format!("End the switch of {route}"), Action::switch(route, None)))
            }
            (Question::Targets, Some(text)) => {
                Ok((format!("Switch {route} to {text}"), Action::switch(route, Some(text))))
            }
            (Question::Weight { endpoint }, None) => Ok((
                format!("Reset the weight of {endpoint} of {route}"),
                Action::weight(route, endpoint, None),
            )),
            (Question::Weight { endpoint }, Some(text)) => {
                let weight = text.parse().map_err(|_| "a weight is a number: 0 for no new sessions")?;
                let title = format!("Set the weight of {endpoint} of {route} to {weight}");
                Ok((title, Action::weight(route, endpoint, Some(weight))))
            }
        }
    }
}

fn matches(route: &RouteStatus, filter: &str) -> bool {
    let texts = [&route.name, &route.state, &route.listen].into_iter().chain(&route.targets);
    let endpoints = route.endpoints.iter().map(|endpoint| &endpoint.description);
    filter.is_empty() || texts.chain(endpoints).any(|text| text.to_lowercase().contains(filter))
}

fn moved(at: usize, rows: isize, count: usize) -> usize {
    at.saturating_add_signed(rows).min(count.saturating_sub(1))
}

fn edit(text: &mut String, key: Key) {
    match key {
        Key::Char(c) if text.len() < TEXT_MAX => text.push(c),
        Key::Backspace => drop(text.pop()),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
