//! The costs of a pick and of a change of the endpoints; in this process, without a socket.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ambassador::address::{EndpointAddr, EndpointSpec, Identity};
use ambassador::cluster::{Cluster, InFlight};
use ambassador::route::{Balance, Options};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const COUNTS: [u16; 6] = [1, 10, 64, 100, 1_000, 10_000];
const PICKS: u32 = 200_000;
/// The minimum of the rounds excludes disturbances by other processes.
const ROUNDS: usize = 5;

pub(super) fn measure() -> Value {
    let measured = Balance::ALL.into_iter().flat_map(|balance| COUNTS.map(|count| one(balance, count)));
    measured.collect()
}

fn one(balance: Balance, count: u16) -> Value {
    let options = Options { balance, ..Options::named("growth") };
    let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
    let specs: Vec<_> = (0..count).map(spec).collect();
    cluster.update(&options, &specs);
    let update = (0..ROUNDS).map(|_| time(|| without_one_and_back(&cluster, &options, &specs))).min();
    let members = cluster.members_arc();
    // Each has a session, because an endpoint without one would be found at once.
    let _busy: Vec<_> =
        members.all().map(|(_, member)| InFlight::on(member.endpoint.clone(), None)).collect();
    let pick =
        |n: u32| black_box(cluster.choices(&members, Some(IpAddr::from(n.to_be_bytes()))).next()).is_some();
    let all = || assert!((0..PICKS).all(pick));
    let took = (0..ROUNDS).map(|_| time(all)).min().unwrap_or_default();
    let pick_ns = took.as_nanos() as f64 / f64::from(PICKS);
    eprintln!("{} of {count}: {pick_ns:.0} ns", balance.name());
    let update_ms = update.unwrap_or_default().as_secs_f64() * 1e3 / 2.0;
    json!({"balance": balance.name(), "endpoints": count, "pick_ns": pick_ns, "update_ms": update_ms})
}

fn without_one_and_back(cluster: &Cluster, options: &Options, specs: &[EndpointSpec]) {
    cluster.update(options, &specs[1..]);
    cluster.update(options, specs);
}

fn spec(n: u16) -> EndpointSpec {
    let [high, low] = n.to_be_bytes();
    EndpointSpec::new(EndpointAddr::Inet(SocketAddr::from(([10, 0, high, low], 80))), Identity::Literal)
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}
