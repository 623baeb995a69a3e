//! The rows: what is measured of each subject.

use super::listening::Protocol;
use super::subject::{AccessLog, Handshake, Kind, Side, Splice};

pub(super) struct Row {
    /// The name for `--only`.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) layout: Layout,
    pub(super) proxies: Proxies,
    pub(super) work: Work,
    /// Whether the row is part of `--quick`.
    pub(super) quick: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// Client, proxy and service on one loopback.
    Loopback,
    /// The same with BBR as the kernel's congestion control.
    Bbr,
    /// The service at the other end of a link with this round-trip time.
    TwoHosts { round_trip_ms: u32 },
}

/// The proxies between client and service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proxies {
    One,
    /// Two of one kind with an encrypted connection between them, the second on the service's host.
    Pair,
    /// One with TLS on this side. The program at the other end is the same for all, and is not measured.
    Tls(Side, Handshake),
}

impl Proxies {
    /// Returns the name of a subject in the list of what has been checked.
    pub(super) fn checked_name(self, subject: &str) -> String {
        let side = match self {
            Proxies::One | Proxies::Pair => return subject.to_owned(),
            Proxies::Tls(Side::Accept, _) => "tls-accept",
            Proxies::Tls(Side::Connect, _) => "tls-connect",
        };
        let resumed = if matches!(self, Proxies::Tls(_, Handshake::Resumed)) { "-resumed" } else { "" };
        format!("{subject}, {side}{resumed}")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Bulk {
        streams: usize,
        workers: usize,
    },
    Reply {
        connections: usize,
        payload: usize,
        depth: usize,
    },
    /// At a rate that all proxies can serve.
    Paced,
    Connect {
        connections: usize,
    },
    /// Requests at a low rate, first alone and then beside a bulk stream through the same proxies.
    Mixed,
    Redis,
    Udp {
        gso: bool,
    },
    Memory {
        connections: usize,
    },
    Start,
    Range,
    Size,
}

/// Concurrent connections in the rows of new connections.
const CONNECTING: Work = Work::Connect { connections: 16 };

use Handshake::{Full, Resumed};
use Layout::{Bbr, Loopback};
use Side::{Accept, Connect};

const TWO_HOSTS: Layout = apart(0);

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("bulk-1", "Bulk, 1 stream", Loopback, bulk(1), true),
    row("bulk-4", "Bulk, 4 streams", Loopback, bulk(4), true),
    row("bulk-4-2w", "Bulk, 4 streams through 2 workers", Loopback, Work::Bulk { streams: 4, workers: 2 }, true),
    row("bulk-1-bbr", "Bulk, 1 stream, with BBR instead of CUBIC", Bbr, bulk(1), true),
    row("rr-1-64", "Request-reply, 1 connection, 64 B", Loopback, reply(1, 64, 1), true),
    row("rr-50-64", "Request-reply, 50 connections, 64 B", Loopback, reply(50, 64, 1), true),
    row("rr-500-64", "Request-reply, 500 connections, 64 B", Loopback, reply(500, 64, 1), true),
    row("rr-1-16k", "Request-reply, 1 connection, 16 KB", Loopback, reply(1, 16_384, 1), false),
    row("rr-50-16k", "Request-reply, 50 connections, 16 KB", Loopback, reply(50, 16_384, 1), false),
    row("rr-500-16k", "Request-reply, 500 connections, 16 KB", Loopback, reply(500, 16_384, 1), false),
    row("pipe-50", "Pipelined, 16 requests deep, 50 connections, 64 B", Loopback, reply(50, 64, 16), true),
    row("paced", "10,000 requests a second over 50 connections, 64 B", Loopback, Work::Paced, true),
    row("redis", "redis-benchmark, 50 connections, SET of 64 B", Loopback, Work::Redis, true),
    row("connect", "New connections: connect, one request, close", Loopback, CONNECTING, true),
    row("udp", "UDP, 1,200 B", Loopback, Work::Udp { gso: false }, true),
    row("udp-gso", "UDP, 1,200 B, sent by GSO as QUIC stacks do", Loopback, Work::Udp { gso: true }, true),
    row("net-bulk-1", "Two namespaces: bulk, 1 stream", TWO_HOSTS, bulk(1), false),
    row("net-rr-50-64", "Two namespaces: request-reply, 50 connections, 64 B", TWO_HOSTS, reply(50, 64, 1), true),
    row("net-connect", "Two namespaces: new connections", TWO_HOSTS, CONNECTING, true),
    row("net-udp", "Two namespaces: UDP, 1,200 B", TWO_HOSTS, Work::Udp { gso: false }, false),
    row("memory", "Memory, idle and with 5,000 connections", Loopback, Work::Memory { connections: 5000 }, true),
    row("start", "Start to first connection", Loopback, Work::Start, true),
    row("range", "A range of 1,000 ports", Loopback, Work::Range, true),
    row("size", "Size on disk", Loopback, Work::Size, true),
    pair("pair-bulk-1", "Encrypted pair: bulk, 1 stream", Loopback, bulk(1), true),
    pair("pair-bulk-4", "Encrypted pair: bulk, 4 streams", Loopback, bulk(4), false),
    pair("pair-rr-50-64", "Encrypted pair: request-reply, 50 connections, 64 B", Loopback, reply(50, 64, 1), true),
    pair("pair-connect", "Encrypted pair: new connections", Loopback, CONNECTING, true),
    pair("pair-mixed", "Encrypted pair: 1,000 requests a second, alone and beside a bulk stream", Loopback, Work::Mixed, true),
    pair("pair-memory", "Encrypted pair: memory, idle and with 1,000 connections", Loopback, Work::Memory { connections: 1000 }, false),
    pair("pair-0ms-connect", "Encrypted pair, two hosts: connect and first reply", apart(0), CONNECT_ONE, false),
    pair("pair-0ms-bulk-1", "Encrypted pair, two hosts: bulk, 1 stream", apart(0), bulk(1), false),
    pair("pair-2ms-connect", "Encrypted pair, round trip of 2 ms: connect and first reply", apart(2), CONNECT_ONE, false),
    pair("pair-2ms-bulk-1", "Encrypted pair, round trip of 2 ms: bulk, 1 stream", apart(2), bulk(1), false),
    pair("pair-20ms-connect", "Encrypted pair, round trip of 20 ms: connect and first reply", apart(20), CONNECT_ONE, false),
    pair("pair-20ms-bulk-1", "Encrypted pair, round trip of 20 ms: bulk, 1 stream", apart(20), bulk(1), false),
    tls("tls-accept-connect", "TLS of clients: new connections, full handshakes", Accept, Full, CONNECTING, true),
    tls("tls-accept-resumed", "TLS of clients: new connections, resumed", Accept, Resumed, CONNECTING, false),
    tls("tls-accept-rr-50-64", "TLS of clients: request-reply, 50 connections, 64 B", Accept, Full, reply(50, 64, 1), false),
    tls("tls-accept-bulk-1", "TLS of clients: bulk, 1 stream", Accept, Full, bulk(1), false),
    tls("tls-accept-memory", "TLS of clients: memory, idle and with 1,000 connections", Accept, Full, Work::Memory { connections: 1000 }, false),
    tls("tls-connect-connect", "TLS to endpoints: new connections, full handshakes", Connect, Full, CONNECTING, true),
    tls("tls-connect-resumed", "TLS to endpoints: new connections, resumed", Connect, Resumed, CONNECTING, false),
    tls("tls-connect-rr-50-64", "TLS to endpoints: request-reply, 50 connections, 64 B", Connect, Full, reply(50, 64, 1), false),
    tls("tls-connect-bulk-1", "TLS to endpoints: bulk, 1 stream", Connect, Full, bulk(1), false),
    tls("tls-connect-memory", "TLS to endpoints: memory, idle and with 1,000 connections", Connect, Full, Work::Memory { connections: 1000 }, false),
];

/// One connection at a time, for the latency.
const CONNECT_ONE: Work = Work::Connect { connections: 1 };

const fn row(id: &'static str, title: &'static str, layout: Layout, work: Work, quick: bool) -> Row {
    Row { id, title, layout, proxies: Proxies::One, work, quick }
}

const fn pair(id: &'static str, title: &'static str, layout: Layout, work: Work, quick: bool) -> Row {
    Row { id, title, layout, proxies: Proxies::Pair, work, quick }
}

const fn tls(
    id: &'static str,
    title: &'static str,
    side: Side,
    handshake: Handshake,
    work: Work,
    quick: bool,
) -> Row {
    Row { id, title, layout: Loopback, proxies: Proxies::Tls(side, handshake), work, quick }
}

const fn apart(round_trip_ms: u32) -> Layout {
    Layout::TwoHosts { round_trip_ms }
}

const fn bulk(streams: usize) -> Work {
    Work::Bulk { streams, workers: 1 }
}

const fn reply(connections: usize, payload: usize, depth: usize) -> Work {
    Work::Reply { connections, payload, depth }
}

impl Row {
    /// Returns whether the row is measured for this kind of proxy.
    pub(super) fn supports(&self, kind: Kind) -> bool {
        match self.proxies {
            Proxies::One => self.work.supports(kind),
            Proxies::Pair => match kind {
                Kind::Direct => !matches!(self.work, Work::Memory { .. }),
                _ => kind.has_pairs(),
            },
            Proxies::Tls(..) => kind.has_tls_sides(),
        }
    }
}

impl Work {
    pub(super) fn protocol(self) -> Protocol {
        if matches!(self, Work::Udp { .. }) { Protocol::Udp } else { Protocol::Tcp }
    }

    pub(super) fn workers(self) -> usize {
        if let Work::Bulk { workers, .. } = self { workers } else { 1 }
    }

    /// Returns how many rounds measure this: few for what hardly varies.
    pub(super) fn most_rounds(self) -> usize {
        match self {
            Work::Memory { .. } | Work::Start | Work::Range => 3,
            Work::Size => 1,
            _ => usize::MAX,
        }
    }

    /// Returns whether this kind of proxy supports the work and is not a duplicate of another kind for it.
    fn supports(self, kind: Kind) -> bool {
        let moves_bytes = matches!(
            self,
            Work::Bulk { .. }
                | Work::Reply { .. }
                | Work::Paced
                | Work::Connect { .. }
                | Work::Mixed
                | Work::Redis
                | Work::Udp { .. }
        );
        match (self, kind) {
            // The access log costs something only when a session ends.
            (work, Kind::Ambassador(AccessLog::On)) => matches!(work, Work::Connect { .. }),
            (_, Kind::PlainPair | Kind::TlsPair | Kind::Stunnel | Kind::Spiped) => false,
            (Work::Udp { .. }, Kind::Haproxy(_)) => false,
            (_, Kind::Direct) => moves_bytes,
            // socat has a process per connection, docker-proxy one per port.
            (work, Kind::Socat | Kind::DockerProxy) => work.workers() == 1 && work != Work::Range,
            // An Envoy listener has one port.
            (Work::Range, Kind::Envoy) => false,
            // It is the same program.
            (Work::Size | Work::Start | Work::Range, Kind::Haproxy(Splice::On)) => false,
            _ => true,
        }
    }
}
