//! UDP flows between real sockets: datagrams arrive complete and in order, and replies come from the address that the
//! client used.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ambassador::ending::Ending;
use ambassador::traffic::Direction;
use ambassador::udp::{Channel, Flow, ListeningSocket, Open, UdpLimits, serve};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

const LIMITS: UdpLimits = UdpLimits { flows_max: 10_000, unanswered_max: 10_000 };
const TIMEOUT: Duration = Duration::from_secs(10);
/// Without a reply in this time there is none.
const NO_REPLY: Duration = Duration::from_millis(200);

/// What the flows report, and how they are controlled.
struct FlowState {
    target: Mutex<SocketAddr>,
    /// A flow opens when it receives one of these.
    permits: Semaphore,
    cut: CancellationToken,
    opened: Mutex<Vec<(SocketAddr, Option<IpAddr>)>>,
    ended: Mutex<Vec<Ending>>,
    refused: AtomicUsize,
    idle: Mutex<Option<Duration>>,
    idle_changed: Notify,
    descriptors: Arc<Semaphore>,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
}

struct Opener(Arc<FlowState>);

struct OpenFlow(Arc<FlowState>, #[expect(dead_code, reason = "given back on drop")] OwnedSemaphorePermit);

/// A client whose flows are denied.
const DENIED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 66, 6, 6));

impl Open for Opener {
    type Flow = OpenFlow;

    type Permit = OwnedSemaphorePermit;

    fn admits(&self, client: SocketAddr) -> bool {
        client.ip() != DENIED
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.descriptors).try_acquire_owned().ok()
    }

    async fn open(
        &self,
        client: SocketAddr,
        local: Option<IpAddr>,
        permit: OwnedSemaphorePermit,
        evicted: impl Future<Output = ()> + Send,
    ) -> Option<(Channel, OpenFlow)> {
        let state = &self.0;
        tokio::select! {
            opens = state.permits.acquire() => opens.unwrap().forget(),
            () = evicted => {
                state.ended.lock().unwrap().push(Ending::TooMany);
                return None;
            }
        }
        state.opened.lock().unwrap().push((client, local));
        let target = *state.target.lock().unwrap();
        let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(target).unwrap();
        Some((Channel::socket(socket).unwrap(), OpenFlow(Arc::clone(state), permit)))
    }

    fn refused(&self, _client: SocketAddr, _: Ending) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Flow for OpenFlow {
    fn moved(&self, direction: Direction, bytes: usize) {
        let count = match direction {
            Direction::Up => &self.0.up_bytes,
            Direction::Down => &self.0.down_bytes,
        };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn dropped(&self, _: usize) {}

    fn unreachable(&self, _: &std::io::Error) {}

    fn idle_timeout(&self) -> Option<Duration> {
        *self.0.idle.lock().unwrap()
    }

    fn changed(&self) -> Notified<'_> {
        self.0.idle_changed.notified()
    }

    async fn stopped(&self) -> Ending {
        self.0.cut.cancelled().await;
        Ending::Cut
    }

    fn ended(self, ending: Ending) {
        self.0.ended.lock().unwrap().push(ending);
    }
}

/// A relay on a thread of its own.
struct Relay {
    port: u16,
    state: Arc<FlowState>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Relay {
    fn start(listen: &str, target: SocketAddr, limits: UdpLimits) -> Relay {
        Relay::start_with(listen, target, limits, Semaphore::MAX_PERMITS, Semaphore::MAX_PERMITS)
    }

    /// Starts a relay with a limit of flows and of descriptors.
    fn start_with(
        listen: &str,
        target: SocketAddr,
        limits: UdpLimits,
        permits: usize,
        descriptors: usize,
    ) -> Relay {
        let socket = UdpSocket::bind(listen).unwrap();
        let port = socket.local_addr().unwrap().port();
        let state = Arc::new(FlowState {
            target: Mutex::new(target),
            permits: Semaphore::new(permits),
            cut: CancellationToken::new(),
            opened: Mutex::default(),
            ended: Mutex::default(),
            refused: AtomicUsize::new(0),
            idle: Mutex::default(),
            idle_changed: Notify::new(),
            descriptors: Arc::new(Semaphore::new(descriptors)),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let (opener, stopped) = (Arc::new(Opener(Arc::clone(&state))), stop.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                serve(&ListeningSocket::new(socket).unwrap(), opener, limits, stopped).await;
            });
        });
        Relay { port, state, stop, thread }
    }

    /// Sets the idle timeout, also of open flows.
    fn with_idle(self, idle: Duration) -> Relay {
        *self.state.idle.lock().unwrap() = Some(idle);
        self.state.idle_changed.notify_waiters();
        self
    }

    fn at(&self, ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), self.port)
    }

    fn opened(&self) -> usize {
        self.state.opened.lock().unwrap().len()
    }

    fn endings(&self) -> Vec<Ending> {
        self.state.ended.lock().unwrap().clone()
    }

    /// Waits for `count` endings.
    fn await_endings(&self, count: usize) -> Vec<Ending> {
        wait_for(|| self.endings().len() >= count);
        self.endings()
    }

    /// Stops all flows and waits for the end.
    fn finish(self) -> Vec<Ending> {
        self.stop.cancel();
        self.state.cut.cancel();
        self.thread.join().unwrap();
        self.state.ended.lock().unwrap().clone()
    }
}

fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "waited in vain");
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
    socket
}

/// Echoes datagrams until the test ends.
fn echo(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], peer).unwrap();
        }
    });
    address
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, peer) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, peer)
}

#[track_caller]
fn exchange(client: &UdpSocket, relay: SocketAddr, bytes: &[u8]) {
    client.send_to(bytes, relay).unwrap();
    let (answer, from) = receive(client);
    assert!(answer == bytes, "{} bytes were returned for {}", answer.len(), bytes.len());
    assert_eq!(from, relay);
}

#[test]
fn datagrams_are_relayed_over_ipv4_and_ipv6() {
    for (listen, client, host) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "[::1]:0", "::1"),
        ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.1"),
    ] {
        for target in [echo("127.0.0.1:0"), echo("[::1]:0")] {
            let relay = Relay::start(listen, target, LIMITS);
            let client = socket(client);
            exchange(&client, relay.at(host), b"first");
            exchange(&client, relay.at(host), b"second, of the same flow");
            assert_eq!(relay.opened(), 1);
            let state = Arc::clone(&relay.state);
            assert_eq!(relay.finish(), [Ending::Cut]);
            assert_eq!(state.up_bytes.load(Ordering::Relaxed), 29);
            assert_eq!(state.down_bytes.load(Ordering::Relaxed), 29);
        }
    }
}

#[test]
fn dual_stack_listener_serves_both_families_and_reports_ipv4_clients_as_ipv4() {
    let relay = Relay::start("[::]:0", echo("127.0.0.1:0"), LIMITS);
    let (four, six) = (socket("127.0.0.1:0"), socket("[::1]:0"));
    exchange(&four, relay.at("127.0.0.1"), b"four");
    exchange(&six, relay.at("::1"), b"six");
    let opened = relay.state.opened.lock().unwrap().clone();
    assert_eq!(opened[0], (four.local_addr().unwrap(), Some("127.0.0.1".parse().unwrap())));
    assert_eq!(opened[1], (six.local_addr().unwrap(), Some("::1".parse().unwrap())));
    relay.finish();
}

#[test]
fn reply_is_sent_from_the_address_that_the_client_used() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let relay = Relay::start(listen, echo("127.0.0.1:0"), LIMITS);
        let client = socket("0.0.0.0:0");
        for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.2"] {
            exchange(&client, relay.at(host), host.as_bytes());
        }
        assert_eq!(relay.opened(), 3, "one client, three addresses, three flows");
        relay.finish();
    }
}

#[test]
fn a_thousand_flows_are_isolated() {
    let relay = Relay::start("127.0.0.1:0", echo("127.0.0.1:0"), LIMITS);
    let clients: Vec<UdpSocket> = (0..1000).map(|_| socket("127.0.0.1:0")).collect();
    for round in 0..3 {
        for (index, client) in clients.iter().enumerate() {
            client.send_to(format!("{round} {index}").as_bytes(), relay.at("127.0.0.1")).unwrap();
            // The receive buffer of the listener is limited by the kernel.
            if index % 100 == 99 {
                assert_eq!(receive(client).0, format!("{round} {index}").as_bytes());
            }
        }
        for (index, client) in clients.iter().enumerate().filter(|(index, _)| index % 100 != 99) {
            assert_eq!(receive(client).0, format!("{round} {index}").as_bytes());
        }
    }
    assert_eq!(relay.opened(), 1000);
    assert_eq!(relay.finish().len(), 1000);
}

#[test]
fn bursts_of_several_flows_arrive_complete_and_in_order() {
    const FLOWS: usize = 4;
    const BURST: usize = 40;
    let backend = socket("127.0.0.1:0");
    let relay = Relay::start("127.0.0.1:0", backend.local_addr().unwrap(), LIMITS);
    let clients: Vec<UdpSocket> = (0..FLOWS).map(|_| socket("127.0.0.1:0")).collect();
    // Datagrams that arrive before a flow opens are buffered, up to a small limit.
    for (flow, client) in clients.iter().enumerate() {
        client.send_to(&[u8::try_from(flow).unwrap()], relay.at("127.0.0.1")).unwrap();
        receive(&backend);
    }
    for burst in 0..50 {
        for index in 0..BURST {
            for (flow, client) in clients.iter().enumerate() {
                client.send_to(&numbered(flow, burst * BURST + index, 1200), relay.at("127.0.0.1")).unwrap();
            }
        }
        let mut next = [burst * BURST; FLOWS];
        for _ in 0..FLOWS * BURST {
            let (datagram, _) = receive(&backend);
            let flow = usize::from(datagram[0]);
            assert!(datagram == numbered(flow, next[flow], 1200), "flow {flow}, datagram {}", next[flow]);
            next[flow] += 1;
        }
    }
    relay.finish();
}

fn numbered(flow: usize, number: usize, length: usize) -> Vec<u8> {
    let mut datagram = vec![u8::try_from(number % 251).unwrap(); length];
    datagram[0] = u8::try_from(flow).unwrap();
    datagram[1..9].copy_from_slice(&(number as u64).to_le_bytes());
    datagram
}

#[test]
fn segmented_datagrams_are_relayed_as_separate_datagrams() {
    let backend = socket("127.0.0.1:0");
    let relay = Relay::start("127.0.0.1:0", backend.local_addr().unwrap(), LIMITS);
    let client = socket("127.0.0.1:0");
    client.send_to(b"open", relay.at("127.0.0.1")).unwrap();
    let (_, upstream) = receive(&backend);
    // The option is set on the sender only: these sockets must receive each datagram separately.
    let state = quinn_udp::UdpSocketState::new((&socket("127.0.0.1:0")).into()).unwrap();
    assert!(state.max_gso_segments() > 1, "this kernel cannot show it");
    for stride in [1200, 1452, 3000] {
        let contents: Vec<u8> =
            (0..10).flat_map(|number| numbered(0, number, stride)).take(9 * stride + 700).collect();
        for (from, destination, to) in
            [(&client, relay.at("127.0.0.1"), &backend), (&backend, upstream, &client)]
        {
            let contents = contents.as_slice();
            let segment_size = Some(stride);
            let transmit =
                quinn_udp::Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            state.try_send(from.into(), &transmit).unwrap();
            for expected in contents.chunks(stride) {
                let (datagram, _) = receive(to);
                assert!(datagram == expected, "{} bytes for {}", datagram.len(), expected.len());
            }
        }
    }
    relay.finish();
}

#[test]
fn largest_and_empty_datagrams_are_relayed() {
    let relay = Relay::start("127.0.0.1:0", echo("127.0.0.1:0"), LIMITS);
    let client = socket("127.0.0.1:0");
    for length in [65_507, 0, 1, 0, 9_000] {
        exchange(&client, relay.at("127.0.0.1"), &vec![3; length]);
    }
    relay.finish();
}

#[test]
fn idle_flow_ends_and_the_next_datagram_opens_a_new_one() {
    let relay =
        Relay::start("127.0.0.1:0", echo("127.0.0.1:0"), LIMITS).with_idle(Duration::from_millis(100));
    let client = socket("127.0.0.1:0");
    exchange(&client, relay.at("127.0.0.1"), b"one");
    assert_eq!(relay.await_endings(1), [Ending::Idle]);
    exchange(&client, relay.at("127.0.0.1"), b"two");
    assert_eq!(relay.opened(), 2);
    assert_eq!(relay.await_endings(2), [Ending::Idle, Ending::Idle]);
    relay.finish();
}

#[test]
fn traffic_keeps_a_flow_alive() {
    let relay = Relay::start("127.0.0.1:0", echo("127.0.0.1:0"), LIMITS).with_idle(Duration::from_secs(1));
    let client = socket("127.0.0.1:0");
    for _ in 0..15 {
        exchange(&client, relay.at("127.0.0.1"), b"still here");
        thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(relay.opened(), 1);
    relay.finish();
}

#[test]
fn datagrams_before_a_flow_opens_are_buffered_in_order_up_to_a_limit() {
    let backend = socket("127.0.0.1:0");
    let relay =
        Relay::start_with("127.0.0.1:0", backend.local_addr().unwrap(), LIMITS, 0, Semaphore::MAX_PERMITS);
    let client = socket("127.0.0.1:0");
    for number in 0..40_u8 {
        client.send_to(&[number], relay.at("127.0.0.1")).unwrap();
    }
    // Another flow, to ensure that all datagrams of the first were received.
    let other = socket("127.0.0.1:0");
    other.send_to(b"other", relay.at("127.0.0.1")).unwrap();
    thread::park_timeout(NO_REPLY);
    relay.state.permits.add_permits(2);
    let mut received: Vec<Vec<u8>> = (0..17).map(|_| receive(&backend).0).collect();
    received.retain(|datagram| datagram != b"other");
    assert_eq!(received, (0..16_u8).map(|number| vec![number]).collect::<Vec<_>>(), "the oldest sixteen");
    client.send_to(b"after", relay.at("127.0.0.1")).unwrap();
    assert_eq!(receive(&backend).0, b"after");
    relay.finish();
}

#[test]
fn refused_datagram_ends_the_flow_and_the_next_one_opens_a_new_one() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = Relay::start("127.0.0.1:0", gone, LIMITS);
    let client = socket("127.0.0.1:0");
    client.send_to(b"anybody?", relay.at("127.0.0.1")).unwrap();
    assert_eq!(relay.await_endings(1), [Ending::UpstreamReset]);
    *relay.state.target.lock().unwrap() = echo("127.0.0.1:0");
    exchange(&client, relay.at("127.0.0.1"), b"now?");
    assert_eq!(relay.opened(), 2);
    assert_eq!(relay.finish(), [Ending::UpstreamReset, Ending::Cut]);
}

#[test]
fn flow_beyond_the_limit_is_refused_and_the_others_continue() {
    let limits = UdpLimits { flows_max: 2, ..LIMITS };
    let relay = Relay::start("127.0.0.1:0", echo("127.0.0.1:0"), limits).with_idle(Duration::from_secs(2));
    let (first, second, third) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    exchange(&first, relay.at("127.0.0.1"), b"1");
    exchange(&second, relay.at("127.0.0.1"), b"2");
    for _ in 0..100 {
        third.send_to(b"3", relay.at("127.0.0.1")).unwrap();
    }
    exchange(&first, relay.at("127.0.0.1"), b"1 again");
    wait_for(|| relay.state.refused.load(Ordering::Relaxed) == 100);
    third.set_read_timeout(Some(NO_REPLY)).unwrap();
    assert_eq!(third.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    relay.await_endings(2);
    third.set_read_timeout(Some(TIMEOUT)).unwrap();
    exchange(&third, relay.at("127.0.0.1"), b"there is room again");
    relay.finish();
}

#[test]
fn stopped_listener_keeps_its_flows_and_opens_no_new_ones() {
    let relay = Relay::start("127.0.0.1:0", echo("127.0.0.1:0"), LIMITS).with_idle(Duration::from_secs(1));
    let (old, new) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    exchange(&old, relay.at("127.0.0.1"), b"before");
    relay.stop.cancel();
    exchange(&old, relay.at("127.0.0.1"), b"after");
    new.send_to(b"too late", relay.at("127.0.0.1")).unwrap();
    new.set_read_timeout(Some(NO_REPLY)).unwrap();
    assert_eq!(new.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    exchange(&old, relay.at("127.0.0.1"), b"still");
    relay.thread.join().unwrap();
    assert_eq!(*relay.state.ended.lock().unwrap(), [Ending::Idle]);
}

/// A server that receives datagrams and sends no reply.
fn silent_server() -> (UdpSocket, SocketAddr) {
    let silent_server = socket("127.0.0.1:0");
    let addr = silent_server.local_addr().unwrap();
    (silent_server, addr)
}

/// Opens a flow for each of these clients.
fn unanswered(relay: &Relay, clients: &[&str]) -> Vec<UdpSocket> {
    let open = |client: &&str| {
        let (client, opened) = (socket(client), relay.opened());
        client.send_to(b"?", relay.at("127.0.0.1")).unwrap();
        wait_for(|| relay.opened() > opened);
        client
    };
    clients.iter().map(open).collect()
}

/// Makes the endpoint of new flows reply from now on.
fn enable_endpoint(relay: &Relay) {
    *relay.state.target.lock().unwrap() = echo("127.0.0.1:0");
}

#[test]
fn oldest_unanswered_flow_is_evicted_for_a_new_one() {
    let (silent_server, addr) = silent_server();
    let relay = Relay::start("127.0.0.1:0", addr, UdpLimits { flows_max: 3, ..LIMITS });
    let old = unanswered(&relay, &["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"]);
    let upstreams: Vec<SocketAddr> = old.iter().map(|_| receive(&silent_server).1).collect();
    silent_server.send_to(b"!", upstreams[0]).unwrap();
    assert_eq!(receive(&old[0]).0, b"!");
    enable_endpoint(&relay);
    exchange(&socket("127.0.0.1:0"), relay.at("127.0.0.1"), b"new");
    assert_eq!(relay.await_endings(1), [Ending::TooMany]);
    // The first flow had a reply, so the second was evicted: its client no longer gets replies, the others do.
    silent_server.send_to(b"late", upstreams[2]).unwrap();
    assert_eq!(receive(&old[2]).0, b"late");
    silent_server.send_to(b"still", upstreams[0]).unwrap();
    assert_eq!(receive(&old[0]).0, b"still");
    assert_eq!(relay.state.refused.load(Ordering::Relaxed), 0);
    relay.finish();
}

#[test]
fn flow_that_is_being_opened_can_be_evicted() {
    let limits = UdpLimits { flows_max: 1, ..LIMITS };
    let relay = Relay::start_with("127.0.0.1:0", echo("127.0.0.1:0"), limits, 0, Semaphore::MAX_PERMITS);
    let (first, second) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    first.send_to(b"1", relay.at("127.0.0.1")).unwrap();
    second.send_to(b"2", relay.at("127.0.0.1")).unwrap();
    assert_eq!(relay.await_endings(1), [Ending::TooMany]);
    relay.state.permits.add_permits(1);
    assert_eq!(receive(&second).0, b"2");
    relay.finish();
}

#[test]
fn oldest_unanswered_flow_is_evicted_when_descriptors_run_out() {
    let (_mute, addr) = silent_server();
    let relay = Relay::start_with("127.0.0.1:0", addr, LIMITS, Semaphore::MAX_PERMITS, 2);
    let _old = unanswered(&relay, &["127.0.0.1:0", "127.0.0.1:0"]);
    enable_endpoint(&relay);
    let (third, fourth) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    exchange(&third, relay.at("127.0.0.1"), b"third");
    exchange(&fourth, relay.at("127.0.0.1"), b"fourth");
    assert_eq!(relay.endings(), [Ending::TooMany; 2]);
    let fifth = socket("127.0.0.1:0");
    fifth.send_to(b"fifth", relay.at("127.0.0.1")).unwrap();
    wait_for(|| relay.state.refused.load(Ordering::Relaxed) == 1);
    exchange(&third, relay.at("127.0.0.1"), b"answered flows stay");
    relay.finish();
}

#[test]
fn unanswered_flows_are_limited_per_client() {
    let (silent_server, addr) = silent_server();
    let relay = Relay::start("127.0.0.1:0", addr, UdpLimits { unanswered_max: 2, ..LIMITS });
    let clients = unanswered(&relay, &["127.0.0.2:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"]);
    assert_eq!(relay.await_endings(1), [Ending::TooMany]);
    let upstreams: Vec<SocketAddr> = clients.iter().map(|_| receive(&silent_server).1).collect();
    for n in [0, 2, 3] {
        silent_server.send_to(b"!", upstreams[n]).unwrap();
        assert_eq!(receive(&clients[n]).0, b"!", "client {n}");
    }
    relay.finish();
}

#[test]
fn denied_flow_evicts_no_other() {
    let (_mute, addr) = silent_server();
    let relay = Relay::start("127.0.0.1:0", addr, UdpLimits { flows_max: 1, ..LIMITS });
    let _old = unanswered(&relay, &["127.0.0.1:0"]);
    let denied = socket(&format!("{DENIED}:0"));
    for _ in 0..10 {
        denied.send_to(b"?", relay.at("127.0.0.1")).unwrap();
    }
    // One more, to ensure that the previous ones were received.
    let _new = unanswered(&relay, &["127.0.0.1:0"]);
    assert_eq!(relay.await_endings(1), [Ending::TooMany]);
    assert_eq!(relay.opened(), 2);
    relay.finish();
}
