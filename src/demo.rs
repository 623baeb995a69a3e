//! `ambassador demo`: a service moves, without an interruption for its consumer.
//!
//! Servers, ambassador and consumer run in this process and communicate over real sockets; the configuration is a real file.

mod consumer;
mod protocol;
mod scenario;
mod screen;
mod server;
mod statistics;
mod workspace;

use std::io;

use tokio::sync::mpsc::unbounded_channel;

use crate::app::{self, Bound};
use crate::config::args::RunArgs;
use crate::config::vars::Vars;
use crate::config::{self, AdminAddr, Config};
use crate::drain::StopSignals;
use crate::exit::Exit;
use scenario::{Scenario, Servers};
use screen::Screen;
use workspace::Workspace;

/// Why the demo ended early.
enum DemoError {
    /// Standard output was closed.
    OutputClosed,
    Failed(String),
}

impl From<io::Error> for DemoError {
    /// Converts an error of the output.
    fn from(_: io::Error) -> DemoError {
        DemoError::OutputClosed
    }
}

impl DemoError {
    #[expect(clippy::needless_pass_by_value, reason = "taken from map_err")]
    fn failed(why: impl ToString) -> DemoError {
        DemoError::Failed(why.to_string())
    }
}

/// Runs one round; or, on a terminal, repeats it until it is interrupted.
pub fn run(once: bool, vars: &Vars) -> Exit {
    let mut screen = Screen::open(vars);
    let once = once || !screen.is_terminal();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(show(once, vars, &mut screen)),
        Err(error) => Err(DemoError::failed(error)),
    };
    match shown {
        Ok(exit) => exit,
        Err(DemoError::OutputClosed) => Exit::Done,
        Err(DemoError::Failed(why)) => {
            let _ = screen.text(&format!("the demo cannot continue: {why}"));
            Exit::Failed
        }
    }
}

async fn show(once: bool, vars: &Vars, screen: &mut Screen) -> Result<Exit, DemoError> {
    let workspace = Workspace::create(vars).map_err(DemoError::failed)?;
    let servers = Servers::reserve().map_err(DemoError::failed)?;
    workspace.write(&[servers.first()]).map_err(DemoError::failed)?;
    let bound = app::build(configuration(&workspace)?).await.map_err(DemoError::failed)?;
    let addr = bound.addr(workspace::ROUTE).ok_or_else(|| DemoError::failed("the route was not opened"))?;
    let (see, seen) = unbounded_channel();
    let mut scenario = Scenario::new(screen, &workspace, servers, seen, bound.overview());
    scenario.print_introduction(addr, once)?;
    let show = async {
        tokio::select! {
            finished = scenario.run(once) => finished,
            () = consumer::run(addr, see) => Ok(()),
            interrupted = interrupted() => interrupted.map_err(DemoError::failed),
        }
    };
    let stuck = match beside(bound, show).await {
        Err(DemoError::Failed(why)) => {
            scenario.failed(&why)?;
            true
        }
        shown => {
            shown?;
            false
        }
    };
    let lossless = scenario.finish()?;
    Ok(if stuck || once && !lossless { Exit::Failed } else { Exit::Done })
}

/// Runs the ambassador until `show` completes.
async fn beside(bound: Bound, show: impl Future<Output = Result<(), DemoError>>) -> Result<(), DemoError> {
    let control = bound.control();
    let mut ambassador = Box::pin(bound.run());
    let shown = tokio::select! {
        () = &mut ambassador => return Err(DemoError::failed("the ambassador has stopped")),
        shown = show => shown,
    };
    control.stop.cancel();
    control.force.cancel();
    ambassador.await;
    shown
}

async fn interrupted() -> io::Result<()> {
    StopSignals::install()?.recv().await;
    Ok(())
}

/// Reads the configuration from the file only: the environment does not affect the demo.
fn configuration(workspace: &Workspace) -> Result<Config, DemoError> {
    let args = RunArgs { config: Some(workspace.file()), ..RunArgs::default() };
    let mut config = config::load(&args, &Vars::default()).map_err(|mistakes| {
        DemoError::failed(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    config.settings.admin = Some(AdminAddr::Unix(workspace.admin()));
    Ok(config)
}
