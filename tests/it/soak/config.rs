//! The configuration file of a soak, and how it varies.

use std::path::{Path, PathBuf};

use super::rng::Rng;

const BALANCE: &[&str] = &["round-robin", "least-connections", "p2c", "random", "source-hash"];
/// Longer than any outage in the soak.
const HOLD: &str = "30s";

pub(super) struct Config {
    pub(super) path: PathBuf,
    /// The fixed targets of the routes: `(name, target)`.
    pub(super) routes: Vec<(&'static str, String)>,
    /// Routes that are copied verbatim.
    more: String,
    /// The possible targets of the route `fixed`.
    pub(super) backends: Vec<String>,
    chosen: Vec<String>,
    balance: &'static str,
    /// Whether a route without clients is present.
    spare: bool,
    /// Whether the file is replaced by a rename or overwritten.
    renamed: bool,
}

impl Config {
    pub(super) fn new(
        dir: &Path,
        routes: Vec<(&'static str, String)>,
        more: String,
        backends: Vec<String>,
    ) -> Config {
        let (path, chosen) = (dir.join("ambassador.toml"), backends.clone());
        Config { path, routes, more, backends, chosen, balance: BALANCE[0], spare: false, renamed: false }
    }

    pub(super) fn vary(&mut self, rng: &mut Rng) {
        self.chosen = self.backends.iter().filter(|_| rng.below(2) == 0).cloned().collect();
        if self.chosen.is_empty() {
            self.chosen.push(rng.choose(&self.backends).clone());
        }
        self.balance = BALANCE[rng.below(BALANCE.len())];
        (self.spare, self.renamed) = (rng.below(2) == 0, rng.below(2) == 0);
    }

    /// Restores the initial configuration except for the balancing algorithm.
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

    /// Writes an invalid file, which is rejected as a whole; the previous configuration remains.
    pub(super) fn write_invalid(&self) {
        std::fs::write(&self.path, format!("{}\nhodl = \"5s\"\n", self.text())).unwrap();
    }

    fn text(&self) -> String {
        let mut routes: Vec<(&str, String)> = self.routes.clone();
        routes.push(("fixed", self.chosen.join("\", \"")));
        if self.spare {
            routes.push(("spare", "127.0.0.1:1".to_owned()));
        }
        // Distinct ports: listeners are identified by their text.
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
