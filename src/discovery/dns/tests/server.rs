//! A scripted name server on the loopback.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, NS, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::discovery::dns::Resolver;

/// The replies by name and record type; other names do not exist.
type Zone = HashMap<(String, RecordType), Reply>;

#[derive(Clone, Debug)]
pub(super) enum Reply {
    Records(u32, Vec<RData>),
    /// With the addresses of these names in the additional section.
    More(u32, Vec<RData>, Vec<(&'static str, u32, IpAddr)>),
    Code(ResponseCode),
    /// A referral to another server, instead of an answer.
    Referral,
    Silence,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    pub(super) queries: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Server {
    pub(super) async fn new() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, queries) = (Arc::<Mutex<Zone>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(socket, Arc::clone(&zone), Arc::clone(&queries)));
        Server { address, zone, queries, _serving: serving }
    }

    pub(super) fn says(&self, name: &str, kind: RecordType, reply: Reply) {
        self.zone.lock().unwrap().insert((name.to_owned(), kind), reply);
    }

    pub(super) fn has(&self, name: &str, ttl: u32, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let of = |kind: RecordType| {
            let ips = ips.iter().filter(|ip| ip.is_ipv4() == (kind == RecordType::A));
            Reply::Records(ttl, ips.map(|ip| data(*ip)).collect())
        };
        self.says(name, RecordType::A, of(RecordType::A));
        self.says(name, RecordType::AAAA, of(RecordType::AAAA));
    }

    pub(super) fn forgets(&self, name: &str) {
        self.zone.lock().unwrap().retain(|(known, _), _| known != name);
    }

    pub(super) fn resolver(&self, search: &[&str]) -> Resolver {
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

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>, queries: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let query = request.queries[0].clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        queries.lock().unwrap().push(name.clone());
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

pub(super) fn srv(priority: u16, weight: u16, port: u16, host: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(host).unwrap()))
}

pub(super) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
