//! Against a name server of our own on the loopback, that says what the test tells it to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, NS, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::discovery::SourceUpdate;

/// What the server says of a name and a kind of record; what is not here does not exist.
type Zone = HashMap<(String, RecordType), Reply>;

#[derive(Clone, Debug)]
enum Reply {
    Records(u32, Vec<RData>),
    /// With the addresses of these names beside it.
    More(u32, Vec<RData>, Vec<(&'static str, u32, IpAddr)>),
    Code(ResponseCode),
    /// To another server, instead of an answer.
    Referral,
    Silence,
}

struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn new() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, asked) = (Arc::<Mutex<Zone>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(socket, Arc::clone(&zone), Arc::clone(&asked)));
        Server { address, zone, asked, _serving: serving }
    }

    fn says(&self, name: &str, kind: RecordType, reply: Reply) {
        self.zone.lock().unwrap().insert((name.to_owned(), kind), reply);
    }

    fn has(&self, name: &str, ttl: u32, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let of = |kind: RecordType| {
            let ips = ips.iter().filter(|ip| ip.is_ipv4() == (kind == RecordType::A));
            Reply::Records(ttl, ips.map(|ip| data(*ip)).collect())
        };
        self.says(name, RecordType::A, of(RecordType::A));
        self.says(name, RecordType::AAAA, of(RecordType::AAAA));
    }

    fn forgets(&self, name: &str) {
        self.zone.lock().unwrap().retain(|(known, _), _| known != name);
    }

    fn resolver(&self, search: &[&str]) -> Resolver {
        let search = search.iter().map(|domain| (*domain).to_owned()).collect();
        Resolver::with_servers(vec![self.address], search, PathBuf::from("/nowhere/hosts"))
    }
}

fn data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let query = request.queries[0].clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        asked.lock().unwrap().push(name.clone());
        let reply = zone.lock().unwrap().get(&(name, query.query_type())).cloned();
        let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
        answer.add_query(query.clone());
        match reply {
            Some(Reply::Silence) => continue,
            Some(Reply::Referral) => {
                let data = RData::NS(NS(Name::from_ascii("ns.example.").unwrap()));
                answer.add_authority(Record::from_rdata(query.name().clone(), 9, data));
            }
            Some(Reply::Code(code)) => answer.metadata.response_code = code,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(Reply::Records(ttl, records)) => add(&mut answer, query.name(), ttl, records),
            Some(Reply::More(ttl, records, more)) => {
                add(&mut answer, query.name(), ttl, records);
                for (name, ttl, ip) in more {
                    let name = Name::from_ascii(name).unwrap();
                    answer.add_additional(Record::from_rdata(name, ttl, data(ip)));
                }
            }
        }
        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    }
}

fn add(answer: &mut Message, name: &Name, ttl: u32, records: Vec<RData>) {
    answer.add_answers(records.into_iter().map(|data| Record::from_rdata(name.clone(), ttl, data)));
}

fn srv(priority: u16, weight: u16, port: u16, host: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(host).unwrap()))
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

async fn check(resolver: &Resolver, host: &str, expected: &[&str]) {
    assert_eq!(resolver.addresses(host).await, Ok(ips(expected)), "{host}");
}

#[tokio::test]
async fn both_kinds_of_address_are_found_sorted_and_each_once() {
    let server = Server::new().await;
    server.has("redis.", 9, &["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"]);
    check(&server.resolver(&[]), "redis", &["10.0.0.1", "10.0.0.2", "fd00::1"]).await;
}

#[tokio::test]
async fn names_as_compose_makes_them_are_asked_for() {
    let server = Server::new().await;
    server.has("testapp_fpm_1.", 9, &["10.0.0.2"]);
    check(&server.resolver(&[]), "testapp_fpm_1", &["10.0.0.2"]).await;
}

#[tokio::test]
async fn aliases_are_followed() {
    let server = Server::new().await;
    let alias = RData::CNAME(CNAME(Name::from_ascii("real.").unwrap()));
    server.says("alias.", RecordType::A, Reply::Records(5, vec![alias.clone()]));
    server.says("alias.", RecordType::AAAA, Reply::Records(5, vec![alias]));
    server.has("real.", 9, &["10.0.0.2"]);
    check(&server.resolver(&[]), "alias", &["10.0.0.2"]).await;
}

#[tokio::test]
async fn the_search_list_is_tried_in_order() {
    let server = Server::new().await;
    server.has("redis.two.example.", 9, &["10.0.0.2"]);
    server.has("redis.", 9, &["10.0.0.3"]);
    let resolver = server.resolver(&["one.example", "two.example"]);
    check(&resolver, "redis", &["10.0.0.2"]).await;
    check(&resolver, "redis.", &["10.0.0.3"]).await;
    let asked: Vec<String> = server.asked.lock().unwrap().iter().step_by(2).cloned().collect();
    assert_eq!(asked, ["redis.one.example.", "redis.two.example.", "redis."]);
}

#[tokio::test]
async fn a_form_of_the_name_that_fails_does_not_lead_to_the_next() {
    let failures = [
        Reply::Code(ResponseCode::ServFail),
        Reply::Code(ResponseCode::Refused),
        Reply::Code(ResponseCode::Unknown(12)),
        Reply::Referral,
        Reply::Silence,
    ];
    for failure in failures {
        for nothing in [failure.clone(), Reply::Records(1, Vec::new())] {
            let server = Server::new().await;
            server.has("db.", 9, &["10.0.0.9"]);
            server.says("db.corp.example.", RecordType::A, nothing);
            server.says("db.corp.example.", RecordType::AAAA, failure.clone());
            let settings = system::Settings {
                servers: vec![server.address],
                search: vec!["corp.example".to_owned()],
                timeout: Duration::from_millis(300),
                attempts: 1,
                ..system::Settings::default()
            };
            let resolver = Resolver::new(system::Origin::Fixed(settings), "/nowhere/hosts".into());
            let why = resolver.addresses("db").await.expect_err(&format!("{failure:?}"));
            assert!(why.starts_with("db.corp.example.: "), "{failure:?}: {why}");
            assert!(!server.asked.lock().unwrap().contains(&"db.".to_owned()), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn a_form_of_the_name_that_does_not_exist_leads_to_the_next_though_one_question_stays_unanswered() {
    let server = Server::new().await;
    server.has("db.", 9, &["10.0.0.9"]);
    server.says("db.corp.example.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    check(&server.resolver(&["corp.example"]), "db", &["10.0.0.9"]).await;
    // The other way round proves nothing: some servers deny every name when asked for AAAA.
    server.forgets("db.corp.example.");
    server.says("db.corp.example.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.resolver(&["corp.example"]).addresses("db").await.unwrap_err();
}

#[tokio::test]
async fn a_form_of_a_service_that_fails_does_not_lead_to_the_next() {
    let server = Server::new().await;
    server.says("_db._tcp.", RecordType::SRV, Reply::Code(ResponseCode::ServFail));
    server.says("_db._tcp.example.", RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "db.")]));
    let why = server.resolver(&["example"]).services("_db._tcp").await.unwrap_err();
    assert!(why.starts_with("_db._tcp.: "), "{why}");
}

#[tokio::test]
async fn the_second_server_is_asked_when_the_first_is_silent() {
    let (first, second) = (Server::new().await, Server::new().await);
    for kind in [RecordType::A, RecordType::AAAA] {
        first.says("redis.", kind, Reply::Silence);
    }
    second.has("redis.", 9, &["10.0.0.2"]);
    let servers = vec![first.address, second.address];
    let resolver = Resolver::with_servers(servers, Vec::new(), PathBuf::from("/nowhere/hosts"));
    let answered = timeout(Duration::from_secs(14), resolver.addresses("redis")).await;
    assert_eq!(answered.expect("in time"), Ok(ips(&["10.0.0.2"])));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_an_empty_one() {
    let server = Server::new().await;
    server.has("redis.", 9, &["10.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().to_owned();
    let resolver = Resolver::with_servers(vec![server.address], Vec::new(), hosts.clone());
    let why = resolver.addresses("redis").await.unwrap_err();
    assert!(why.starts_with(&hosts.display().to_string()), "{why}");
    let resolver = Resolver::new(system::Origin::File(hosts.clone()), "/nowhere/hosts".into());
    resolver.addresses("redis").await.unwrap_err();
}

#[tokio::test]
async fn one_kind_that_fails_does_not_lose_the_other() {
    let server = Server::new().await;
    let resolver = server.resolver(&[]);
    let mut last = Families::default();
    let mut check = async |expected: &[&str]| {
        last = match resolver.lookup("redis", &last).await {
            Ok(Answer::Has(found)) => found.families,
            other => panic!("{other:?}"),
        };
        assert_eq!(last.addresses(), ips(expected));
    };
    server.has("redis.", 9, &["10.0.0.1", "fd00::1"]);
    server.says("redis.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    check(&["fd00::1"]).await;
    server.has("redis.", 9, &["10.0.0.1", "fd00::1"]);
    check(&["10.0.0.1", "fd00::1"]).await;
    // What is known of the kind that fails stands; what is said to be gone goes.
    server.has("redis.", 9, &["10.0.0.2", "fd00::2"]);
    server.says("redis.", RecordType::AAAA, Reply::Code(ResponseCode::Refused));
    check(&["10.0.0.2", "fd00::1"]).await;
    server.has("redis.", 9, &["10.0.0.2"]);
    check(&["10.0.0.2"]).await;
}

#[tokio::test]
async fn a_server_that_fails_is_not_a_name_without_addresses() {
    let server = Server::new().await;
    for kind in [RecordType::A, RecordType::AAAA] {
        server.says("redis.", kind, Reply::Code(ResponseCode::ServFail));
    }
    let none = Families::default();
    let why = server.resolver(&[]).lookup("redis", &none).await.unwrap_err();
    assert!(why.contains("redis") && why.contains(&server.address.to_string()), "{why}");
    let denied = format!("no such name (asked {})", server.address);
    assert_eq!(server.resolver(&[]).lookup("other", &none).await, Ok(Answer::Denied(denied)));
    server.has("other.", 9, &[]);
    let denied = format!("no address (asked {})", server.address);
    assert_eq!(server.resolver(&[]).lookup("other", &none).await, Ok(Answer::Denied(denied)));
}

#[tokio::test]
async fn a_server_that_is_silent_is_given_up() {
    let server = Server::new().await;
    for kind in [RecordType::A, RecordType::AAAA] {
        server.says("redis.", kind, Reply::Silence);
    }
    let resolver = server.resolver(&[]);
    let begun = Instant::now();
    tokio::time::pause();
    resolver.addresses("redis").await.unwrap_err();
    assert!(begun.elapsed() <= Duration::from_secs(16), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_no_name_is_told() {
    let server = Server::new().await;
    for host in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
        assert!(server.resolver(&[]).addresses(host).await.is_err(), "{host}");
    }
}

#[tokio::test]
async fn the_hosts_file_goes_first_and_is_read_again() {
    let server = Server::new().await;
    server.has("redis.", 9, &["10.0.0.1"]);
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    let resolver = Resolver::with_servers(vec![server.address], Vec::new(), hosts.clone());
    check(&resolver, "redis", &["10.0.0.1"]).await;
    std::fs::write(&hosts, "10.9.9.9 redis\n").unwrap();
    check(&resolver, "redis", &["10.9.9.9"]).await;
    std::fs::write(&hosts, "10.9.9.8 other redis\n").unwrap();
    check(&resolver, "redis", &["10.9.9.8"]).await;
    std::fs::write(&hosts, "").unwrap();
    check(&resolver, "redis", &["10.0.0.1"]).await;
}

#[tokio::test]
async fn the_servers_are_those_that_the_file_names_now() {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    let resolver = Resolver::new(system::Origin::File(resolv_conf.clone()), directory.path().join("hosts"));
    std::fs::write(&resolv_conf, "search one.example\nunknown directive\n").unwrap();
    assert_eq!(resolver.names("redis"), ["redis.one.example.", "redis."]);
    std::fs::write(&resolv_conf, "search two.example\nnameserver 127.0.0.11\n").unwrap();
    assert_eq!(resolver.names("redis"), ["redis.two.example.", "redis."]);
}

// === as a source ===

/// A source that runs, and what it publishes.
struct Followed {
    news: mpsc::Receiver<SourceUpdate>,
    trouble: Arc<Notify>,
    _source: AbortOnDropHandle<()>,
}

fn follow(target: &str, resolver: &Resolver) -> Followed {
    follow_within(target, resolver, Limits::default())
}

fn follow_within(target: &str, resolver: &Resolver, limits: Limits) -> Followed {
    let (sender, news) = mpsc::channel(16);
    let trouble = Arc::<Notify>::default();
    let target = match target.strip_prefix("srv://") {
        Some(name) => Target::Srv { name: name.to_owned() },
        None => Target::Host { host: target.to_owned(), port: 6379 },
    };
    let source = Dns::of(&target, resolver.clone().within(limits), trouble.clone()).expect("a name");
    Followed { news, trouble, _source: super::super::follow(source, sender) }
}

fn ip(endpoint: &EndpointSpec) -> IpAddr {
    match &endpoint.key.addr {
        EndpointAddr::Inet(addr) => addr.ip(),
        EndpointAddr::Unix(path) => panic!("{}", path.display()),
    }
}

impl Followed {
    async fn news(&mut self) -> SourceUpdate {
        let news = timeout(Duration::from_secs(10), self.news.recv()).await.expect("news in time");
        news.expect("a source that runs")
    }

    async fn endpoints(&mut self) -> Vec<EndpointSpec> {
        match self.news().await {
            SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. }) => endpoints,
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> Vec<IpAddr> {
        self.endpoints().await.iter().map(ip).collect()
    }

    async fn failure(&mut self) -> String {
        match self.news().await {
            SourceUpdate::Lost { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }
}

/// They say again and again that nothing answers.
fn held_sessions(source: &Followed) -> JoinSet<()> {
    let trouble = source.trouble.clone();
    let mut sessions = JoinSet::new();
    sessions.spawn(async move {
        loop {
            trouble.notify_waiters();
            sleep(Duration::from_millis(50)).await;
        }
    });
    sessions
}

#[tokio::test]
async fn a_changed_address_is_published_once_its_ttl_has_passed() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
    server.has("redis.", 1, &["10.0.0.2", "10.0.0.3"]);
    let changed = Instant::now();
    assert_eq!(source.next().await, ips(&["10.0.0.2", "10.0.0.3"]));
    assert!(changed.elapsed() < Duration::from_secs(3), "{:?}", changed.elapsed());
}

#[tokio::test]
async fn while_its_addresses_do_not_answer_a_name_is_asked_for_before_its_ttl_has_passed() {
    let server = Server::new().await;
    server.has("redis.", 600, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    source.next().await;
    server.has("redis.", 600, &["10.0.0.2"]);
    let _held_sessions = held_sessions(&source);
    assert_eq!(source.next().await, ips(&["10.0.0.2"]));
    assert_eq!(server.asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_server_is_asked_no_more_than_once_a_second() {
    let server = Server::new().await;
    server.has("redis.", 0, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    source.next().await;
    server.has("redis.", 0, &["10.0.0.2"]);
    let begun = Instant::now();
    source.next().await;
    assert!(begun.elapsed() > Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!(server.asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_name_that_is_not_there_yet_is_empty_until_it_is() {
    let server = Server::new().await;
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&[]));
    server.has("redis.", 1, &["10.0.0.1"]);
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
}

#[tokio::test]
async fn silent_server_is_reported_before_the_first_lookup_has_failed_and_once() {
    let server = Server::new().await;
    server.says("redis.", RecordType::A, Reply::Silence);
    server.says("redis.", RecordType::AAAA, Reply::Silence);
    let begun = Instant::now();
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.failure().await, format!("no answer (asked {})", server.address));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.has("redis.", 1, &["10.0.0.1"]);
    let back = timeout(Duration::from_secs(30), source.news.recv()).await.unwrap();
    assert!(matches!(back, Some(SourceUpdate::Snapshot(_))), "{back:?}");
}

#[tokio::test]
async fn a_name_that_vanishes_is_lost_once_and_found_again_but_never_empty() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
    server.forgets("redis.");
    let why = source.failure().await;
    assert!(why.contains("no such name (asked 127."), "{why}");
    sleep(Duration::from_millis(500)).await;
    assert!(source.news.try_recv().is_err(), "it is said once, and nothing is published");
    server.has("redis.", 1, &["10.0.0.1"]);
    assert_eq!(source.next().await, ips(&["10.0.0.1"]), "the same again, so that it is known to be back");
    server.says("redis.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.says("redis.", RecordType::AAAA, Reply::Code(ResponseCode::ServFail));
    source.failure().await;
}

/// The back-off of its source would have grown to more than three seconds by then, and at its longest outlives `hold`.
#[tokio::test]
async fn a_name_that_was_away_for_seconds_is_found_within_one_while_sessions_wait_for_it() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let mut source = follow("redis", &server.resolver(&[]));
    source.next().await;
    server.forgets("redis.");
    source.failure().await;
    let _held_sessions = held_sessions(&source);
    sleep(Duration::from_secs(5)).await;
    server.has("redis.", 600, &["10.0.0.2"]);
    let back = Instant::now();
    assert_eq!(source.next().await, ips(&["10.0.0.2"]));
    assert!(back.elapsed() < Duration::from_millis(1500), "{:?}", back.elapsed());
}

/// As `limits` says of 2.5 s.
async fn check_stale(
    limits: impl Fn(Duration) -> Limits,
    break_it: impl Fn(&Server),
    said: &str,
) -> (Server, Followed) {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let stale = Duration::from_millis(2500);
    let mut source = follow_within("redis", &server.resolver(&[]), limits(stale));
    let answered = Instant::now();
    source.next().await;
    break_it(&server);
    let why = source.failure().await;
    assert!(why.contains(said), "{why}");
    match source.news().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
    assert!(answered.elapsed() > stale, "{:?}", answered.elapsed());
    (server, source)
}

#[tokio::test]
async fn a_denied_name_keeps_its_addresses_for_the_short_hold_alone_and_is_lost_until_it_is_back() {
    let denied = |nx_stale| Limits { nx_stale, ..Limits::default() };
    let forgets = |server: &Server| server.forgets("redis.");
    let (server, mut source) = check_stale(denied, forgets, "no such name").await;
    sleep(Duration::from_millis(500)).await;
    assert!(source.news.try_recv().is_err(), "still lost, said once");
    server.has("redis.", 1, &["10.0.0.1"]);
    assert_eq!(source.next().await, ips(&["10.0.0.1"]));
}

#[tokio::test]
async fn servers_that_stay_away_are_believed_for_the_stale_time_and_then_nothing_is_known() {
    let fails = |server: &Server| {
        for kind in [RecordType::A, RecordType::AAAA] {
            server.says("redis.", kind, Reply::Code(ResponseCode::ServFail));
        }
    };
    // However short the hold for denials is.
    let failed = |stale| Limits { stale, nx_stale: Duration::ZERO, ..Limits::default() };
    let (_server, mut source) = check_stale(failed, fails, "redis").await;
    sleep(Duration::from_millis(500)).await;
    assert!(source.news.try_recv().is_err(), "still lost, said once");
}

// === SRV ===

/// As `ADDRESS tier weight`.
fn shown(endpoints: &[EndpointSpec]) -> Vec<String> {
    endpoints.iter().map(|spec| format!("{} {} {}", spec.key, spec.tier, spec.weight)).collect()
}

const REDIS: &str = "_redis._tcp.example.";

#[tokio::test]
async fn a_services_records_say_hosts_ports_tiers_and_weights() {
    let server = Server::new().await;
    let records = vec![srv(10, 60, 6379, "One.example."), srv(20, 0, 6380, "two.example.")];
    server.says(REDIS, RecordType::SRV, Reply::Records(600, records));
    server.has("one.example.", 600, &["10.0.0.1", "fd00::1"]);
    server.has("two.example.", 1, &["10.0.0.2"]);
    let mut source = follow("srv://_redis._tcp", &server.resolver(&["example"]));
    let first = [
        "10.0.0.1:6379 (one.example) 10 60",
        "10.0.0.2:6380 (two.example) 20 1",
        "[fd00::1]:6379 (one.example) 10 60",
    ];
    assert_eq!(shown(&source.endpoints().await), first);
    // The least TTL of all is when to ask again.
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(10, 1, 7000, "two.example.")]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.2:7000 (two.example) 10 1"]);
}

#[tokio::test]
async fn addresses_that_come_with_the_records_are_not_asked_for() {
    let server = Server::new().await;
    let more = vec![("one.example.", 600, "10.0.0.1".parse().unwrap())];
    server.says(REDIS, RecordType::SRV, Reply::More(600, vec![srv(1, 1, 6379, "one.example.")], more));
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:6379 (one.example) 1 1"]);
    assert_eq!(*server.asked.lock().unwrap(), [REDIS]);
}

#[tokio::test]
async fn the_hosts_file_goes_before_addresses_that_come_with_the_records() {
    let server = Server::new().await;
    let more = vec![("one.example.", 600, "10.0.0.1".parse().unwrap())];
    server.says(REDIS, RecordType::SRV, Reply::More(600, vec![srv(1, 1, 6379, "one.example.")], more));
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "10.9.9.9 one.example\n").unwrap();
    let resolver = Resolver::with_servers(vec![server.address], Vec::new(), hosts);
    let mut source = follow(&format!("srv://{REDIS}"), &resolver);
    assert_eq!(shown(&source.endpoints().await), ["10.9.9.9:6379 (one.example) 1 1"]);
}

#[tokio::test]
async fn a_service_whose_only_host_is_denied_keeps_it_for_the_short_hold() {
    let server = Server::new().await;
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    let limits = Limits { nx_stale: Duration::from_millis(2500), ..Limits::default() };
    let mut source = follow_within(&format!("srv://{REDIS}"), &server.resolver(&[]), limits);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets("one.example.");
    match source.news().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
    let why = source.failure().await;
    assert!(why.contains("one.example.: no such name"), "{why}");
    server.has("one.example.", 1, &["10.0.0.1"]);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets(REDIS);
    let why = source.failure().await;
    assert!(why.contains("no such name"), "{why}");
    match source.news().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_that_fails_keeps_its_addresses_and_takes_no_other_with_it() {
    let server = Server::new().await;
    let records =
        vec![srv(1, 1, 1, "one.example."), srv(1, 1, 2, "two.example."), srv(1, 1, 3, "gone.example.")];
    server.says(REDIS, RecordType::SRV, Reply::Records(1, records));
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.has("two.example.", 1, &["10.0.0.2"]);
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    let both = ["10.0.0.1:1 (one.example) 1 1", "10.0.0.2:2 (two.example) 1 1"];
    assert_eq!(shown(&source.endpoints().await), both);
    server.says("one.example.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    server.forgets("two.example.");
    server.has("gone.example.", 1, &["10.0.0.3"]);
    let three =
        ["10.0.0.1:1 (one.example) 1 1", "10.0.0.2:2 (two.example) 1 1", "10.0.0.3:3 (gone.example) 1 1"];
    assert_eq!(shown(&source.endpoints().await), three);
}

#[tokio::test]
async fn a_service_that_is_not_there_yet_is_empty_and_one_that_vanishes_is_lost() {
    let server = Server::new().await;
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    assert_eq!(shown(&source.endpoints().await), [""; 0]);
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets(REDIS);
    let why = source.failure().await;
    assert!(why.contains("no such name"), "{why}");
    // The root is the word for "not offered here": an answer, so nothing stands.
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(0, 0, 0, ".")]));
    assert_eq!(shown(&source.endpoints().await), [""; 0]);
}

#[tokio::test]
async fn an_offer_of_a_host_that_cannot_be_found_does_not_take_away_the_one_before() {
    let server = Server::new().await;
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    let mut source = follow(&format!("srv://{REDIS}"), &server.resolver(&[]));
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "two.example.")]));
    let why = source.failure().await;
    assert!(why.contains("two.example.: no such name"), "{why}");
    sleep(Duration::from_millis(1500)).await;
    assert!(source.news.try_recv().is_err(), "what was offered stands");
    server.has("two.example.", 1, &["10.0.0.2"]);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.2:1 (two.example) 1 1"]);
}

#[tokio::test]
async fn a_host_that_nobody_confirms_expires_though_the_service_is_still_offered() {
    let server = Server::new().await;
    server.has("one.example.", 1, &["10.0.0.1"]);
    server.says(REDIS, RecordType::SRV, Reply::Records(1, vec![srv(1, 1, 1, "one.example.")]));
    let limits = Limits { stale: Duration::from_millis(2500), ..Limits::default() };
    let mut source = follow_within(&format!("srv://{REDIS}"), &server.resolver(&[]), limits);
    assert_eq!(shown(&source.endpoints().await), ["10.0.0.1:1 (one.example) 1 1"]);
    server.forgets("one.example.");
    // Its address stands until it is stale, so that nothing is lost before.
    match source.news().await {
        SourceUpdate::Expired(Snapshot::Target { endpoints, .. }) => assert_eq!(endpoints, []),
        other => panic!("{other:?}"),
    }
    source.failure().await;
}

#[test]
fn the_systems_files_can_be_read_whatever_is_in_them() {
    let resolver =
        Resolver::new(system::Origin::File(Path::new("/proc/self/exe").into()), "/proc/self/exe".into());
    assert_eq!(resolver.names("redis"), ["redis."]);
}

#[tokio::test]
async fn server_that_cannot_be_reached_is_reported_with_the_cause() {
    // A broadcast address: connect(2) fails with EACCES wherever the test runs.
    let server = SocketAddr::from(([255, 255, 255, 255], 53));
    let resolver = Resolver::with_servers(vec![server], Vec::new(), PathBuf::from("/nonexistent"));
    let why = resolver.addresses("redis.test").await.unwrap_err();
    assert!(why.contains("permission denied (asked 255.255.255.255:53)"), "{why}");
}
