//! The condition of an endpoint, encoded in one byte that sessions read without a lock. Pure.

use super::health;
use super::outlier::Cause;

/// The result of health checks and outlier detection. Written by the control plane alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The state by health checks. `None` if the route has none.
    pub health: Option<health::State>,
    /// The reason for which the endpoint is ejected, if it is.
    pub ejected: Option<Cause>,
}

/// The state of a container's own health check (`HEALTHCHECK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ContainerHealth {
    /// The container has no health check.
    #[default]
    Unchecked,
    /// The check has neither passed since the container was started, nor failed often enough.
    Starting,
    /// The last check passed.
    Healthy,
    /// The check failed as often as Docker requires in a row.
    Unhealthy,
}

/// The order in which endpoints are tried, by their condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// Healthy, or not checked.
    Preferred,
    /// Not checked yet, or ejected for refusing connections: an attempt costs a session only time.
    Fallback,
    /// Fails its checks, or resets accepted connections: it would accept a session and break it.
    LastResort,
}

impl Preference {
    pub(super) const ALL: [Preference; 3] =
        [Preference::Preferred, Preference::Fallback, Preference::LastResort];
}

impl Condition {
    /// Returns when an endpoint in this condition is tried.
    pub fn preference(self) -> Preference {
        match self {
            Condition { health: Some(health::State::Unhealthy), .. }
            | Condition { ejected: Some(Cause::Reset), .. } => Preference::LastResort,
            Condition { health: Some(health::State::Unknown), .. }
            | Condition { ejected: Some(Cause::Refused), .. } => Preference::Fallback,
            Condition { health: None | Some(health::State::Healthy), ejected: None } => Preference::Preferred,
        }
    }

    /// Returns whether the endpoint is neither unhealthy nor ejected.
    pub(crate) fn is_eligible(self) -> bool {
        self.health != Some(health::State::Unhealthy) && self.ejected.is_none()
    }

    pub(super) fn encode(self) -> u8 {
        let health = match self.health {
            None => 0,
            Some(health::State::Unknown) => 1,
            Some(health::State::Healthy) => 2,
            Some(health::State::Unhealthy) => 3,
        };
        let ejected = match self.ejected {
            None => 0,
            Some(Cause::Refused) => 4,
            Some(Cause::Reset) => 8,
        };
        health | ejected
    }

    pub(super) fn decode(byte: u8) -> Condition {
        let health = match byte & 3 {
            1 => Some(health::State::Unknown),
            2 => Some(health::State::Healthy),
            3 => Some(health::State::Unhealthy),
            _ => None,
        };
        let ejected = match byte & 12 {
            4 => Some(Cause::Refused),
            8 => Some(Cause::Reset),
            _ => None,
        };
        Condition { health, ejected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::health::State;

    #[test]
    fn every_condition_survives_encoding() {
        for health in [None, Some(State::Unknown), Some(State::Healthy), Some(State::Unhealthy)] {
            for ejected in [None, Some(Cause::Refused), Some(Cause::Reset)] {
                let condition = Condition { health, ejected };
                assert_eq!(Condition::decode(condition.encode()), condition);
            }
        }
        assert_eq!(Condition::decode(0), Condition::default());
    }
}
