//! The health of an endpoint, from the results of its checks. Pure; [`probe`] runs the checks.
//!
//! ```text
//!                  ┌──── passed ───► healthy ◄──── `rise` passed in a row ────┐
//!   unknown ───────┤                    │                                     │
//!                  └──── failed ──┐     └────── `fall` failed in a row ──► unhealthy
//!                                 └───────────────────────────────────────────▲
//! ```
//!
//! The first result decides alone: an endpoint that is broken when it joins must not get sessions for `fall` checks.

pub mod probe;

use crate::route;

/// The health of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not checked yet.
    #[default]
    Unknown,
    /// It passes its checks.
    Healthy,
    /// It fails its checks.
    Unhealthy,
}

/// The check history of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    state: State,
    /// The number of results in a row that contradict `state`.
    contrary: u32,
}

impl History {
    /// Returns the current state.
    pub(crate) fn state(self) -> State {
        self.state
    }

    /// Adds a result. Returns the new state if it has changed.
    pub(crate) fn add(&mut self, passed: bool, policy: &route::Health) -> Option<State> {
        let (next, needed) = match (self.state, passed) {
            (State::Unknown, true) => (State::Healthy, 1),
            (State::Unknown, false) => (State::Unhealthy, 1),
            (State::Healthy, _) => (State::Unhealthy, policy.fall),
            (State::Unhealthy, _) => (State::Healthy, policy.rise),
        };
        if passed != (next == State::Healthy) {
            self.contrary = 0;
            return None;
        }
        self.contrary = self.contrary.saturating_add(1);
        if self.contrary < needed {
            return None;
        }
        *self = History { state: next, contrary: 0 };
        Some(next)
    }
}

impl State {
    /// Returns the name in `status` and the log.
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `results`: `+` passes, `-` fails. `expected`: the states after each, `h` or `u`.
    fn check(results: &str, expected: &str) {
        let policy = route::Health { rise: 2, fall: 3, ..route::Health::default() };
        let mut history = History::default();
        let states: String = results
            .chars()
            .map(|result| {
                let before = history.state();
                let change = history.add(result == '+', &policy);
                assert_eq!(change.is_some(), before != history.state());
                history.state().name().chars().next().unwrap()
            })
            .collect();
        assert_eq!(states, expected, "{results}");
    }

    #[test]
    fn first_result_decides_and_then_rise_and_fall_count_in_a_row() {
        check("+---", "hhhu");
        check("-++", "uuh");
        check("+--+---", "hhhhhhu");
        check("-+-+-++", "uuuuuuh");
        check("+---++--", "hhhuuhhh");
    }
}
