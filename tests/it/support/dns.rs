//! A name server on a private loopback address, with records set by the test.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::names::private_ip;

/// Records by name, in lower case and with the trailing dot.
#[derive(Default)]
struct Zone {
    records: HashMap<String, (u32, Vec<RData>)>,
    failing: HashSet<String>,
    is_silent: bool,
}

/// The approximate maximum of records in a datagram.
const DATAGRAM_MAX: usize = 30;

/// A fake name server, which runs until the test's process ends.
pub(crate) struct Dns {
    zone: Arc<Mutex<Zone>>,
    ip: String,
    dir: tempfile::TempDir,
}

impl Dns {
    /// Starts a server; returns the reason if that is impossible, because it needs port 53.
    pub(crate) fn start() -> Result<Dns, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("port 53, and another /etc/resolv.conf, take root".to_owned());
        }
        let ip = private_ip();
        let socket = UdpSocket::bind((ip.as_str(), 53)).map_err(|why| format!("port 53: {why}"))?;
        let listener = TcpListener::bind((ip.as_str(), 53)).map_err(|why| format!("port 53: {why}"))?;
        let zone = Arc::<Mutex<Zone>>::default();
        let (udp, tcp) = (Arc::clone(&zone), Arc::clone(&zone));
        thread::spawn(move || serve(&socket, &udp));
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve_stream(stream, &tcp)));
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("resolv.conf"), format!("nameserver {ip}\n")).expect("a file in it");
        Ok(Dns { zone, ip, dir })
    }

    /// Returns the address as in log messages.
    pub(crate) fn addr(&self) -> String {
        format!("{}:53", self.ip)
    }

    /// Sets whether the server drops all queries.
    pub(crate) fn is_silent(&self, is_silent: bool) {
        self.zone.lock().expect("a server that lives").is_silent = is_silent;
    }

    /// Returns the file for [`super::Builder::resolving_by`].
    pub(crate) fn resolv_conf(&self) -> std::path::PathBuf {
        Path::join(self.dir.path(), "resolv.conf")
    }

    /// Sets the addresses of a name.
    pub(crate) fn has(&self, name: &str, ttl: u32, ips: &[&str]) {
        let data = |ip: &&str| match ip.parse().expect("an address") {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.says(name, ttl, ips.iter().map(data).collect());
    }

    /// Sets the SRV records of a service, as `priority weight port host`.
    pub(crate) fn offers(&self, name: &str, ttl: u32, offers: &[String]) {
        let data = |offer: &String| {
            let words: Vec<&str> = offer.split(' ').collect();
            let number = |n: usize| words[n].parse().expect("a number");
            RData::SRV(SRV::new(number(0), number(1), number(2), Name::from_ascii(words[3]).expect("a name")))
        };
        self.says(name, ttl, offers.iter().map(data).collect());
    }

    pub(crate) fn forgets(&self, name: &str) {
        self.zone.lock().expect("a server that lives").records.remove(name);
    }

    /// Makes queries for a name fail with SERVFAIL until [`Dns::recovers`].
    pub(crate) fn fails(&self, name: &str) {
        self.zone.lock().expect("a server that lives").failing.insert(name.to_owned());
    }

    pub(crate) fn recovers(&self, name: &str) {
        self.zone.lock().expect("a server that lives").failing.remove(name);
    }

    /// Sets the search domains in the clients' `resolv.conf`.
    pub(crate) fn searches(&self, domain: &str) {
        let path = self.resolv_conf();
        let text = std::fs::read_to_string(&path).expect("our file");
        std::fs::write(path, format!("{text}search {domain}\n")).expect("our file");
    }

    fn says(&self, name: &str, ttl: u32, records: Vec<RData>) {
        self.zone.lock().expect("a server that lives").records.insert(name.to_owned(), (ttl, records));
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        if zone.lock().expect("a test that has not failed").is_silent {
            continue;
        }
        let mut answer = answer(&request, zone);
        // The client repeats a truncated query over TCP.
        if answer.answers.len() > DATAGRAM_MAX {
            answer.answers.clear();
            answer.metadata.truncation = true;
        }
        if let Ok(answer) = answer.to_vec() {
            socket.send_to(&answer, client).ok();
        }
    }
}

/// Handles one query per connection.
fn serve_stream(mut stream: TcpStream, zone: &Mutex<Zone>) {
    let mut length = [0; 2];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
    if stream.read_exact(&mut request).is_err() {
        return;
    }
    let Ok(request) = Message::from_vec(&request) else { return };
    let Ok(answer) = answer(&request, zone).to_vec() else { return };
    let length = u16::try_from(answer.len()).expect("an answer that fits").to_be_bytes();
    stream.write_all(&[&length, answer.as_slice()].concat()).ok();
}

fn answer(request: &Message, zone: &Mutex<Zone>) -> Message {
    let query = request.queries[0].clone();
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.add_query(query.clone());
    let name = query.name().to_ascii().to_ascii_lowercase();
    let zone = zone.lock().expect("a test that has not failed");
    if zone.failing.contains(&name) {
        answer.metadata.response_code = ResponseCode::ServFail;
        return answer;
    }
    match zone.records.get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some((ttl, records)) => {
            let of_kind = |data: &&RData| kind(data) == query.query_type();
            let records = records.iter().filter(of_kind).cloned();
            answer.add_answers(records.map(|data| Record::from_rdata(query.name().clone(), *ttl, data)));
        }
    }
    answer
}

fn kind(data: &RData) -> RecordType {
    data.record_type()
}
