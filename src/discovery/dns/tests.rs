//! Against a name server of our own on the loopback, that says what the test tells it to.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::*;
use crate::discovery::News;

/// What the server says of a name and a kind of record; what is not here does not exist.
type Zone = HashMap<(String, RecordType), Reply>;

#[derive(Clone)]
enum Reply {
    Records(u32, Vec<RData>),
    Code(ResponseCode),
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
            Some(Reply::Code(code)) => answer.metadata.response_code = code,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(Reply::Records(ttl, records)) => {
                answer.add_answers(
                    records.into_iter().map(|data| Record::from_rdata(query.name().clone(), ttl, data)),
                );
            }
        }
        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    }
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
async fn one_kind_that_fails_does_not_lose_the_other() {
    let server = Server::new().await;
    let resolver = server.resolver(&[]);
    server.has("redis.", 9, &["10.0.0.1", "fd00::1"]);
    server.says("redis.", RecordType::A, Reply::Code(ResponseCode::ServFail));
    check(&resolver, "redis", &["fd00::1"]).await;
    server.has("redis.", 9, &["10.0.0.1", "fd00::1"]);
    check(&resolver, "redis", &["10.0.0.1", "fd00::1"]).await;
    // What is known of the kind that fails stands; what is said to be gone goes.
    server.has("redis.", 9, &["10.0.0.2", "fd00::2"]);
    server.says("redis.", RecordType::AAAA, Reply::Code(ResponseCode::Refused));
    check(&resolver, "redis", &["10.0.0.2", "fd00::1"]).await;
    server.has("redis.", 9, &["10.0.0.2"]);
    check(&resolver, "redis", &["10.0.0.2"]).await;
}

#[tokio::test]
async fn a_server_that_fails_is_not_a_name_without_addresses() {
    let server = Server::new().await;
    for kind in [RecordType::A, RecordType::AAAA] {
        server.says("redis.", kind, Reply::Code(ResponseCode::ServFail));
    }
    let why = server.resolver(&[]).lookup("redis").await.unwrap_err();
    assert!(why.contains("redis") && why.contains(&server.address.to_string()), "{why}");
    assert_eq!(server.resolver(&[]).lookup("other").await, Ok(Found::Absent));
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
    resolver.lookup("redis").await.unwrap_err();
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
    news: mpsc::Receiver<News>,
    source: JoinSet<SourceError>,
    trouble: Arc<Notify>,
}

fn follow(host: &str, resolver: &Resolver) -> Followed {
    let (sender, news) = mpsc::channel(16);
    let trouble = Arc::<Notify>::default();
    let mut host =
        Host { host: host.to_owned(), port: 6379, resolver: resolver.clone(), trouble: trouble.clone() };
    let mut source = JoinSet::new();
    source.spawn(async move { host.run(&mut Publisher::new("dns", sender)).await });
    Followed { news, source, trouble }
}

fn ip(endpoint: &EndpointSpec) -> IpAddr {
    match &endpoint.key.addr {
        EndpointAddr::Inet(addr) => addr.ip(),
        EndpointAddr::Unix(path) => panic!("{}", path.display()),
    }
}

impl Followed {
    async fn next(&mut self) -> Vec<IpAddr> {
        let news = timeout(Duration::from_secs(10), self.news.recv()).await.expect("news in time");
        match news.expect("a source that runs") {
            News::Snapshot(Snapshot::Target { endpoints, .. }) => endpoints.iter().map(ip).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn failure(&mut self) -> String {
        let ended = timeout(Duration::from_secs(10), self.source.join_next()).await.expect("an end in time");
        ended.expect("one source").expect("no panic").to_string()
    }
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
    let trouble = source.trouble.clone();
    let mut held_sessions = JoinSet::new();
    held_sessions.spawn(async move {
        loop {
            trouble.notify_waiters();
            sleep(Duration::from_millis(50)).await;
        }
    });
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
async fn a_name_that_vanishes_is_a_failure_and_never_empty() {
    let server = Server::new().await;
    server.has("redis.", 1, &["10.0.0.1"]);
    let resolver = server.resolver(&[]);
    let mut source = follow("redis", &resolver);
    source.next().await;
    server.forgets("redis.");
    let why = source.failure().await;
    assert!(why.contains("redis has no address any more"), "{why}");
    let mut again = follow("redis", &resolver);
    assert_eq!(again.failure().await, why);
    assert!(again.news.try_recv().is_err(), "nothing is published");
    server.has("redis.", 1, &["10.0.0.2"]);
    assert_eq!(follow("redis", &resolver).next().await, ips(&["10.0.0.2"]));
}

#[test]
fn the_systems_files_can_be_read_whatever_is_in_them() {
    let resolver =
        Resolver::new(system::Origin::File(Path::new("/proc/self/exe").into()), "/proc/self/exe".into());
    assert_eq!(resolver.names("redis"), ["redis."]);
}
