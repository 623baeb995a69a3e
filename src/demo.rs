//! The main job, shown with nothing else installed: a service moves, and its consumer never notices.
//!
//! Everything is real and in this process: servers with addresses of their own, the ambassador with its configuration
//! file, and a consumer that knows nothing but the ambassador's address.

mod account;
mod backend;
mod consumer;
mod home;
mod line;
mod screen;
mod story;

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

use crate::app::{self, Bound};
use crate::config::args::RunArgs;
use crate::config::vars::Vars;
use crate::config::{self, AdminAddr, Config};
use crate::exit::Exit;
use home::Home;
use screen::Screen;
use story::{Servers, Story};

/// Why there is no more to show.
enum Trouble {
    NobodyReads,
    Stuck(String),
}

impl From<io::Error> for Trouble {
    /// Of the screen.
    fn from(_: io::Error) -> Trouble {
        Trouble::NobodyReads
    }
}

impl Trouble {
    #[expect(clippy::needless_pass_by_value, reason = "taken from map_err")]
    fn stuck(why: impl ToString) -> Trouble {
        Trouble::Stuck(why.to_string())
    }
}

/// Shows one round, or, on a terminal, one after the other until it is interrupted.
pub fn run(once: bool, vars: &Vars) -> Exit {
    let mut screen = Screen::open(vars);
    let once = once || !screen.is_terminal();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let shown = match runtime {
        Ok(runtime) => runtime.block_on(show(once, vars, &mut screen)),
        Err(error) => Err(Trouble::stuck(error)),
    };
    match shown {
        Ok(exit) => exit,
        Err(Trouble::NobodyReads) => Exit::Done,
        Err(Trouble::Stuck(why)) => {
            let _ = screen.text(&format!("the demo cannot go on: {why}"));
            Exit::Failed
        }
    }
}

async fn show(once: bool, vars: &Vars, screen: &mut Screen) -> Result<Exit, Trouble> {
    let home = Home::make(vars).map_err(Trouble::stuck)?;
    let servers = Servers::reserve().map_err(Trouble::stuck)?;
    home.write(&[servers.first()]).map_err(Trouble::stuck)?;
    let bound = app::build(configuration(&home)?).await.map_err(Trouble::stuck)?;
    let addr = bound.addr(home::ROUTE).ok_or_else(|| Trouble::stuck("the route is not there"))?;
    let (see, seen) = unbounded_channel();
    let mut story = Story::new(screen, &home, servers, seen, bound.overview());
    story.introduce(addr, once)?;
    let show = async {
        tokio::select! {
            told = story.tell(once) => told,
            () = consumer::run(addr, see) => Ok(()),
            interrupted = interrupted() => interrupted.map_err(Trouble::stuck),
        }
    };
    let stuck = match beside(bound, show).await {
        Err(Trouble::Stuck(why)) => {
            story.stuck(&why)?;
            true
        }
        shown => {
            shown?;
            false
        }
    };
    let lossless = story.sum_up()?;
    Ok(if stuck || once && !lossless { Exit::Failed } else { Exit::Done })
}

/// Runs the ambassador for as long as `show` takes.
async fn beside(bound: Bound, show: impl Future<Output = Result<(), Trouble>>) -> Result<(), Trouble> {
    let control = bound.control();
    let mut ambassador = Box::pin(bound.run());
    let shown = tokio::select! {
        () = &mut ambassador => return Err(Trouble::stuck("the ambassador has ended")),
        shown = show => shown,
    };
    control.stop.cancel();
    control.force.cancel();
    ambassador.await;
    shown
}

async fn interrupted() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// As the program would read it, from the file alone: what is in the demo's environment is no concern of the demo.
fn configuration(home: &Home) -> Result<Config, Trouble> {
    let args = RunArgs { config: Some(home.file()), ..RunArgs::default() };
    let mut config = config::load(&args, &Vars::default()).map_err(|mistakes| {
        Trouble::stuck(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    config.settings.admin = Some(AdminAddr::Unix(home.admin()));
    Ok(config)
}
