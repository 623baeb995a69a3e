//! What a cluster keeps through its changes.

use std::time::Duration;

use super::condition::Condition;
use super::*;
use std::io;
use std::net::SocketAddr;

use crate::address::BACKUP_TIER;
use crate::address::EndpointAddr;
use crate::address::EndpointKey;
use crate::address::EndpointSpec;
use crate::address::Identity;
use crate::route::OnRemove;

fn spec(port: u16, id: &str) -> EndpointSpec {
    let addr = EndpointAddr::Inet(SocketAddr::from(([10, 0, 0, 1], port)));
    EndpointSpec::new(addr, Identity::Container { id: id.to_owned(), name: "redis".to_owned() })
}

fn endpoint(members: &Members, n: usize) -> Arc<Endpoint> {
    members.all().nth(n).expect("so many").1.endpoint.clone()
}

#[test]
fn another_weight_is_no_other_endpoint() {
    let cluster = cluster();
    cluster.update(&Options::named("test"), &[spec(1, "a")]);
    let before = endpoint(&cluster.members(), 0);
    let change =
        cluster.update(&Options::named("test"), &[EndpointSpec { weight: 5, tier: 7, ..spec(1, "a") }]);
    assert_eq!(change, Change::default());
    let members = cluster.members();
    assert!(Arc::ptr_eq(&before, &endpoint(&members, 0)) && !before.is_removed());
    assert_eq!((members.tiers[0].number, members.tiers[0].members[0].weight), (7, 5));
}

fn cluster() -> Cluster {
    Cluster::new(Options::named("test"), CancellationToken::new())
}

#[test]
fn an_endpoint_that_stays_keeps_its_sessions_and_one_that_leaves_is_told() {
    let cluster = cluster();
    let options = Options::named("test");
    cluster.update(&options, &[spec(1, "a"), spec(2, "b")]);
    let members = cluster.members();
    let (stays, leaves) = (endpoint(&members, 0), endpoint(&members, 1));
    let _session = InFlight::on(stays.clone(), None).unwrap();
    let on_leaving = InFlight::on(leaves.clone(), None).unwrap();

    let change = cluster.update(&options, &[spec(1, "a"), spec(3, "c")]);

    assert_eq!(change, Change { joined: vec![spec(3, "c").key], left: vec![spec(2, "b").key] });
    assert_eq!(endpoint(&cluster.members(), 0).sessions(), 1);
    assert!(leaves.is_removed() && !stays.is_removed());
    assert!(!on_leaving.is_cut(), "drain is the default");
}

#[test]
fn the_same_address_with_another_identity_is_another_endpoint() {
    let cluster = cluster();
    let options = Options { on_remove: OnRemove::Cut, ..Options::named("test") };
    cluster.update(&options, &[spec(1, "dead")]);
    let dead = endpoint(&cluster.members(), 0);
    let session = InFlight::on(dead.clone(), None).unwrap();

    cluster.update(&options, &[spec(1, "stranger")]);

    assert!(dead.is_removed() && session.is_cut());
    assert!(!endpoint(&cluster.members(), 0).is_removed());
}

#[test]
fn the_backup_tier_comes_after_every_primary_endpoint() {
    let cluster = cluster();
    cluster.update(
        &Options::named("test"),
        &[EndpointSpec { tier: BACKUP_TIER, ..spec(3, "c") }, spec(1, "a"), spec(2, "b")],
    );
    let members = cluster.members();
    for _ in 0..4 {
        let order: Vec<_> = cluster.choices(&members, None).map(|e| e.key.clone()).collect();
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], spec(3, "c").key);
    }
}

#[test]
fn forcing_the_process_cuts_also_the_sessions_of_endpoints_that_left_long_ago() {
    let force = CancellationToken::new();
    let cluster = Cluster::new(Options::named("test"), force.clone());
    cluster.update(&Options::named("test"), &[spec(1, "a")]);
    let endpoint = InFlight::on(endpoint(&cluster.members(), 0), None).unwrap();
    cluster.close();
    assert!(!endpoint.is_cut());
    force.cancel();
    assert!(endpoint.is_cut());
}

/// As where an ambassador stands on each host, with a session or two.
#[test]
fn of_many_clusters_with_one_session_each_not_all_begin_with_the_same_endpoint() {
    let specs: Vec<_> = (1..=10).map(|port| spec(port, "a")).collect();
    let firsts: BTreeSet<EndpointKey> = (0..100)
        .filter_map(|_| {
            let cluster = cluster();
            cluster.update(&Options::named("test"), &specs);
            Some(cluster.choices(&cluster.members(), None).next()?.key.clone())
        })
        .collect();
    assert!(firsts.len() > 5, "{firsts:?}");
}

/// However many they are: nobody is looked at to be passed over, and what they are due goes to all others alike.
#[test]
fn endpoints_in_bad_standing_are_no_part_of_a_pick() {
    for balance in crate::route::Balance::ALL {
        let options = Options { balance, ..Options::named("test") };
        let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
        cluster.update(&options, &(0..1_000).map(|port| spec(port, "a")).collect::<Vec<_>>());
        let bad = Condition { health: Some(health::State::Unhealthy), ejected: None };
        for (n, (_, member)) in cluster.members().all().enumerate() {
            if ![7, 8, 500, 900].contains(&n) {
                member.endpoint.set_condition(bad);
            }
        }
        let members = cluster.regroup();
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
async fn who_joins_others_gets_a_growing_share_and_nobody_does_at_the_start() {
    let options = Options {
        slow_start: Duration::from_secs(100),
        balance: crate::route::Balance::RoundRobin,
        ..Options::named("test")
    };
    let cluster = Cluster::seeded(options.clone(), CancellationToken::new(), 1);
    let share = |key: &EndpointKey| {
        let members = cluster.members();
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
    let members = cluster.members();
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
