//! Randomized simulations of a cluster, its sources and DNS in virtual time; the invariants are checked after every
//! step.
//!
//! Each seed is one simulation: endpoints join, leave, refuse, reset, hang and become unhealthy; sessions start, wait
//! and end; options, sources and name servers change. A failing seed is printed; `AMBASSADOR_SIM_SEED=N cargo test
//! simulation` repeats it, and `AMBASSADOR_SIM_SEEDS=N` sets the number of seeds.

mod dns;
mod rng;
mod route_table;
mod world;

use std::thread;

use crate::support::variable;
use rng::Rng;

/// The number of simulations and their steps.
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

/// Runs the simulations on two threads.
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
                    let _reporter = SeedReporter(seed);
                    run(seed);
                }
            });
        }
    });
}

/// Prints the seed of a simulation that fails.
struct SeedReporter(u64);

impl Drop for SeedReporter {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("repeat with AMBASSADOR_SIM_SEED={}", self.0);
        }
    }
}
