//! A cluster, sources and names in a world where everything goes wrong, drawn by lot and in virtual time; what must hold,
//! holds after every step.
//!
//! Each seed is one story: of endpoints that join, leave, refuse, reset, hang and fall sick, of sessions that come, wait and
//! go, and of options that change meanwhile; of sources that say this and that; of names whose servers do. A seed that fails is printed, and is told again by itself with
//! `AMBASSADOR_SIM_SEED=N cargo test simulation`; `AMBASSADOR_SIM_SEEDS=N` tells more stories than usual.

mod lots;
mod names;
mod tables;
mod world;

use std::thread;

use crate::support::variable;
use lots::Lots;

/// Stories, and steps of each.
const SEEDS: u64 = 256;
const STEPS: usize = 120;

#[test]
fn whatever_happens_to_a_cluster_its_promises_hold() {
    for_each_seed(|seed| in_virtual_time(world::tell(Lots::new(seed), STEPS)));
}

#[test]
fn whatever_servers_say_of_a_name_the_last_good_answer_stands_until_it_is_stale() {
    for_each_seed(|seed| in_virtual_time(names::tell_of_a_source(Lots::new(seed), STEPS)));
}

#[test]
fn whatever_servers_say_of_many_names_each_has_the_last_good_answer_until_it_is_stale() {
    for_each_seed(|seed| in_virtual_time(names::tell_of_many(Lots::new(seed), STEPS)));
}

#[test]
fn whatever_sources_say_what_runs_is_what_the_layers_mean() {
    for_each_seed(|seed| tables::tell(Lots::new(seed), STEPS));
}

fn in_virtual_time(story: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story);
}

/// Shared by two threads.
fn for_each_seed(tell: impl Fn(u64) + Sync) {
    let number = |name: &str| variable(name).map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("AMBASSADOR_SIM_SEED") {
        return tell(seed);
    }
    let seeds = number("AMBASSADOR_SIM_SEEDS").unwrap_or(SEEDS);
    thread::scope(|scope| {
        for half in 0..2 {
            let tell = &tell;
            scope.spawn(move || {
                for seed in (half..seeds).step_by(2) {
                    let _told = Teller(seed);
                    tell(seed);
                }
            });
        }
    });
}

/// Says which story it was that failed.
struct Teller(u64);

impl Drop for Teller {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to see it again: AMBASSADOR_SIM_SEED={}", self.0);
        }
    }
}
