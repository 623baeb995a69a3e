//! A cluster, sources and names in a world where everything goes wrong, drawn by lot and in virtual time; what must hold,
//! holds after every step.
//!
//! Each seed is one story: of endpoints that join, leave, refuse, reset, hang and fall sick, of sessions that come, wait and
//! go, and of options that change meanwhile; of sources that say this and that; of names whose servers do. A seed that fails is printed, and is told again by itself with
//! `AMBASSADOR_SIM_SEED=N cargo test simulation`; `AMBASSADOR_SIM_SEEDS=N` tells more stories than usual.

mod dns;
mod rng;
mod route_table;
mod world;

use std::thread;

use crate::support::variable;
use rng::Rng;

/// Stories, and steps of each.
const SEEDS: u64 = 256;
const STEPS: usize = 120;

#[test]
fn cluster_invariants_hold_under_random_events() {
    for_each_seed(|seed| in_virtual_time(world::run(Rng::new(seed), STEPS)));
}

#[test]
fn name_keeps_its_last_addresses_until_they_are_stale() {
    for_each_seed(|seed| in_virtual_time(dns::run_source(Rng::new(seed), STEPS)));
}

#[test]
fn each_of_many_names_keeps_its_last_addresses_until_they_are_stale() {
    for_each_seed(|seed| in_virtual_time(dns::run_many(Rng::new(seed), STEPS)));
}

#[test]
fn route_table_follows_the_precedence_of_sources() {
    for_each_seed(|seed| route_table::run(Rng::new(seed), STEPS));
}

fn in_virtual_time(simulation: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulation);
}

/// Shared by two threads.
fn for_each_seed(run: impl Fn(u64) + Sync) {
    let number = |name: &str| variable(name).map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("AMBASSADOR_SIM_SEED") {
        return run(seed);
    }
    let seeds = number("AMBASSADOR_SIM_SEEDS").unwrap_or(SEEDS);
    thread::scope(|scope| {
        for half in 0..2 {
            let run = &run;
            scope.spawn(move || {
                for seed in (half..seeds).step_by(2) {
                    let _told = SeedReporter(seed);
                    run(seed);
                }
            });
        }
    });
}

/// Says which story it was that failed.
struct SeedReporter(u64);

impl Drop for SeedReporter {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to see it again: AMBASSADOR_SIM_SEED={}", self.0);
        }
    }
}
