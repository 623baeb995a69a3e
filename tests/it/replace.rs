//! A running ambassador is replaced under load. The commands are read from `docs/docker.md` and run as they are written there.
//!
//! The clients are on the network of those commands, and look the ambassador's name up in Docker's DNS for each request.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::support::{Container, Host, Namespace, eventually, hosts, needs, pause, redis_ping_on};

const PAGE: &str = include_str!("../../docs/docker.md");
const README: &str = include_str!("../../README.md");

/// The address of the service in those commands.
const SERVICE: &str = "192.168.1.52";

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(2);
const CLIENTS: usize = 3;
/// For one address of the name. Where the old container's network is removed, a connect gets no answer at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// That of most resolvers, which ask twice, as [`lookup`] does.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Which addresses of a name a client connects to.
#[derive(Clone, Copy)]
enum Tries {
    Each,
    First,
}

/// What the requests of some clients came to.
#[derive(Clone, Debug, Default)]
struct Report {
    answered: usize,
    refused: usize,
    /// When each request began and ended that found no container of the name.
    no_such_name: Vec<(Instant, Instant)>,
    other: Vec<String>,
}

/// Clients that send requests until they are dropped.
struct Clients {
    report: Arc<Mutex<Report>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// In the network of a container. Fifty requests have been answered when this returns.
    fn start(from: &Namespace, tries: Tries) -> Clients {
        let mut clients = Clients { report: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for _ in 0..CLIENTS {
            let (report, stop, from) = (Arc::clone(&clients.report), Arc::clone(&clients.stop), from.clone());
            clients.threads.push(thread::spawn(move || {
                from.enter();
                while !stop.load(Ordering::Relaxed) {
                    let (began, answer) = (Instant::now(), request(tries));
                    report.lock().expect("no client panics").add(began, answer);
                    pause(PACE);
                }
            }));
        }
        clients.more(50);
        clients
    }

    fn more(&self, answers: usize) {
        let before = self.report().answered;
        eventually("more answers", || match self.report() {
            report if report.answered >= before + answers => Ok(()),
            report => Err(format!("{report:?}")),
        });
    }

    fn report(&self) -> Report {
        self.report.lock().expect("no client panics").clone()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|client| drop(client.join()));
    }
}

impl Report {
    fn add(&mut self, began: Instant, answer: Result<String>) {
        match answer {
            Ok(_) => self.answered += 1,
            Err(why) if why.kind() == ErrorKind::ConnectionRefused => self.refused += 1,
            Err(why) if why.kind() == ErrorKind::NotFound => self.no_such_name.push((began, Instant::now())),
            Err(why) => self.other.push(why.to_string()),
        }
    }
}

fn request(tries: Tries) -> Result<String> {
    let addresses = lookup("redis")?;
    let count = match tries {
        Tries::Each => addresses.len(),
        Tries::First => 1,
    };
    let mut last = Error::from(ErrorKind::NotFound);
    for ip in addresses.into_iter().take(count) {
        match TcpStream::connect_timeout(&SocketAddr::new(ip, 6379), CONNECT_LIMIT) {
            Ok(stream) => return redis_ping_on(stream),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// The IPv4 addresses that Docker's DNS has for this name, in its order; [`ErrorKind::NotFound`] if there is none.
fn lookup(name: &str) -> Result<Vec<IpAddr>> {
    let name = Name::from_ascii(format!("{name}.")).map_err(Error::other)?;
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, RecordType::A));
    let query = query.to_vec().map_err(Error::other)?;
    let answer = ask_dns(&query).or_else(|_| ask_dns(&query))?;
    let addresses: Vec<IpAddr> = answer.answers.iter().filter_map(|record| address(&record.data)).collect();
    if addresses.is_empty() { Err(ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

fn ask_dns(query: &[u8]) -> Result<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LOOKUP_LIMIT))?;
    socket.send_to(query, "127.0.0.11:53")?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Message::from_vec(&buffer[..length]).map_err(Error::other)
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        _ => None,
    }
}

/// The lines of each indented block of the section with this heading.
fn blocks<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading:?}"));
    let section = rest.split("\n#").next().unwrap_or_default();
    let paragraphs = section.split("\n\n").map(|paragraph| paragraph.lines().collect::<Vec<_>>());
    paragraphs.filter(|lines| lines.iter().all(|line| line.starts_with("    "))).collect()
}

/// The page's two ways: an alias, and names.
fn commands() -> [Vec<&'static str>; 2] {
    blocks(PAGE, "\n## Replace a running ambassador\n").try_into().expect("two blocks")
}

/// The network `app` of the page with a service and a client; removed when dropped.
struct World<'a> {
    host: &'a Host,
    service: Container,
    client: Container,
    _ambassadors: [Container; 5],
    _network: NetworkApp<'a>,
}

struct NetworkApp<'a>(&'a Host);

impl Drop for NetworkApp<'_> {
    fn drop(&mut self) {
        self.0.try_docker("network rm app").ok();
    }
}

impl<'a> World<'a> {
    fn new(host: &'a Host) -> World<'a> {
        let ambassadors = host.named(["app_redis", "app_redis2", "redis", "redis_next", "redis_old"]);
        host.docker("network create app");
        World {
            host,
            service: host.start("service", "--network app crosbymichael/redis"),
            client: host.start("client", "--network app --init busybox sleep 600"),
            _ambassadors: ambassadors,
            _network: NetworkApp(host),
        }
    }

    fn run(&self, line: &str) {
        let line = line.trim().replace(SERVICE, &self.service.ip().to_string());
        if line.contains("# repeat until") {
            eventually(&line, || self.host.try_shell(&line));
        } else {
            self.host.shell(&line);
        }
    }

    /// The ambassador that is to be replaced.
    fn start_old(&self, name: &str, options: &str) {
        self.run(&format!("docker run -d --network app --name {name} {options} ambassador 6379={SERVICE}"));
        self.run(&format!("docker exec {name} ambassador health    # repeat until it prints `ready`"));
    }

    fn clients(&self, tries: Tries) -> Clients {
        Clients::start(&self.client.namespace(), tries)
    }
}

/// A connection that the old ambassador serves until its drain ends: the longest that a replacement takes.
fn keep_open(world: &World<'_>) -> TcpStream {
    world.client.namespace().run(|| {
        let ip = lookup("redis").expect("an ambassador that answered")[0];
        TcpStream::connect((ip, 6379)).expect("an ambassador that answered")
    })
}

#[test]
fn no_client_that_tries_each_address_fails_while_an_alias_moves_to_another_ambassador() {
    let hosts = needs!(hosts());
    let _names = hosts.b.documents_names();
    let world = World::new(&hosts.b);
    world.start_old("app_redis", "--network-alias redis");
    let (each, first) = (world.clients(Tries::Each), world.clients(Tries::First));
    let _kept = keep_open(&world);
    let [alias, _] = commands();
    alias.iter().for_each(|line| world.run(line));
    each.more(50);

    let (each, first) = (each.report(), first.report());
    eprintln!("each address: {each:?}\nfirst address: {first:?}");
    assert_eq!((each.refused, each.no_such_name, each.other), (0, Vec::new(), Vec::new()));
    assert!(first.refused > 0, "the drain was too short to show anything: {first:?}");
}

#[test]
fn no_client_is_refused_while_two_ambassadors_swap_their_names() {
    let hosts = needs!(hosts());
    let _names = hosts.b.documents_names();
    let world = World::new(&hosts.b);
    world.start_old("redis", "");
    let first = world.clients(Tries::First);
    let _kept = keep_open(&world);
    let [_, names] = commands();
    let mut renamed = None;
    for line in names {
        let began = Instant::now();
        world.run(line);
        if line.contains("docker rename") {
            renamed = Some((began, Instant::now()));
        }
    }
    first.more(50);

    let (report, (began, ended)) = (first.report(), renamed.expect("a line of the page"));
    eprintln!("{report:?}; between the names: {:?}", ended - began);
    assert_eq!((report.refused, report.other), (0, Vec::new()));
    let outside = |request: &&(Instant, Instant)| request.1 < began || request.0 > ended;
    assert_eq!(report.no_such_name.iter().find(outside), None, "the name was there");
}

#[test]
fn the_readme_has_the_commands_of_the_page() {
    let readme = blocks(README, "\n### Replace a running ambassador\n");
    assert_eq!(readme, [commands()[0].clone()]);
}
