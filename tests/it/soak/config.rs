//! The configuration file of a soak, and how it varies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::rng::Rng;

const BALANCE: &[&str] = &["round-robin", "least-connections", "p2c", "random", "source-hash"];
/// Longer than anything that is away here stays so.
const HOLD: &str = "30s";

pub(super) struct Config {
    pub(super) path: PathBuf,
    /// Targets that each route has always: `(name, target)`.
    pub(super) routes: Vec<(&'static str, String)>,
    /// Routes that are written as they are.
    more: String,
    /// Of these, the route `fixed` has some.
    pub(super) backends: Vec<SocketAddr>,
    chosen: Vec<SocketAddr>,
    balance: &'static str,
    /// A route that nobody uses comes and goes.
    spare: bool,
    /// Written beside and renamed, or over what was there.
    renamed: bool,
}

impl Config {
    pub(super) fn new(
        dir: &Path,
        routes: Vec<(&'static str, String)>,
        more: String,
        backends: Vec<SocketAddr>,
    ) -> Config {
        let (path, chosen) = (dir.join("ambassador.toml"), backends.clone());
        Config { path, routes, more, backends, chosen, balance: BALANCE[0], spare: false, renamed: false }
    }

    pub(super) fn vary(&mut self, rng: &mut Rng) {
        self.chosen = self.backends.iter().copied().filter(|_| rng.below(2) == 0).collect();
        if self.chosen.is_empty() {
            self.chosen.push(*rng.choose(&self.backends));
        }
        self.balance = BALANCE[rng.below(BALANCE.len())];
        (self.spare, self.renamed) = (rng.below(2) == 0, rng.below(2) == 0);
    }

    /// As it was at first, but for the order of balancing.
    pub(super) fn restore(&mut self) {
        self.chosen.clone_from(&self.backends);
        (self.spare, self.renamed) = (false, true);
        self.write();
    }

    pub(super) fn summary(&self) -> String {
        let Config { chosen, balance, spare, renamed, .. } = self;
        format!("{} targets, {balance}, spare: {spare}, renamed: {renamed}", chosen.len())
    }

    pub(super) fn write(&self) {
        if self.renamed {
            let beside = self.path.with_extension("new");
            std::fs::write(&beside, self.text()).unwrap();
            std::fs::rename(&beside, &self.path).unwrap();
        } else {
            std::fs::write(&self.path, self.text()).unwrap();
        }
    }

    /// It is refused as a whole, and what stood before stands.
    pub(super) fn write_invalid(&self) {
        std::fs::write(&self.path, format!("{}\nhodl = \"5s\"\n", self.text())).unwrap();
    }

    fn text(&self) -> String {
        let mut routes: Vec<(&str, String)> = self.routes.clone();
        let chosen: Vec<String> = self.chosen.iter().map(SocketAddr::to_string).collect();
        routes.push(("fixed", chosen.join("\", \"")));
        if self.spare {
            routes.push(("spare", "127.0.0.1:1".to_owned()));
        }
        // Ports of their own: a listener is told apart by what is written.
        let text = routes.iter().enumerate().map(|(n, (name, target))| {
            format!(
                "[[route]]\nname = \"{name}\"\nlisten = \"127.0.0.{}:0\"\ntarget = [\"{target}\"]\nhold = \"{HOLD}\"\n\
                 balance = \"{}\"\nhealth = \"redis\"\nhealth-interval = \"200ms\"\n\
                 health-timeout = \"300ms\"\nhealth-fall = 2\n",
                n + 1,
                self.balance
            )
        });
        text.chain([self.more.clone()]).collect::<Vec<_>>().join("\n")
    }
}
