//! What is known of an endpoint's well-being, in one word that sessions read without a lock.

use super::health;
use super::outlier::Cause;

/// Written by the control plane alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `None` where it is not checked.
    pub health: Option<health::State>,
    /// Why it is left out for a while.
    pub ejected: Option<Cause>,
}

/// The state of a container's own health check (`HEALTHCHECK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ContainerHealth {
    /// It has none.
    #[default]
    Unchecked,
    /// It has not passed since it was started, nor failed often enough.
    Starting,
    Healthy,
    Unhealthy,
}

/// In which order endpoints come into question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// Not checked yet, or it refused connections: asking costs a session nothing but time.
    Doubtful,
    /// It fails its checks, or resets what it accepts: it would take a session and spoil it.
    Bad,
}

impl Standing {
    pub(super) const ALL: [Standing; 3] = [Standing::Good, Standing::Doubtful, Standing::Bad];
}

impl Condition {
    pub fn standing(self) -> Standing {
        match self {
            Condition { health: Some(health::State::Unhealthy), .. }
            | Condition { ejected: Some(Cause::Reset), .. } => Standing::Bad,
            Condition { health: Some(health::State::Unknown), .. }
            | Condition { ejected: Some(Cause::Refused), .. } => Standing::Doubtful,
            Condition { health: None | Some(health::State::Healthy), ejected: None } => Standing::Good,
        }
    }

    /// Nothing speaks against it.
    pub fn is_well(self) -> bool {
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

    pub(super) fn decode(word: u8) -> Condition {
        let health = match word & 3 {
            1 => Some(health::State::Unknown),
            2 => Some(health::State::Healthy),
            3 => Some(health::State::Unhealthy),
            _ => None,
        };
        let ejected = match word & 12 {
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
    fn every_condition_is_read_as_it_was_written() {
        for health in [None, Some(State::Unknown), Some(State::Healthy), Some(State::Unhealthy)] {
            for ejected in [None, Some(Cause::Refused), Some(Cause::Reset)] {
                let condition = Condition { health, ejected };
                assert_eq!(Condition::decode(condition.encode()), condition);
            }
        }
        assert_eq!(Condition::decode(0), Condition::default());
    }
}
