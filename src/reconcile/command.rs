//! Commands of the operator to the control loop, and their results.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::diagnostic::Diagnostic;
use crate::route::OnRemove;

/// Commands that wait while the loop is busy. Further commands fail.
const COMMANDS_MAX: usize = 64;
/// The loop executes a command in milliseconds. Binding a listener, and a burst of updates before it, take less than a second.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);

/// A change at run time. Routes are identified by name, endpoints as `status` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Holds new sessions, even if endpoints answer.
    Pause { route: String },
    /// Ends a pause.
    Resume { route: String },
    /// Replaces the targets of a route.
    Switch(SwitchRequest),
    /// Sets the weight of an endpoint. `None` for the weight that its source reports.
    Weight { route: String, endpoint: String, weight: Option<u32> },
    /// Takes no new sessions on an endpoint.
    Drain { route: String, endpoint: String },
    /// Takes new sessions on a drained endpoint again.
    Undrain { route: String, endpoint: String },
    /// Opens a route, written in the grammar.
    Add { line: String },
    /// Closes a route.
    Remove { route: String },
    /// Opens a removed route again, as its source reports it.
    Restore { route: String },
}

/// A request to replace the targets of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwitchRequest {
    /// The name of the route.
    pub route: String,
    /// A comma-separated list in the grammar. `None` for the targets that the sources report.
    pub targets: Option<String>,
    /// What happens to the sessions of the endpoints that are removed. `None` for the option of the route.
    pub old: Option<OnRemove>,
    /// If set, each new endpoint must answer before it is used.
    pub trial: Option<Trial>,
}

/// A switch that is completed only once it has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Rolls the switch back if it has not settled within this time.
    pub timeout: Option<Duration>,
}

/// A command, and whether to execute it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandRequest {
    pub command: Command,
    pub mode: Mode,
}

/// Whether a command is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Execute,
    /// It is only checked, and nothing changes.
    DryRun,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// What was done, for people.
    pub message: String,
    /// The name of the route that was changed.
    pub route: String,
    /// The endpoint of a command for one, as `status` shows it.
    pub endpoint: Option<String>,
    /// What the command does to sessions, endpoints and listeners, one sentence each.
    pub effects: Vec<String>,
    /// The command that undoes it. `None` if nothing changes.
    pub undo: Option<Command>,
}

/// Why a command was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("unknown {what} `{name}`")]
    Unknown { what: &'static str, name: String, known: Vec<String> },
    #[error("{}", .0.iter().map(Diagnostic::one_line).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Diagnostic>),
    #[error("{0}")]
    Conflict(String),
    /// The listener of the route cannot be bound.
    #[error("{0}")]
    NotBound(String),
    /// The process is stopping or busy.
    #[error("{0}")]
    Unavailable(&'static str),
}

/// A command that waits for the control loop.
#[derive(Debug)]
pub(super) struct PendingCommand {
    pub(super) request: CommandRequest,
    pub(super) reply: oneshot::Sender<Result<Done, CommandError>>,
}

/// Sends commands to the control loop.
#[derive(Clone, Debug)]
pub(crate) struct CommandSender(mpsc::Sender<PendingCommand>);

impl CommandSender {
    pub(super) fn channel() -> (CommandSender, mpsc::Receiver<PendingCommand>) {
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        (CommandSender(sender), receiver)
    }

    /// Sends a command, and waits until it has taken effect or failed.
    pub(crate) async fn send(&self, request: CommandRequest) -> Result<Done, CommandError> {
        let (reply, result) = oneshot::channel();
        if self.0.try_send(PendingCommand { request, reply }).is_err() {
            return Err(CommandError::Unavailable("too many commands at once: try again"));
        }
        match tokio::time::timeout(COMMAND_TIMEOUT, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CommandError::Unavailable("the ambassador is stopping")),
            Err(_) => Err(CommandError::Unavailable(
                "the ambassador is busy: `status` shows whether the command has taken effect",
            )),
        }
    }
}
