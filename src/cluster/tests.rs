//! Updates of a cluster.

use std::io;
use std::net::SocketAddr;

use super::condition::Condition;
use super::*;
use crate::address::{BACKUP_TIER, EndpointAddr, EndpointKey, Identity};
use crate::route::{Balance, OnRemove};

fn spec(port: u16, id: &str) -> EndpointSpec {
    let addr = EndpointAddr::Inet(SocketAddr::from(([10, 0, 0, 1], port)));
    EndpointSpec::new(addr, Identity::Container { id: id.to_owned(), name: "redis".to_owned() })
}

fn endpoint(members: &Members, n: usize) -> Arc<Endpoint> {
    members.all().nth(n).expect("so many").1.endpoint.clone()
}

#[test]
fn endpoint_with_another_weight_stays_the_same_endpoint() {
    let cluster = cluster();
    cluster.update(&Options::named("test"), &[spec(1, "a")]);
    let before = endpoint(&cluster.members_arc(), 0);
    let change =
        cluster.update(&Options::named("test"), &[EndpointSpec { weight: 5, tier: 7, ..spec(1, "a") }]);
    assert_eq!(change, MembershipChange::default());
    let members = cluster.members_arc();
    assert!(Arc::ptr_eq(&before, &endpoint(&members, 0)) && !before.is_removed());
    assert_eq!((members.tiers[0].number, members.tiers[0].members[0].weight), (7, 5));
}

fn cluster() -> Cluster {
    Cluster::new(Options::named("test"), CancellationToken::new())
}

#[test]
fn endpoint_that_stays_keeps_its_sessions_and_one_that_leaves_is_removed() {
    let cluster = cluster();
    let options = Options::named("test");
    cluster.update(&options, &[spec(1, "a"), spec(2, "b")]);
    let members = cluster.members_arc();
    let (stays, leaves) = (endpoint(&members, 0), endpoint(&members, 1));
    let _session = InFlight::on(stays.clone(), None).unwrap();
    let on_leaving = InFlight::on(leaves.clone(), None).unwrap();

    let change = cluster.update(&options, &[spec(1, "a"), spec(3, "c")]);

    assert_eq!(change, MembershipChange { joined: vec![spec(3, "c").key], left: vec![spec(2, "b").key] });
    assert_eq!(endpoint(&cluster.members_arc(), 0).sessions(), 1);
    assert!(leaves.is_removed() && !stays.is_removed());
    assert!(!on_leaving.is_cut(), "drain is the default");
}

#[test]
fn same_address_with_another_identity_is_another_endpoint() {
    let cluster = cluster();
    let options = Options { on_remove: OnRemove::Cut, ..Options::named("test") };
    cluster.update(&options, &[spec(1, "old")]);
    let old = endpoint(&cluster.members_arc(), 0);
    let session = InFlight::on(old.clone(), None).unwrap();

    cluster.update(&options, &[spec(1, "new")]);

    assert!(old.is_removed() && session.is_cut());
    assert!(!endpoint(&cluster.members_arc(), 0).is_removed());
}

#[test]
fn backup_tier_comes_after_every_primary_endpoint() {
    let cluster = cluster();
    cluster.update(
        &Options::named("test"),
        &[EndpointSpec { tier: BACKUP_TIER, ..spec(3, "c") }, spec(1, "a"), spec(2, "b")],
    );
    let members = cluster.members_arc();
    for _ in 0..4 {
        let order: Vec<_> = cluster.choices(&members, None).map(|e| e.key.clone()).collect();
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], spec(3, "c").key);
    }
}

#[test]
fn forced_end_cuts_the_sessions_of_removed_endpoints_too() {
    let force = CancellationToken::new();
    let cluster = Cluster::new(Options::named("test"), force.clone());
    cluster.update(&Options::named("test"), &[spec(1, "a")]);
    let endpoint = InFlight::on(endpoint(&cluster.members_arc(), 0), None).unwrap();
    cluster.close();
    assert!(!endpoint.is_cut());
    force.cancel();
    assert!(endpoint.is_cut());
}

/// As with an ambassador on each host and a session or two on each ambassador.
#[test]
fn clusters_do_not_all_begin_with_the_same_endpoint() {
    let specs: Vec<_> = (1..=10).map(|port| spec(port, "a")).collect();
    let firsts: BTreeSet<EndpointKey> = (0..100)
        .filter_map(|_| {
            let cluster = cluster();
            cluster.update(&Options::named("test"), &specs);
            Some(cluster.choices(&cluster.members_arc(), None).next()?.key.clone())
        })
        .collect();
    assert!(firsts.len() > 5, "{firsts:?}");
}

/// Their share is spread evenly over all others.
#[test]
fn endpoints_of_last_resort_are_not_part_of_a_pick() {
    for balance in Balance::ALL {
        let options = Options { balance, ..Options::named("test") };
        let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
        cluster.update(&options, &(0..1_000).map(|port| spec(port, "a")).collect::<Vec<_>>());
        let bad = Condition { health: Some(health::State::Unhealthy), ejected: None };
        for (n, (_, member)) in cluster.members_arc().all().enumerate() {
            if ![7, 8, 500, 900].contains(&n) {
                member.endpoint.set_condition(bad);
            }
        }
        let members = cluster.rebuild_plans();
        let mut counts = BTreeMap::new();
        for n in 0..4_000u32 {
            let first = cluster.choices(&members, Some(n.to_be_bytes().into())).next().unwrap();
            assert_ne!(first.condition(), bad);
            *counts.entry(first.key.clone()).or_insert(0) += 1;
        }
        assert!(
            counts.len() == 4 && counts.values().all(|count| (850..1_150).contains(count)),
            "{balance:?} {counts:?}"
        );
        assert_eq!(cluster.choices(&members, None).count(), 4, "{balance:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_joins_others_warms_up_and_the_first_ones_do_not() {
    let options = Options {
        slow_start: Duration::from_secs(100),
        balance: Balance::RoundRobin,
        ..Options::named("test")
    };
    let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
    let share = |key: &EndpointKey| {
        let members = cluster.members_arc();
        let first = |_: &i32| cluster.choices(&members, None).next().is_some_and(|first| first.key == *key);
        (0..1_000).filter(first).count()
    };
    cluster.update(&options, &[spec(1, "a")]);
    cluster.update(&options, &[spec(1, "a"), spec(2, "b")]);
    assert_eq!(share(&spec(2, "b").key), 0);
    tokio::time::advance(Duration::from_secs(50)).await;
    assert!(share(&spec(2, "b").key).abs_diff(250) < 50);
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(share(&spec(2, "b").key), 500);

    let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
    cluster.update(&options, &[spec(1, "a"), spec(2, "b")]);
    let members = cluster.members_arc();
    let firsts: Vec<_> = (0..4).filter_map(|_| cluster.choices(&members, None).next()).collect();
    assert_ne!(firsts[0].key, firsts[1].key);
    assert!(firsts.iter().all(|endpoint| endpoint.warms_since().is_none()));
}

#[test]
fn no_port_of_a_range_wraps_around() {
    let addr = EndpointAddr::Inet(([10, 0, 0, 1], 65_535).into());
    assert_eq!(addr.shifted(0).unwrap(), addr);
    assert_eq!(addr.shifted(1).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
}
