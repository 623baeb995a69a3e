//! What happens to the service, scene by scene, and what the consumer sees of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Trouble;
use super::account::{Account, Seen, milliseconds};
use super::backend::Backend;
use super::consumer::PAUSE_FRESH;
use super::home::Home;
use super::screen::Screen;
use crate::reconcile::Overview;

/// How long a server is seen at work, and how long it is away: long enough to read the line that tells of it.
const AT_WORK: Duration = Duration::from_millis(1500);
const AWAY: Duration = Duration::from_millis(1000);
const REDRAW: Duration = Duration::from_millis(100);
/// How long a moment without a request under way is waited for.
const QUIET_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Servers {
    blue: Backend,
    green: Backend,
    amber: Backend,
}

impl Servers {
    pub(super) fn reserve() -> io::Result<Servers> {
        let [blue, green, amber] = ["blue", "green", "amber"].map(Backend::reserve);
        Ok(Servers { blue: blue?, green: green?, amber: amber? })
    }

    /// The one that the story begins with.
    pub(super) fn first(&self) -> &Backend {
        &self.blue
    }
}

pub(super) struct Story<'s> {
    screen: &'s mut Screen,
    home: &'s Home,
    servers: Servers,
    seen: UnboundedReceiver<Seen>,
    /// What the ambassador shows of itself.
    overview: Arc<ArcSwap<Overview>>,
    /// From the beginning, and in this scene.
    all: Account,
    scene: Account,
    /// Scenes in which somebody did not answer who should have.
    missed: u64,
}

impl<'s> Story<'s> {
    pub(super) fn new(
        screen: &'s mut Screen,
        home: &'s Home,
        servers: Servers,
        seen: UnboundedReceiver<Seen>,
        overview: Arc<ArcSwap<Overview>>,
    ) -> Story<'s> {
        let (all, scene) = Default::default();
        Story { screen, home, servers, seen, overview, all, scene, missed: 0 }
    }

    pub(super) fn introduce(&mut self, addr: SocketAddr, once: bool) -> io::Result<()> {
        let every = milliseconds(PAUSE_FRESH);
        let file = self.home.file();
        for line in [
            format!("consumer    connects to {addr} every {every} and sends a request;").as_str(),
            "            it also keeps one connection open",
            "ambassador  listens there, and follows its configuration file",
            format!("            {}", file.display()).as_str(),
            "service     moves between the servers blue, green and amber",
            if once { "" } else { "\nIt repeats until Ctrl-C.\n" },
        ] {
            self.screen.text(line)?;
        }
        Ok(())
    }

    /// One round, or one after the other.
    pub(super) async fn tell(&mut self, once: bool) -> Result<(), Trouble> {
        self.servers.blue.start().map_err(Trouble::stuck)?;
        loop {
            self.round().await?;
            if once {
                return Ok(());
            }
        }
    }

    /// Ends as it began: with blue alone.
    async fn round(&mut self) -> Result<(), Trouble> {
        self.scene("blue is in the file, and serves", AT_WORK, &["blue"]).await?;
        self.quiet().await;
        self.servers.blue.stop();
        self.scene("blue is stopped: new connections are held", AWAY, &[]).await?;
        self.servers.blue.start().map_err(Trouble::stuck)?;
        self.scene("blue is started again", AT_WORK, &["blue"]).await?;

        self.servers.green.start().map_err(Trouble::stuck)?;
        self.home.write(&[&self.servers.green]).map_err(Trouble::stuck)?;
        self.scene("the file is rewritten: green", AT_WORK, &["green"]).await?;
        self.quiet().await;
        self.servers.blue.stop();
        self.scene("blue is stopped for good", AWAY, &["green"]).await?;

        self.servers.amber.start().map_err(Trouble::stuck)?;
        self.home.write(&[&self.servers.green, &self.servers.amber]).map_err(Trouble::stuck)?;
        self.scene("the file is rewritten: green and amber", AT_WORK, &["green", "amber"]).await?;
        self.quiet().await;
        self.servers.green.stop();
        self.scene("green is stopped, but still in the file", AWAY, &["amber"]).await?;

        self.quiet().await;
        self.servers.amber.stop();
        self.scene("amber is stopped as well: no server is left", AWAY, &[]).await?;
        self.servers.blue = Backend::reserve("blue").map_err(Trouble::stuck)?;
        self.servers.blue.start().map_err(Trouble::stuck)?;
        self.home.write(&[&self.servers.blue]).map_err(Trouble::stuck)?;
        self.scene("the file is rewritten: blue, at another address", AT_WORK, &["blue"]).await
    }

    /// Shows what is seen for so long; `answering` must all have answered by then.
    async fn scene(&mut self, what: &str, length: Duration, answering: &[&str]) -> Result<(), Trouble> {
        self.scene = self.all.next();
        self.screen.event(what)?;
        self.watch(length).await?;
        self.screen.seen(&self.scene.line(self.held()))?;
        if let Some(kept) = self.scene.kept_line() {
            self.screen.seen(&kept)?;
        }
        for reason in self.scene.reasons() {
            self.screen.bad(&reason)?;
        }
        for name in answering.iter().filter(|name| !self.scene.has_answered(name)) {
            self.missed += 1;
            self.screen.bad(&format!("{name} never answered"))?;
        }
        Ok(())
    }

    async fn watch(&mut self, length: Duration) -> Result<(), Trouble> {
        let end = Instant::now() + length;
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(end) => return Ok(()),
                _ = redraw.tick() => self.screen.live(&self.scene.line(self.held()))?,
                Some(seen) = self.seen.recv() => self.note(seen),
            }
        }
    }

    /// Returns in a moment when no request is under way, so that the server that is stopped next leaves none without its
    /// answer. A server that is stopped in order does so; from one that dies with half a request, no ambassador can
    /// know whether it may be asked again of another.
    async fn quiet(&mut self) {
        let quiet = async {
            loop {
                while let Ok(seen) = self.seen.try_recv() {
                    self.note(seen);
                }
                if self.all.waiting() == 0 {
                    return;
                }
                if let Some(seen) = self.seen.recv().await {
                    self.note(seen);
                }
            }
        };
        // On a machine that is too busy for a quiet moment, the story goes on all the same.
        let _ = timeout(QUIET_TIMEOUT, quiet).await;
    }

    /// By the ambassador's own count.
    fn held(&self) -> usize {
        let overview = self.overview.load();
        let clusters = overview.routes.iter().filter_map(|view| view.cluster.as_deref());
        clusters.map(|cluster| cluster.counters.held.load(Relaxed)).sum()
    }

    fn note(&mut self, seen: Seen) {
        self.all.note(seen.clone());
        self.scene.note(seen);
    }

    /// The story cannot go on.
    pub(super) fn stuck(&mut self, why: &str) -> io::Result<()> {
        self.screen.bad(&format!("the demo cannot go on: {why}"))
    }

    /// The last line. Returns whether all went as it should.
    pub(super) fn sum_up(&mut self) -> io::Result<bool> {
        while let Ok(seen) = self.seen.try_recv() {
            self.note(seen);
        }
        self.screen.end(&self.all.sum())?;
        Ok(self.missed == 0 && self.all.failed() == 0)
    }
}
