//! Labels and their routes.

use std::cell::Cell;
use std::time::SystemTime;

use super::*;
use crate::discovery::docker::fixtures::{container, engine, id, labelled as with, printed};

thread_local! {
    /// Calls of [`Labels::parse`] in this thread.
    pub(crate) static PARSED: Cell<usize> = const { Cell::new(0) };
}

fn routes(now: &Containers, policy: &Policy<'_>) -> (Vec<Route>, Vec<Diagnostic>) {
    Labels::parse(now).routes(policy)
}

fn check(now: &Containers, expected: &[String]) {
    let (routes, mistakes) = read(now);
    assert_eq!(mistakes, []);
    assert_eq!(printed(&routes), expected);
}

/// Before any route is serving.
fn read(now: &Containers) -> (Vec<Route>, Vec<Diagnostic>) {
    routes(now, &Policy::default())
}

fn at(listen: &str, beginning: &str, port: u16) -> String {
    format!("{listen}=docker://{}:{port}", &id(beginning).0[..12])
}

fn labelled_with(key: &str, value: &str) -> (Vec<Route>, Vec<Diagnostic>) {
    read(&engine([("a", with(container("redis", 2), &[(key, value)]))]))
}

#[test]
fn label_is_a_route_to_its_container() {
    let now = engine([
        ("a", with(container("redis", 2), &[("ambassador.listen.6379", "6379"), ("other", "1")])),
        (
            "b",
            with(
                container("dns", 3),
                &[("ambassador.listen.53/udp", "1053"), ("ambassador.register", "dns")],
            ),
        ),
    ]);
    check(&now, &[at("6379", "a", 6379), at("53/udp", "b", 1053)]);
    let (routes, _) = read(&now);
    let place = Place::Label { container: "redis".to_owned(), label: "ambassador.listen.6379".to_owned() };
    assert!(routes.iter().any(|route| route.origin == place));
}

#[test]
fn options_follow_the_port() {
    let (routes, mistakes) = labelled_with("ambassador.listen.127.0.0.1:6379", "6380?hold=30s&name=cache");
    assert_eq!(mistakes, []);
    assert_eq!(printed(&routes), [format!("{}?name=cache&hold=30s", at("127.0.0.1:6379", "a", 6380))]);
}

#[test]
fn replicas_with_one_label_are_targets_of_one_route() {
    let now = engine([
        ("b", with(container("web-1", 2), &[("ambassador.listen.80", "8080?hold=5s")])),
        ("a", with(container("web-2", 3), &[("ambassador.listen.80", "8081?hold=5s")])),
    ]);
    check(&now, &[format!("{},docker://{}:8081?hold=5s", at("80", "b", 8080), &id("a").0[..12])]);
}

#[test]
fn replica_with_other_options_is_a_mistake_and_the_first_by_name_is_used() {
    let now = engine([
        ("a", with(container("web-2", 2), &[("ambassador.listen.80", "80?hold=5s")])),
        ("b", with(container("web-1", 3), &[("ambassador.listen.80", "80")])),
    ]);
    let (routes, mistakes) = read(&now);
    assert_eq!(printed(&routes), [at("80", "b", 80)]);
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].message.contains("web-1") && mistakes[0].message.contains("hold"), "{}", mistakes[0]);
    assert_eq!(mistakes[0].place.to_string(), "container web-2, label ambassador.listen.80");
}

#[test]
fn overlapping_listener_is_a_mistake_and_the_first_by_name_is_used() {
    let now = engine([
        ("a", with(container("one", 2), &[("ambassador.listen.8000-8010", "8000")])),
        (
            "b",
            with(
                container("two", 3),
                &[("ambassador.listen.8005", "80"), ("ambassador.listen.8005/udp", "80")],
            ),
        ),
    ]);
    let (routes, mistakes) = read(&now);
    assert_eq!(printed(&routes), [at("8000-8010", "a", 8000), at("8005/udp", "b", 80)]);
    assert!(mistakes[0].message.contains("8005 overlaps 8000-8010"), "{}", mistakes[0]);
}

#[test]
fn invalid_label_does_not_affect_other_routes() {
    let bad = [
        ("ambassador.listen.", "80"),
        ("ambassador.listen.nonsense", "80"),
        ("ambassador.listen.81", ""),
        ("ambassador.listen.82", "eighty"),
        ("ambassador.listen.83", "0"),
        ("ambassador.listen.84", "65536"),
        ("ambassador.listen.85", "80?no-such-option=1"),
        ("ambassador.listen.86", "80?hold=a&hold=b&x"),
        ("ambassador.listen.99999", "80"),
    ];
    let good = [("ambassador.listen.80", "80")];
    let now = engine([("a", with(with(container("redis", 2), &bad), &good))]);
    let (routes, mistakes) = read(&now);
    assert_eq!(printed(&routes), [at("80", "a", 80)]);
    for (label, value) in bad {
        let place = Place::Label { container: "redis".to_owned(), label: label.to_owned() };
        assert!(mistakes.iter().any(|mistake| mistake.place == place), "{label}={value}");
    }
}

#[test]
fn stopped_container_keeps_its_route() {
    let mut stopped = with(container("redis", 2), &[("ambassador.listen.80", "80")]);
    stopped.running = false;
    check(&engine([("a", stopped)]), &[at("80", "a", 80)]);
}

#[test]
fn own_labels_are_ignored() {
    check(&engine([("0", with(container("ambassador", 2), &[("ambassador.listen.80", "80")]))]), &[]);
}

#[test]
fn labels_of_one_container_are_limited() {
    let wide = [("ambassador.listen.1-65535", "1"), ("ambassador.listen.80/udp", "80")];
    let (routes, mistakes) = read(&engine([("a", with(container("redis", 2), &wide))]));
    assert_eq!(printed(&routes), [at("80/udp", "a", 80)]);
    assert!(mistakes[0].message.contains("more than 4096"), "{}", mistakes[0]);

    let (routes, mistakes) = labelled_with("ambassador.listen.80", &format!("80?{}", "x".repeat(10_000)));
    assert!(routes.is_empty() && mistakes[0].message.contains("4096 bytes"), "{}", mistakes[0]);
    let (_, mistakes) = labelled_with(&format!("ambassador.listen.{}", "9".repeat(10_000)), "80");
    assert!(mistakes[0].to_string().len() < 1000);

    let mut many = container("redis", 2);
    many.labels.extend((1000..1100).map(|port| (format!("ambassador.listen.{port}"), "80".to_owned())));
    let (routes, mistakes) = read(&engine([("a", many)]));
    assert_eq!((routes.len(), mistakes.len()), (64, 1));
}

#[test]
fn labels_of_all_containers_are_limited() {
    let mut now = Containers::default();
    for n in 0..70 {
        let mut one = container(&format!("c{n:02}"), 2);
        let label = |port: usize| (format!("ambassador.listen.{}", 1000 + port), "80".to_owned());
        one.labels.extend((0..LABELS_MAX).map(label));
        now.by_id.insert(id(&format!("{n:02}")), one);
    }
    let (routes, mistakes) = read(&now);
    assert_eq!(routes.iter().map(|route| route.targets.len()).sum::<usize>(), LABELS_TOTAL_MAX);
    assert!(mistakes[0].message.contains("more than 4096"), "{}", mistakes[0]);
    now.by_id.values_mut().for_each(|one| one.labels.values_mut().for_each(|value| "x".clone_into(value)));
    assert_eq!(read(&now).1.len(), MISTAKES_MAX);
}

// Open routes.

fn of_image(container: Container, image: &str) -> Container {
    let image = crate::discovery::docker::model::Image { id: image.to_owned(), is_known: true };
    Container { image, ..container }
}

/// Returns the routes while these are open.
fn read_while(serving: &[Route], now: &Containers) -> (Vec<String>, Vec<Diagnostic>) {
    let serving = serving.iter().map(|route| (&route.listen, route)).collect();
    let (routes, mistakes) = routes(now, &Policy { serving, ..Policy::default() });
    (printed(&routes), mistakes)
}

#[test]
fn serving_container_keeps_its_listener_and_its_name() {
    let db = with(container("db", 2), &[("ambassador.listen.80", "80?name=pg")]);
    let (serving, _) = read(&engine([("b", db.clone())]));
    let evil = of_image(container("aaa", 3), "sha256:evil");
    for label in [
        ("ambassador.listen.80", "80?name=pg"),
        ("ambassador.listen.81", "80?name=pg"),
        ("ambassador.listen.79-80", "1"),
    ] {
        let now = engine([("a", with(evil.clone(), &[label])), ("b", db.clone())]);
        let (routes, mistakes) = read_while(&serving, &now);
        assert_eq!(routes, [format!("{}?name=pg", at("80", "b", 80))], "{label:?}");
        assert!(mistakes.len() == 1 && mistakes[0].to_string().contains("container db"), "{mistakes:?}");
        // Once it is removed, its listener is released to a container of the same name.
        let now = engine([("a", with(evil.clone(), &[label]))]);
        let (routes, mistakes) = read_while(&serving, &now);
        assert_eq!((routes.len(), mistakes.len()), (0, 1), "{mistakes:?}");
        let new = of_image(with(container("db", 2), &[("ambassador.listen.80", "81")]), "sha256:new");
        let now = engine([("a", with(evil.clone(), &[label])), ("c", new)]);
        let (routes, _) = read_while(&serving, &now);
        assert!(routes.contains(&at("80", "c", 81)), "{routes:?}");
    }
}

#[test]
fn before_any_is_serving_the_oldest_container_gets_the_listener() {
    let time = |seconds| Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    let of = |name: &str, created| {
        let labels = [("ambassador.listen.80", "80")];
        Container { created: time(created), ..of_image(with(container(name, 2), &labels), name) }
    };
    let (routes, _) = read(&engine([("a", of("aaa", 2)), ("b", of("zzz", 1))]));
    assert_eq!(printed(&routes), [at("80", "b", 80)]);
}

#[test]
fn ports_within_their_removal_grace_count_towards_the_limit() {
    let (serving, _) =
        read(&engine([("a", with(container("gone", 2), &[("ambassador.listen.1-4000", "1")]))]));
    let more = [("ambassador.listen.5000-5095", "1"), ("ambassador.listen.6000", "1")];
    let now = engine([("b", with(container("new", 3), &more))]);
    let (routes, mistakes) = read_while(&serving, &now);
    assert_eq!(routes, [at("5000-5095", "b", 1)]);
    assert!(mistakes[0].message.contains("more than 4096"), "{}", mistakes[0]);
}

#[test]
fn port_belongs_to_one_container_on_all_addresses_and_never_to_the_admin_api_or_to_peers() {
    let v4 = ("ambassador.listen.127.0.0.1:80", "80");
    let v6 = ("ambassador.listen.[::1]:80", "80");
    let (routes, _) = read(&engine([("a", with(container("a", 2), &[v4, v6]))]));
    assert_eq!(routes.len(), 2, "two addresses of one container");
    let now = engine([("a", with(container("a", 2), &[v4])), ("b", with(container("b", 3), &[v6]))]);
    let (routes, mistakes) = read(&now);
    assert_eq!((routes.len(), mistakes.len()), (1, 1));

    let labels = [("ambassador.listen.[::1]:9900-9902", "80"), ("ambassador.listen.9901/udp", "80")];
    let now = engine([("a", with(container("a", 2), &labels))]);
    let (routes, mistakes) = self::routes(&now, &Policy { admin_port: Some(9901), ..Policy::default() });
    assert_eq!(printed(&routes), [at("9901/udp", "a", 80)]);
    assert!(mistakes[0].message.contains("admin"), "{}", mistakes[0]);

    let labels = [("ambassador.listen.15008", "80"), ("ambassador.listen.15008/udp", "80")];
    let now = engine([("a", with(container("a", 2), &labels))]);
    let secret = PeerSettings { secret_file: Some("/s".into()), ..PeerSettings::default() };
    let (routes, mistakes) = self::routes(&now, &Policy { peer: Some(&secret), ..Policy::default() });
    assert_eq!(printed(&routes), [at("15008/udp", "a", 80)]);
    assert!(mistakes[0].message.contains("peers dial"), "{}", mistakes[0]);
}

#[test]
fn label_may_offer_an_export_if_there_are_credentials() {
    let secret = PeerSettings { secret_file: Some("/s".into()), ..PeerSettings::default() };
    let files = PeerSettings { cert: Some("/c".into()), ca: Some("/a".into()), ..PeerSettings::default() };
    let foreign = PeerSettings { has_foreign_ca: true, ..files.clone() };
    let read = |value: &str, peer: Option<&PeerSettings>| {
        let now = engine([("a", with(container("redis", 2), &[("ambassador.listen.peer:redis", value)]))]);
        routes(&now, &Policy { peer, ..Policy::default() })
    };
    for (value, peer, expected) in [
        ("6379", None, Some("needs credentials for peers")),
        ("6379", Some(PeerSettings::default()), Some("needs credentials for peers")),
        ("6379", Some(secret.clone()), None),
        ("6379?peers=web", Some(secret), Some("self-asserted")),
        ("6379?peers=web&hold=5s", Some(files.clone()), None),
        ("6379?identity=web", Some(files), Some("a label cannot set `identity`")),
        ("6379", Some(foreign), Some("missing `peers`")),
    ] {
        let (routes, mistakes) = read(value, peer.as_ref());
        match expected {
            None => assert_eq!((routes.len(), mistakes), (1, Vec::new()), "{value}"),
            Some(expected) => {
                assert_eq!((routes.len(), mistakes.len()), (0, 1), "{value}");
                assert!(mistakes[0].to_string().contains(expected), "{}", mistakes[0]);
            }
        }
    }
}

#[test]
fn export_belongs_to_the_container_that_serves_it() {
    let secret = PeerSettings { secret_file: Some("/s".into()), ..PeerSettings::default() };
    let policy = Policy { peer: Some(&secret), ..Policy::default() };
    let label = [("ambassador.listen.peer:redis", "6379")];
    let db = with(container("zzz", 2), &label);
    let (serving, _) = routes(&engine([("b", db.clone())]), &policy);
    let evil = of_image(with(container("aaa", 3), &label), "sha256:evil");
    let now = engine([("a", evil), ("b", db)]);
    let policy = Policy { serving: serving.iter().map(|route| (&route.listen, route)).collect(), ..policy };
    let (routes, mistakes) = routes(&now, &policy);
    assert_eq!(printed(&routes), [at("peer:redis", "b", 6379)]);
    assert!(mistakes[0].to_string().contains("container zzz"), "{}", mistakes[0]);
}

#[test]
fn container_of_compose_run_does_not_serve() {
    let labels = [("ambassador.listen.80", "80"), ("com.docker.compose.oneoff", "True")];
    check(&engine([("a", with(container("p-web-run-1", 2), &labels))]), &[]);
}

#[test]
fn unknown_label_is_a_mistake_with_a_suggestion() {
    for (label, hint) in [
        ("ambassador.listem.6383", "`ambassador.listen.6383`"),
        ("ambassador.6384", "`ambassador.listen.6384`"),
        ("ambassador.[::1]:80", "`ambassador.listen.[::1]:80`"),
        ("ambassador.listen", "ambassador.listen.6379"),
        ("ambassador.regster", "`ambassador.register`"),
        ("ambassador.colour", "known labels start with"),
    ] {
        let (routes, mistakes) = labelled_with(label, "6379");
        assert_eq!((routes.len(), mistakes.len()), (0, 1), "{label}");
        assert!(mistakes[0].help.as_ref().unwrap().contains(hint), "{}", mistakes[0]);
    }
    for label in ["ambassador.register", "ambassador.register.6379", "ambassadors.x", "other"] {
        assert_eq!(labelled_with(label, "6379"), (Vec::new(), Vec::new()), "{label}");
    }
}

proptest::proptest! {
    #[test]
    fn every_label_is_a_route_or_a_mistake(
        listen in "[0-9]{1,5}|[0-9]{1,5}-[0-9]{1,5}(/udp)?|\\PC{0,20}",
        value in "[0-9]{0,6}[?]?(hold=[0-9]{0,30}s?|&|=|,|\\PC){0,5}",
    ) {
        let (routes, mistakes) = labelled_with(&format!("ambassador.listen.{listen}"), &value);
        assert!(routes.is_empty() != mistakes.is_empty());
    }
}
