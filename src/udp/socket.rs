//! One UDP socket, read and written in batches. Boundaries between datagrams are kept: what the kernel merged on the
//! way in (GRO) is taken apart by it on the way out (GSO), or here.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::Notify;

/// Receptions by one call.
const BATCH: usize = 32;

/// Longer than any datagram, and than what GRO makes of several: nothing is ever cut short.
const BUFFER_BYTES: usize = 64 << 10;

/// Datagrams up to this size are sent on in one call when they came in one. A larger one may need fragments on its
/// next link, which GSO does not make: Ethernet's 1500 without the headers of IPv6 and UDP.
const SEGMENT_BYTES_MAX: usize = 1452;

/// What one call sends at most: the longest payload that a header of IPv4 and UDP can tell of.
const MERGED_BYTES_MAX: usize = 65_507;

/// How long sending rests where it cannot be seen when there is room.
const BLIND_PAUSE: Duration = Duration::from_millis(100);

/// Asked for, for bursts; the kernel grants at most `net.core.rmem_max`.
const RECEIVE_BYTES: usize = 1 << 20;

thread_local! {
    /// Absent before the first use, and while it is used.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Pages of it that no datagram has touched cost nothing.
struct Scratch {
    bytes: Box<[u8]>,
    metas: [RecvMeta; BATCH],
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { bytes: vec![0; BATCH * BUFFER_BYTES].into(), metas: [RecvMeta::default(); BATCH] }
    }

    fn fill(&mut self, wire: &Wire) -> io::Result<usize> {
        let mut buffers = self.bytes.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        wire.state.recv(wire.fd.get_ref().into(), &mut slices, &mut self.metas)
    }

    /// Shows what was received. Datagrams of one sender and one size that came after one another are put together first, as
    /// GRO would have done: a copy of twelve hundred bytes is cheaper than a call of its own for each on the way out.
    fn each(&mut self, received: usize, mut take: impl FnMut(&Datagrams<'_>)) {
        let mut buffers = self.bytes.chunks_exact_mut(BUFFER_BYTES);
        let mut metas = self.metas.iter().take(received);
        let (Some(mut first), Some(mut run)) = (metas.next(), buffers.next()) else { return };
        let mut length = first.len;
        for (meta, buffer) in metas.zip(buffers) {
            if continues(first, length, meta)
                && let Some(room) = run.get_mut(length..length + meta.len)
                && let Some(bytes) = buffer.get(..meta.len)
            {
                room.copy_from_slice(bytes);
                length += meta.len;
                continue;
            }
            take(&Datagrams::of(first, run, length));
            (first, run, length) = (meta, buffer, meta.len);
        }
        take(&Datagrams::of(first, run, length));
    }
}

/// Whether `next` can be sent on in one call with the `length` bytes that began with `first`: all but the last of one size.
fn continues(first: &RecvMeta, length: usize, next: &RecvMeta) -> bool {
    let RecvMeta { addr, dst_ip, ecn, stride, .. } = *first;
    (next.addr, next.dst_ip, next.ecn) == (addr, dst_ip, ecn)
        && (1..=SEGMENT_BYTES_MAX).contains(&stride)
        && length.is_multiple_of(stride)
        && next.len > 0
        && (next.stride == stride || (next.stride == next.len && next.len < stride))
        && length + next.len <= MERGED_BYTES_MAX
}

/// Datagrams of the same size that came together; the last may be shorter.
pub(super) struct Datagrams<'a> {
    pub(super) peer: SocketAddr,
    /// What the peer wrote to.
    pub(super) local: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: &'a [u8],
    stride: usize,
}

impl<'a> Datagrams<'a> {
    /// The first `length` bytes of `buffer`.
    fn of(meta: &RecvMeta, buffer: &'a [u8], length: usize) -> Datagrams<'a> {
        let bytes = buffer.get(..length).unwrap_or_default();
        // An empty datagram is one, too.
        let stride = meta.stride.max(1);
        Datagrams { peer: meta.addr, local: meta.dst_ip, ecn: meta.ecn, bytes, stride }
    }

    /// One, from nowhere in particular.
    pub(super) fn one(peer: SocketAddr, bytes: &'a [u8]) -> Datagrams<'a> {
        Datagrams { peer, local: None, ecn: None, bytes, stride: bytes.len().max(1) }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(self.stride))
    }
}

pub(super) struct Wire {
    /// For reading alone: each datagram that leaves would wake us otherwise, to say that there is room for another.
    fd: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The last send found no room.
    blocked: AtomicBool,
    /// Notified when `blocked` becomes true, for [`Wire::watch_room`], and when it is no longer.
    became_blocked: Notify,
    has_room: Notify,
}

impl Wire {
    /// Registers a socket that is told the address each datagram was written to.
    ///
    /// Datagrams larger than the link's may leave in fragments, except to an IPv6 client from an IPv6 socket:
    /// `quinn-udp` forbids it there, and nothing safe allows it again.
    pub(super) fn listening(socket: UdpSocket) -> io::Result<Wire> {
        let state = UdpSocketState::new((&socket).into())?;
        allow_fragments(&socket);
        Wire::register(socket, state)
    }

    /// Registers a connected socket.
    pub(super) fn connected(socket: UdpSocket) -> io::Result<Wire> {
        let state = if socket.local_addr()?.is_ipv4() {
            UdpSocketState::new((&socket).into())?
        } else {
            // Made for another socket, so that this one may send fragments: see `listening`. It costs GRO.
            UdpSocketState::new((&UdpSocket::bind("127.0.0.1:0")?).into())?
        };
        allow_fragments(&socket);
        Wire::register(socket, state)
    }

    #[expect(
        deprecated,
        reason = "unsound for types that lie about their descriptor; UdpSocket cannot, and the replacement is unsafe to call"
    )]
    fn register(socket: UdpSocket, state: UdpSocketState) -> io::Result<Wire> {
        socket.set_nonblocking(true)?;
        // As much as is granted.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES);
        let fd = AsyncFd::with_interest(socket, Interest::READABLE | Interest::ERROR)?;
        let blocked = AtomicBool::new(false);
        Ok(Wire { fd, state, blocked, became_blocked: Notify::new(), has_room: Notify::new() })
    }

    /// Waits for datagrams, or for news of a refusal.
    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, UdpSocket>> {
        self.fd.ready(Interest::READABLE | Interest::ERROR).await
    }

    /// Waits until there is room to send. Rarely long: a socket's buffer is full when the link's queue is. Any number may
    /// wait; one task must run [`Wire::watch_room`] meanwhile.
    pub(super) async fn writable(&self) {
        loop {
            let mut has_room = pin!(self.has_room.notified());
            if !self.blocked.load(Relaxed) {
                return;
            }
            has_room.as_mut().enable();
            if self.blocked.load(Relaxed) {
                has_room.await;
            }
        }
    }

    /// Wakes the tasks in [`Wire::writable`], while it is polled. Takes one more descriptor while the socket is blocked, for any
    /// number of tasks.
    pub(super) async fn watch_room(&self) {
        loop {
            if !self.blocked.load(Relaxed) {
                self.became_blocked.notified().await;
            }
            if self.has_room_again().await.is_err() {
                // Out of descriptors: the next send finds out.
                tokio::time::sleep(BLIND_PAUSE).await;
            }
            self.blocked.store(false, Relaxed);
            self.has_room.notify_waiters();
        }
    }

    #[expect(deprecated, reason = "see `register`")]
    async fn has_room_again(&self) -> io::Result<()> {
        let socket = AsyncFd::with_interest(self.fd.get_ref().try_clone()?, Interest::WRITABLE)?;
        socket.writable().await.map(drop)
    }

    /// Shows `take` one batch. True when there may be more.
    pub(super) fn receive(
        &self,
        mut guard: AsyncFdReadyGuard<'_, UdpSocket>,
        take: impl FnMut(&Datagrams<'_>),
    ) -> io::Result<bool> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| Box::new(Scratch::new()));
        let received = scratch.fill(self);
        if let Ok(received) = &received {
            scratch.each(*received, take);
        }
        SCRATCH.set(Some(scratch));
        match received {
            Ok(BATCH) => Ok(true),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => {
                guard.clear_ready();
                Ok(false)
            }
        }
    }

    /// Sends what fits without waiting; `WouldBlock` when not all did, and the rest is lost, as UDP allows.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        datagrams: &Datagrams<'_>,
    ) -> io::Result<()> {
        let Datagrams { ecn, bytes, stride, .. } = *datagrams;
        let segments = if stride <= SEGMENT_BYTES_MAX { self.state.max_gso_segments().max(1) } else { 1 };
        if bytes.len() <= stride {
            return self.send_one(to, from, ecn, bytes);
        }
        for chunk in bytes.chunks(stride * segments) {
            let sent = self.transmit(to, from, ecn, chunk, Some(stride));
            match sent {
                Err(error) if chunk.len() > stride && is_size(&error) => {
                    chunk.chunks(stride).try_for_each(|one| self.send_one(to, from, ecn, one))?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn send_one(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.transmit(to, from, ecn, bytes, None)
    }

    fn transmit(
        &self,
        destination: SocketAddr,
        src_ip: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit { destination, ecn, contents, segment_size, src_ip };
        let sent = self.state.try_send(self.fd.get_ref().into(), &transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.blocked.store(true, Relaxed);
            self.became_blocked.notify_one();
        }
        sent
    }
}

/// Too large for one call: the segments together, or each for the next link.
fn is_size(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
        || error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// `quinn-udp` is made for QUIC, which forbids fragments. Here others speak: a DNS answer may need them.
fn allow_fragments(socket: &UdpSocket) {
    // The one that is not of the socket's family fails, and means nothing.
    let _ = sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT);
    let _ = sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(port: u16, len: usize, stride: usize) -> RecvMeta {
        let mut meta = RecvMeta::default();
        meta.addr.set_port(port);
        (meta.len, meta.stride) = (len, stride);
        meta
    }

    /// What is shown of datagrams that came one after another: port, bytes, stride.
    fn shown(metas: &[RecvMeta]) -> Vec<(u16, usize, usize)> {
        let mut scratch = Scratch::new();
        for (n, (meta, buffer)) in metas.iter().zip(scratch.bytes.chunks_exact_mut(BUFFER_BYTES)).enumerate()
        {
            scratch.metas[n] = *meta;
            buffer[..meta.len].fill(u8::try_from(n).unwrap());
        }
        let mut shown = Vec::new();
        let mut came = metas.iter().enumerate();
        scratch.each(metas.len(), |datagrams| {
            shown.push((datagrams.peer.port(), datagrams.bytes.len(), datagrams.stride));
            let mut bytes = datagrams.bytes;
            while !bytes.is_empty() {
                let (n, meta) = came.next().unwrap();
                let (one, rest) = bytes.split_at(meta.len);
                assert!(one.iter().all(|byte| usize::from(*byte) == n), "in order, and whole");
                bytes = rest;
            }
        });
        shown
    }

    #[test]
    fn datagrams_of_one_sender_and_one_size_are_sent_on_together() {
        assert_eq!(shown(&[]), []);
        assert_eq!(shown(&[meta(1, 1200, 1200)]), [(1, 1200, 1200)]);
        assert_eq!(shown(&[meta(1, 1200, 1200), meta(1, 1200, 1200), meta(1, 7, 7)]), [(1, 2407, 1200)]);
        assert_eq!(
            shown(&[meta(1, 7, 7), meta(1, 9, 9), meta(1, 9, 9)]),
            [(1, 7, 7), (1, 18, 9)],
            "only the last may be shorter, and none longer"
        );
        assert_eq!(
            shown(&[meta(1, 9, 9), meta(1, 7, 7), meta(1, 9, 9)]),
            [(1, 16, 9), (1, 9, 9)],
            "a shorter one is the last"
        );
        assert_eq!(
            shown(&[meta(1, 9, 9), meta(2, 9, 9), meta(1, 9, 9)]),
            [(1, 9, 9), (2, 9, 9), (1, 9, 9)],
            "each sender for itself"
        );
        assert_eq!(
            shown(&[meta(1, 2400, 1200), meta(1, 3000, 1200), meta(1, 1200, 1200)]),
            [(1, 5400, 1200), (1, 1200, 1200)],
            "what the kernel merged already"
        );
        assert_eq!(
            shown(&[meta(1, 1500, 1500), meta(1, 1500, 1500)]),
            [(1, 1500, 1500), (1, 1500, 1500)],
            "too long for one call"
        );
        assert_eq!(shown(&[meta(1, 0, 0), meta(1, 0, 0)]), [(1, 0, 1), (1, 0, 1)], "empty ones stay alone");
        let most: Vec<_> = (0..32).map(|_| meta(1, 1452 * 2, 1452)).collect();
        assert_eq!(shown(&most).len(), 2, "no longer than one call may be");
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[tokio::test]
    async fn flows_that_wait_for_room_to_send_take_one_descriptor_together() {
        let wire = Wire::listening(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        wire.blocked.store(true, Relaxed);
        let before = descriptors();
        let mut watch = pin!(wire.watch_room());
        let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(wire.writable())).collect();
        assert!(futures_util::poll!(watch.as_mut()).is_pending());
        for flow in &mut waiting {
            assert!(futures_util::poll!(flow.as_mut()).is_pending());
        }
        // Other tests of this process may open some, too.
        let more = descriptors().saturating_sub(before);
        assert!(more < 20, "{more} descriptors for 50 flows");
        let all = async {
            for flow in waiting {
                flow.await;
            }
        };
        tokio::select! {
            () = all => {}
            () = watch => {}
        }
    }

    #[test]
    fn datagrams_that_differ_in_how_they_were_sent_stay_apart() {
        let (mut marked, mut elsewhere) = (meta(1, 9, 9), meta(1, 9, 9));
        marked.ecn = Some(EcnCodepoint::Ce);
        elsewhere.dst_ip = Some(IpAddr::from([127, 0, 0, 2]));
        assert_eq!(shown(&[meta(1, 9, 9), marked, elsewhere]).len(), 3);
    }
}
