//! Whether an endpoint is well, from the checks it passed and failed. Pure; [`probe`] asks.
//!
//! ```text
//!                  ┌──── passed ───► healthy ◄──── `rise` passed in a row ────┐
//!   unknown ───────┤                    │                                     │
//!                  └──── failed ──┐     └────── `fall` failed in a row ──► unhealthy
//!                                 └───────────────────────────────────────────▲
//! ```
//!
//! The first check decides alone: an endpoint that joins broken shall not be asked `fall` times while sessions go there.

pub mod probe;

use crate::route;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not checked yet.
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

/// The record of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    state: State,
    /// Checks in a row that speak against `state`.
    against: u32,
}

impl Record {
    pub fn state(self) -> State {
        self.state
    }

    /// Takes a check into account. Returns the new state when it is another.
    pub fn checked(&mut self, passed: bool, policy: &route::Health) -> Option<State> {
        let (speaks_for, needed) = match (self.state, passed) {
            (State::Unknown, true) => (State::Healthy, 1),
            (State::Unknown, false) => (State::Unhealthy, 1),
            (State::Healthy, _) => (State::Unhealthy, policy.fall),
            (State::Unhealthy, _) => (State::Healthy, policy.rise),
        };
        if passed != (speaks_for == State::Healthy) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        *self = Record { state: speaks_for, against: 0 };
        Some(speaks_for)
    }
}

impl State {
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

    /// `+` passes, `-` fails; the states after each: `h`, `u`.
    fn check(results: &str, expected: &str) {
        let policy = route::Health { rise: 2, fall: 3, ..route::Health::default() };
        let mut record = Record::default();
        let states: String = results
            .chars()
            .map(|result| {
                let before = record.state();
                let change = record.checked(result == '+', &policy);
                assert_eq!(change.is_some(), before != record.state());
                record.state().name().chars().next().unwrap()
            })
            .collect();
        assert_eq!(states, expected, "{results}");
    }

    #[test]
    fn the_first_check_decides_and_then_rise_and_fall_are_counted_in_a_row() {
        check("+---", "hhhu");
        check("-++", "uuh");
        check("+--+---", "hhhhhhu");
        check("-+-+-++", "uuuuuuh");
        check("+---++--", "hhhuuhhh");
    }
}
