//! The sentences and the undo of each command.

use super::*;
use crate::address::{EndpointAddr, Identity};
use crate::config::grammar::parse_route;

/// A route with two endpoints `a` and `b`, each with sessions, and what a command changes of it.
struct Case {
    before: Override,
    after: Override,
    line: &'static str,
    after_line: Option<&'static str>,
    origin: Place,
    held: usize,
    sessions: [usize; 2],
    broken: bool,
    endpoints: Option<Vec<EndpointSpec>>,
    problems: Vec<String>,
    on_remove: OnRemove,
    is_pending: bool,
    trial: Option<Trial>,
    followed: Vec<Target>,
}

const LINE: &str = "6379=10.0.0.1:1,10.0.0.2:1?name=r";

fn key(n: u8) -> EndpointKey {
    EndpointKey { addr: EndpointAddr::Inet(([10, 0, 0, n], 1).into()), identity: Identity::Literal }
}

fn spec(n: u8, weight: u32, tier: u32) -> EndpointSpec {
    EndpointSpec { key: key(n), weight, tier }
}

fn route(line: &str, origin: &Place) -> Route {
    parse_route(line, origin).unwrap()
}

fn targets(line: &str) -> Vec<Target> {
    route(&format!("1={line}"), &Place::Operator).targets
}

impl Default for Case {
    fn default() -> Case {
        Case {
            before: Override::default(),
            after: Override::default(),
            line: LINE,
            after_line: Some(LINE),
            origin: Place::Argument(1),
            held: 0,
            sessions: [2, 1],
            broken: false,
            endpoints: None,
            problems: Vec::new(),
            on_remove: OnRemove::Drain,
            is_pending: false,
            trial: None,
            followed: Vec::new(),
        }
    }
}

fn weighed(change: &Override, mut endpoints: Vec<EndpointSpec>) -> Vec<EndpointSpec> {
    for endpoint in &mut endpoints {
        endpoint.weight = change.weights.get(&endpoint.key).copied().unwrap_or(endpoint.weight);
        endpoint.weight = if change.drained.contains(&endpoint.key) { 0 } else { endpoint.weight };
    }
    endpoints
}

impl Case {
    fn result(self) -> (Vec<String>, Option<Command>) {
        let before = route(self.line, &self.origin);
        let after = self.after_line.map(|line| route(line, &self.origin));
        let specs = || vec![spec(1, 1, 0), spec(2, 1, 0)];
        let serving = weighed(&self.before, specs()).into_iter().zip(self.sessions);
        let change = Change {
            before: Some(Before {
                source: before.clone(),
                serving: before.targets.clone(),
                route: before,
                change: self.before,
                open: self.sessions.iter().sum(),
                held: self.held,
                endpoints: serving
                    .map(|(spec, sessions)| Serving { spec, sessions, is_ok: !self.broken })
                    .collect(),
            }),
            after: after.map(|route| After {
                route,
                endpoints: weighed(&self.after, self.endpoints.unwrap_or_else(specs)),
                change: self.after,
                problems: self.problems,
                on_remove: self.on_remove,
                is_pending: self.is_pending,
            }),
            trial: self.trial,
            followed: self.followed,
            max_held: 10_000,
        };
        (effects(&change), undo(&change))
    }
}

fn check(case: Case, expected: &[&str], undone_by: Option<Command>) {
    assert_eq!(case.result(), (expected.iter().map(|text| (*text).to_owned()).collect(), undone_by));
}

fn paused() -> Override {
    Override { paused: true, ..Override::default() }
}

fn drained(endpoints: &[u8]) -> Override {
    Override { drained: endpoints.iter().map(|n| key(*n)).collect(), ..Override::default() }
}

fn weight(n: u8, weight: u32) -> Override {
    Override { weights: [(key(n), weight)].into(), ..Override::default() }
}

fn switched(line: &str) -> Override {
    Override { targets: Some(targets(line)), ..Override::default() }
}

fn named() -> String {
    "r".to_owned()
}

const RESUMED_FROM: &str = "the route is paused: new sessions are held until it is resumed";

#[test]
fn pause_and_resume() {
    check(
        Case { after: paused(), held: 1, ..Case::default() },
        &[
            "3 open sessions continue",
            "1 held session stays held",
            "new sessions are held until the route is resumed; `hold` does not run meanwhile",
            "at most 10000 sessions are held at a time, over all routes; further ones are reset (hold-full)",
        ],
        Some(Command::Resume { route: named() }),
    );
    check(
        Case { before: paused(), held: 2, sessions: [1, 0], ..Case::default() },
        &[
            "2 held sessions are connected first",
            "new sessions use 10.0.0.1:1, 10.0.0.2:1",
            "1 open session continues",
        ],
        Some(Command::Pause { route: named() }),
    );
    check(
        Case { before: paused(), broken: true, sessions: [0, 0], ..Case::default() },
        &["new sessions use 10.0.0.1:1, 10.0.0.2:1, which are all unavailable now"],
        Some(Command::Pause { route: named() }),
    );
    check(
        Case { before: paused(), held: 2, sessions: [0, 0], endpoints: Some(Vec::new()), ..Case::default() },
        &["no endpoint takes sessions: new sessions are held up to 10s, then reset (no-endpoint)"],
        Some(Command::Pause { route: named() }),
    );
    check(Case { before: paused(), after: paused(), ..Case::default() }, &["nothing changes"], None);
}

#[test]
fn switch_names_the_targets_and_the_sessions_that_are_left() {
    let to_three = || Case {
        after: switched("10.0.0.3:1"),
        after_line: Some("6379=10.0.0.3:1?name=r"),
        endpoints: Some(vec![spec(3, 1, 0)]),
        ..Case::default()
    };
    let switch = |targets: Option<&str>| {
        let targets = targets.map(str::to_owned);
        Some(Command::Switch(SwitchRequest { route: named(), targets, old: None, trial: None }))
    };
    let new = "new sessions use 10.0.0.3:1 instead of 10.0.0.1:1, 10.0.0.2:1";
    let unchecked = "whether the new endpoints answer is not checked first";
    check(to_three(), &[unchecked, new, "3 open sessions on 10.0.0.1:1, 10.0.0.2:1 continue"], switch(None));
    check(
        Case { on_remove: OnRemove::Cut, sessions: [1, 0], ..to_three() },
        &[unchecked, new, "1 open session on 10.0.0.1:1, 10.0.0.2:1 is reset"],
        switch(None),
    );
    check(
        Case { before: switched("10.0.0.1:1,10.0.0.2:1"), sessions: [0, 0], ..to_three() },
        &[unchecked, new],
        switch(Some("10.0.0.1:1,10.0.0.2:1")),
    );
    check(
        Case { trial: Some(Trial { timeout: Some(Duration::from_secs(300)) }), ..to_three() },
        &[
            "each new endpoint must accept a connection first; until then the previous ones are used",
            new,
            "3 open sessions on 10.0.0.1:1, 10.0.0.2:1 continue",
            "the switch is rolled back to 10.0.0.1:1, 10.0.0.2:1 if after 5m an endpoint has not answered, or an old one \
             still has sessions",
        ],
        switch(None),
    );
    check(
        Case { before: paused(), after: Override { paused: true, ..switched("10.0.0.3:1") }, ..to_three() },
        &[unchecked, RESUMED_FROM, "3 open sessions on 10.0.0.1:1, 10.0.0.2:1 continue"],
        switch(None),
    );
    check(
        Case {
            after: switched("db:1"),
            after_line: Some("6379=db:1?name=r"),
            endpoints: None,
            is_pending: true,
            followed: targets("db:1"),
            problems: vec!["db:1: not known yet".to_owned()],
            ..Case::default()
        },
        &[
            "the endpoints of db:1 are looked up first",
            "the previous targets (10.0.0.1:1, 10.0.0.2:1) are used until db:1 has an endpoint",
            unchecked,
            "new sessions use db:1 instead of 10.0.0.1:1, 10.0.0.2:1",
            "the open sessions on replaced endpoints then continue",
        ],
        switch(None),
    );
}

#[test]
fn drain_names_the_endpoints_that_remain() {
    let drain = |n: u8| Some(Command::Drain { route: named(), endpoint: key(n).to_string() });
    let undrain = |n: u8| Some(Command::Undrain { route: named(), endpoint: key(n).to_string() });
    check(
        Case { after: drained(&[1]), ..Case::default() },
        &[
            "10.0.0.1:1 takes no new sessions",
            "2 open sessions on 10.0.0.1:1 continue",
            "new sessions use 10.0.0.2:1",
        ],
        undrain(1),
    );
    check(
        Case { after: drained(&[2]), broken: true, sessions: [0, 0], ..Case::default() },
        &["10.0.0.2:1 takes no new sessions", "new sessions use 10.0.0.1:1, which is unavailable now"],
        undrain(2),
    );
    let both = || Case { before: drained(&[1]), after: drained(&[1, 2]), ..Case::default() };
    let last = [
        "10.0.0.2:1 takes no new sessions",
        "1 open session on 10.0.0.2:1 continues",
        "no endpoint takes sessions: new sessions are held up to 10s, then reset (no-endpoint)",
    ];
    check(both(), &last, undrain(2));
    let line = "6379=10.0.0.1:1,10.0.0.2:1?name=r&hold=0s";
    check(
        Case { line, after_line: Some(line), ..both() },
        &[last[0], last[1], "no endpoint takes sessions: new sessions are reset (no-endpoint)"],
        undrain(2),
    );
    let backup = spec(3, 1, BACKUP_TIER);
    check(
        Case { endpoints: Some(vec![spec(1, 1, 0), spec(2, 1, 0), backup]), ..both() },
        &[
            last[0],
            last[1],
            "no endpoint of the targets takes sessions: new sessions use the backups, 10.0.0.3:1",
        ],
        undrain(2),
    );
    check(
        Case { before: drained(&[1, 2]), after: drained(&[1]), held: 1, ..Case::default() },
        &["10.0.0.2:1 takes new sessions again, all of them", "1 held session is connected first"],
        drain(2),
    );
    check(
        Case { before: drained(&[1]), after: drained(&[1]), ..Case::default() },
        &["nothing changes"],
        None,
    );
}

#[test]
fn weight_names_the_share_of_new_sessions() {
    let undo = |n: u8, weight| Some(Command::Weight { route: named(), endpoint: key(n).to_string(), weight });
    check(
        Case { after: weight(1, 3), ..Case::default() },
        &[
            "the weight of 10.0.0.1:1 is 3 instead of 1",
            "10.0.0.1:1 takes about 75 % of the new sessions instead of about 50 %",
        ],
        undo(1, None),
    );
    check(
        Case { before: weight(1, 3), after: weight(1, 0), ..Case::default() },
        &[
            "10.0.0.1:1 takes no new sessions",
            "2 open sessions on 10.0.0.1:1 continue",
            "new sessions use 10.0.0.2:1",
        ],
        undo(1, Some(3)),
    );
    check(
        Case { before: weight(1, 0), ..Case::default() },
        &[
            "the weight of 10.0.0.1:1 is 1 instead of 0",
            "10.0.0.1:1 takes about 50 % of the new sessions instead of none",
        ],
        undo(1, Some(0)),
    );
    check(
        Case { after: weight(1, 1), ..Case::default() },
        &["the weight of 10.0.0.1:1 is still 1"],
        undo(1, None),
    );
    let both = Override { weights: weight(1, 3).weights, ..drained(&[1]) };
    check(
        Case { before: drained(&[1]), after: both, ..Case::default() },
        &["10.0.0.1:1 stays drained; the weight applies once it is not"],
        undo(1, None),
    );
}

#[test]
fn remove_names_what_happens_to_the_sessions_and_how_the_route_comes_back() {
    let removed = || Case { after_line: None, ..Case::default() };
    let stays = "the route stays closed until it is restored, or until the next restart";
    check(
        Case { held: 2, ..removed() },
        &[
            "the listener 6379 closes",
            "3 open sessions continue",
            "2 held sessions end as no-endpoint when `hold` has passed (10s)",
            stays,
        ],
        Some(Command::Restore { route: named() }),
    );
    for (line, says) in [
        ("6379=10.0.0.1:1?name=r&on-remove=cut", "3 open sessions are reset"),
        ("6379/udp=10.0.0.1:1?name=r", "3 open sessions end"),
    ] {
        assert_eq!(Case { line, ..removed() }.result().0[1], says);
    }
    check(
        Case { origin: Place::Operator, before: paused(), sessions: [0, 0], ..removed() },
        &["the listener 6379 closes", "the manual changes of the route are discarded"],
        Some(Command::Add { line: LINE.to_owned() }),
    );
    let line = "peer:redis=10.0.0.1:1?name=r";
    assert_eq!(Case { line, ..removed() }.result().0[0], "peers can no longer use redis");
}

#[test]
fn add_names_the_listener_and_what_is_looked_up() {
    let opened = |line: &str, endpoints: Vec<EndpointSpec>, followed: Vec<Target>| {
        let route = route(line, &Place::Operator);
        let after = After {
            route: route.clone(),
            change: Override::default(),
            endpoints,
            problems: vec!["db:1: not known yet".to_owned()],
            on_remove: OnRemove::Drain,
            is_pending: false,
        };
        let change = Change { before: None, after: Some(after), trial: None, followed, max_held: 1 };
        assert_eq!(undo(&change), Some(Command::Remove { route: route.options.name.clone() }));
        effects(&change)
    };
    assert_eq!(
        opened("127.0.0.1:0=db:1", Vec::new(), targets("db:1")),
        [
            "the listener 127.0.0.1:0 opens on a free port",
            "the endpoints of db:1 are looked up first",
            "no endpoint takes sessions: new sessions are held up to 10s, then reset (no-endpoint)",
        ]
    );
    assert_eq!(
        opened("peer:redis=10.0.0.1:1,db:1", vec![spec(1, 1, 0)], Vec::new()),
        ["peers can use redis", "db:1: not known yet", "new sessions use 10.0.0.1:1"]
    );
}

#[test]
fn restore_without_a_route_opens_nothing() {
    let change = Change { before: None, after: None, trial: None, followed: Vec::new(), max_held: 1 };
    assert!(effects(&change)[0].starts_with("no route opens now"));
    assert_eq!(undo(&change), None);
}

#[test]
fn list_is_short() {
    assert_eq!(list(&[1, 2, 3]), "1, 2, 3");
    assert_eq!(list(&[1, 2, 3, 4, 5]), "1, 2, 3 and 2 more");
}
