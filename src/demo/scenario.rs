//! The steps of the demo: changes to the service, and their effect on the consumer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::DemoError;
use super::consumer::NEW_INTERVAL;
use super::screen::Screen;
use super::server::Server;
use super::statistics::{RequestEvent, Statistics, milliseconds};
use super::workspace::Workspace;
use crate::reconcile::Overview;

/// The duration of steps, long enough to read their lines.
const SERVING: Duration = Duration::from_millis(1500);
const STOPPED: Duration = Duration::from_millis(1000);
const REDRAW: Duration = Duration::from_millis(100);
/// How long to wait for a moment without pending requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers between which the service moves.
pub(super) struct Servers {
    blue: Server,
    green: Server,
    amber: Server,
}

impl Servers {
    pub(super) fn reserve() -> io::Result<Servers> {
        let [blue, green, amber] = ["blue", "green", "amber"].map(Server::reserve);
        Ok(Servers { blue: blue?, green: green?, amber: amber? })
    }

    /// Returns the server of the first step.
    pub(super) fn first(&self) -> &Server {
        &self.blue
    }
}

pub(super) struct Scenario<'s> {
    screen: &'s mut Screen,
    workspace: &'s Workspace,
    servers: Servers,
    seen: UnboundedReceiver<RequestEvent>,
    /// The state of the ambassador.
    overview: Arc<ArcSwap<Overview>>,
    /// Since the start.
    all: Statistics,
    /// In this step.
    step_statistics: Statistics,
    /// The number of expected answers that were missing.
    missed: u64,
}

impl<'s> Scenario<'s> {
    pub(super) fn new(
        screen: &'s mut Screen,
        workspace: &'s Workspace,
        servers: Servers,
        seen: UnboundedReceiver<RequestEvent>,
        overview: Arc<ArcSwap<Overview>>,
    ) -> Scenario<'s> {
        let (all, step_statistics) = Default::default();
        Scenario { screen, workspace, servers, seen, overview, all, step_statistics, missed: 0 }
    }

    pub(super) fn print_introduction(&mut self, addr: SocketAddr, once: bool) -> io::Result<()> {
        let every = milliseconds(NEW_INTERVAL);
        let file = self.workspace.file();
        for line in [
            format!("consumer    connects to {addr} every {every} and sends a request;").as_str(),
            "            it also keeps one connection open",
            "ambassador  listens there, and watches its configuration file",
            format!("            {}", file.display()).as_str(),
            "service     moves between the servers blue, green and amber",
            if once { "" } else { "\nIt repeats until Ctrl-C.\n" },
        ] {
            self.screen.text(line)?;
        }
        Ok(())
    }

    /// Runs one round, or repeats it.
    pub(super) async fn run(&mut self, once: bool) -> Result<(), DemoError> {
        self.servers.blue.start().map_err(DemoError::failed)?;
        loop {
            self.round().await?;
            if once {
                return Ok(());
            }
        }
    }

    /// Runs one round. It ends in the state in which it began: with blue alone.
    async fn round(&mut self) -> Result<(), DemoError> {
        self.step("blue is in the file and running", SERVING, &["blue"]).await?;
        self.idle().await;
        self.servers.blue.stop();
        self.step("blue is stopped: new connections are held", STOPPED, &[]).await?;
        self.servers.blue.start().map_err(DemoError::failed)?;
        self.step("blue is started again", SERVING, &["blue"]).await?;

        self.servers.green.start().map_err(DemoError::failed)?;
        self.workspace.write(&[&self.servers.green]).map_err(DemoError::failed)?;
        self.step("the file is rewritten: green", SERVING, &["green"]).await?;
        self.idle().await;
        self.servers.blue.stop();
        self.step("blue is stopped", STOPPED, &["green"]).await?;

        self.servers.amber.start().map_err(DemoError::failed)?;
        self.workspace.write(&[&self.servers.green, &self.servers.amber]).map_err(DemoError::failed)?;
        self.step("the file is rewritten: green and amber", SERVING, &["green", "amber"]).await?;
        self.idle().await;
        self.servers.green.stop();
        self.step("green is stopped, but still in the file", STOPPED, &["amber"]).await?;

        self.idle().await;
        self.servers.amber.stop();
        self.step("amber is stopped as well: no server is left", STOPPED, &[]).await?;
        self.servers.blue = Server::reserve("blue").map_err(DemoError::failed)?;
        self.servers.blue.start().map_err(DemoError::failed)?;
        self.workspace.write(&[&self.servers.blue]).map_err(DemoError::failed)?;
        self.step("the file is rewritten: blue, at another address", SERVING, &["blue"]).await
    }

    /// Shows the effect of a change for `length`. The servers in `answering` must have answered by then.
    async fn step(&mut self, what: &str, length: Duration, answering: &[&str]) -> Result<(), DemoError> {
        self.step_statistics = self.all.following();
        self.screen.event(what)?;
        self.watch(length).await?;
        self.screen.detail(&self.step_statistics.line(self.held()))?;
        if let Some(kept) = self.step_statistics.kept_line() {
            self.screen.detail(&kept)?;
        }
        for reason in self.step_statistics.reasons() {
            self.screen.error(&reason)?;
        }
        for name in answering.iter().filter(|name| !self.step_statistics.has_answered(name)) {
            self.missed += 1;
            self.screen.error(&format!("{name} never answered"))?;
        }
        Ok(())
    }

    async fn watch(&mut self, length: Duration) -> Result<(), DemoError> {
        let end = Instant::now() + length;
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(end) => return Ok(()),
                _ = redraw.tick() => self.screen.live(&self.step_statistics.line(self.held()))?,
                Some(seen) = self.seen.recv() => self.record(seen),
            }
        }
    }

    /// Waits until no request is pending, so that the server that is stopped next has answered all of its requests, as in a
    /// graceful shutdown. A request that a failed server has received cannot be repeated safely.
    async fn idle(&mut self) {
        let idle = async {
            loop {
                while let Ok(seen) = self.seen.try_recv() {
                    self.record(seen);
                }
                if self.all.pending() == 0 {
                    return;
                }
                if let Some(seen) = self.seen.recv().await {
                    self.record(seen);
                }
            }
        };
        // On a busy machine there may be no such moment: continue anyway.
        let _ = timeout(IDLE_TIMEOUT, idle).await;
    }

    /// Returns the number of held sessions of the ambassador.
    fn held(&self) -> usize {
        let overview = self.overview.load();
        let clusters = overview.routes.iter().filter_map(|view| view.cluster.as_deref());
        clusters.map(|cluster| cluster.counters.held.load(Relaxed)).sum()
    }

    fn record(&mut self, seen: RequestEvent) {
        self.all.record(seen.clone());
        self.step_statistics.record(seen);
    }

    /// Prints why the demo cannot continue.
    pub(super) fn failed(&mut self, why: &str) -> io::Result<()> {
        self.screen.error(&format!("the demo cannot continue: {why}"))
    }

    /// Prints the summary. Returns whether no request failed and no answer was missing.
    pub(super) fn finish(&mut self) -> io::Result<bool> {
        while let Ok(seen) = self.seen.try_recv() {
            self.record(seen);
        }
        self.screen.end(&self.all.summary())?;
        Ok(self.missed == 0 && self.all.failed() == 0)
    }
}
