//! A failed read or write, and the ending that it means.

use std::io;

use crate::ending::Ending;
use crate::traffic::Direction;

/// The socket of a direction that failed, and its error.
pub(super) enum Fault {
    From(io::Error),
    To(io::Error),
}

impl Fault {
    /// Returns whether the peer closed or reset the connection, as opposed to having vanished, or to a local error.
    pub(super) fn is_by_peer(&self) -> bool {
        let (Fault::From(error) | Fault::To(error)) = self;
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    }

    /// Returns the ending of a session in whose `direction` this happened.
    pub(super) fn ending(&self, direction: Direction) -> Ending {
        let (error, is_sender) = match self {
            Fault::From(error) => (error, true),
            Fault::To(error) => (error, false),
        };
        if matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::InvalidInput) {
            return Ending::Local;
        }
        match (direction, is_sender) {
            (Direction::Up, true) | (Direction::Down, false) => Ending::DownstreamReset,
            (Direction::Up, false) | (Direction::Down, true) => Ending::UpstreamReset,
        }
    }
}
