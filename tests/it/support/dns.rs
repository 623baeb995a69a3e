//! A name server on a loopback address of its own, that says what the test tells it to.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::names::private_ip;

/// By name, in lower case and with its dot.
type Zone = HashMap<String, (u32, Vec<RData>)>;

/// Lives as long as the test's process.
pub(crate) struct Dns {
    zone: Arc<Mutex<Zone>>,
    dir: tempfile::TempDir,
}

impl Dns {
    /// Or why there is none: names are asked for at port 53 alone.
    pub(crate) fn start() -> Result<Dns, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("port 53, and another /etc/resolv.conf, take root".to_owned());
        }
        let ip = private_ip();
        let socket = UdpSocket::bind((ip.as_str(), 53)).map_err(|why| format!("port 53: {why}"))?;
        let zone = Arc::<Mutex<Zone>>::default();
        let served = Arc::clone(&zone);
        thread::spawn(move || serve(&socket, &served));
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("resolv.conf"), format!("nameserver {ip}\n")).expect("a file in it");
        Ok(Dns { zone, dir })
    }

    /// For [`super::Builder::resolving_by`].
    pub(crate) fn resolv_conf(&self) -> std::path::PathBuf {
        Path::join(self.dir.path(), "resolv.conf")
    }

    /// The addresses of a name.
    pub(crate) fn has(&self, name: &str, ttl: u32, ips: &[&str]) {
        let data = |ip: &&str| match ip.parse().expect("an address") {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.says(name, ttl, ips.iter().map(data).collect());
    }

    /// Who offers a service, as `priority weight port host`.
    pub(crate) fn offers(&self, name: &str, ttl: u32, offers: &[String]) {
        let data = |offer: &String| {
            let words: Vec<&str> = offer.split(' ').collect();
            let number = |n: usize| words[n].parse().expect("a number");
            RData::SRV(SRV::new(number(0), number(1), number(2), Name::from_ascii(words[3]).expect("a name")))
        };
        self.says(name, ttl, offers.iter().map(data).collect());
    }

    pub(crate) fn forgets(&self, name: &str) {
        self.zone.lock().expect("a server that lives").remove(name);
    }

    fn says(&self, name: &str, ttl: u32, records: Vec<RData>) {
        self.zone.lock().expect("a server that lives").insert(name.to_owned(), (ttl, records));
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        if let Ok(answer) = answer(&request, zone).to_vec() {
            socket.send_to(&answer, client).ok();
        }
    }
}

fn answer(request: &Message, zone: &Mutex<Zone>) -> Message {
    let query = request.queries[0].clone();
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.add_query(query.clone());
    let name = query.name().to_ascii().to_ascii_lowercase();
    match zone.lock().expect("a test that has not failed").get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some((ttl, records)) => {
            let asked = |data: &&RData| kind(data) == query.query_type();
            let records = records.iter().filter(asked).cloned();
            answer.add_answers(records.map(|data| Record::from_rdata(query.name().clone(), *ttl, data)));
        }
    }
    answer
}

fn kind(data: &RData) -> RecordType {
    data.record_type()
}
