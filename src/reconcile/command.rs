//! What an operator may ask of the control loop, and what it answers.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::diagnostic::Diagnostic;
use crate::route::OnRemove;

/// CommandSender that wait while the loop is busy. The one who gives the next is told so.
const COMMANDS_MAX: usize = 64;
/// The loop applies an command in milliseconds; binding a listener and a burst of news before it take no second.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);

/// Routes are meant by name, endpoints as `status` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// New sessions are held, even when endpoints answer.
    Pause {
        route: String,
    },
    Resume {
        route: String,
    },
    Switch(Switch),
    Weight {
        route: String,
        endpoint: String,
        /// `None` for the weight that its source gives it.
        weight: Option<u32>,
    },
    /// No new sessions on this endpoint.
    Drain {
        route: String,
        endpoint: String,
    },
    Undrain {
        route: String,
        endpoint: String,
    },
    /// A route in the grammar.
    Add {
        line: String,
    },
    Remove {
        route: String,
    },
}

/// Other targets for a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    pub route: String,
    /// A comma list in the grammar; `None` for those that the sources tell.
    pub targets: Option<String>,
    /// What happens to the sessions of the endpoints that leave; `None` for what the route says.
    pub old: Option<OnRemove>,
    /// Each new endpoint must answer before it is used.
    pub trial: Option<Trial>,
}

/// How long a switch may take to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Take it back when it has not settled in this time.
    pub timeout: Option<Duration>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// A sentence for people.
    pub message: String,
    /// The route it was done to, by name.
    pub route: String,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("there is no {what} `{name}`")]
    Unknown { what: &'static str, name: String, known: Vec<String> },
    #[error("{}", .0.iter().map(Diagnostic::one_line).collect::<Vec<_>>().join("; "))]
    Mistaken(Vec<Diagnostic>),
    #[error("{0}")]
    Conflict(String),
    /// Its listener cannot be bound.
    #[error("{0}")]
    NotBound(String),
    /// Nobody obeys now: the process is stopping, or busy.
    #[error("{0}")]
    Unavailable(&'static str),
}

#[derive(Debug)]
pub(super) struct PendingCommand {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Done, CommandError>>,
}

/// The sending half, for whoever speaks with operators.
#[derive(Clone, Debug)]
pub struct CommandSender(mpsc::Sender<PendingCommand>);

impl CommandSender {
    pub(super) fn channel() -> (CommandSender, mpsc::Receiver<PendingCommand>) {
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        (CommandSender(sender), receiver)
    }

    /// Resolves once the command has taken effect, or was refused.
    pub async fn send(&self, command: Command) -> Result<Done, CommandError> {
        let (reply, answer) = oneshot::channel();
        if self.0.try_send(PendingCommand { command, reply }).is_err() {
            return Err(CommandError::Unavailable("too many orders at once: try again"));
        }
        match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CommandError::Unavailable("the ambassador is stopping")),
            Err(_) => {
                Err(CommandError::Unavailable("the ambassador is busy: see in `status` whether it was done"))
            }
        }
    }
}
