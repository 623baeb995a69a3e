//! Moves the bytes of one session: two sockets in, an [`Ending`] out. Knows nothing else.

use std::time::Duration;

use crate::ending::Ending;
use crate::socket::Socket;

pub mod udp;

/// How long silence may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// No byte either way. `None`: for ever.
    pub idle: Option<Duration>,
    /// No byte, once one side is done.
    pub half_close: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the consumer to the service.
    Up,
    /// From the service to the consumer.
    Down,
}

/// Relays until both sides are done or one is gone. `moved` is told of bytes as they leave, not at the end.
pub async fn relay(
    _downstream: &Socket,
    _upstream: &Socket,
    _limits: Limits,
    _moved: &impl Fn(Direction, usize),
) -> Ending {
    Ending::Finished
}
