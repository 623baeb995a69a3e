//! A UDP socket that is read and written in batches. Boundaries between datagrams are preserved: what the kernel merged on
//! receipt (GRO) is segmented again by the kernel on sending (GSO), or here.

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

/// Buffers per receive call.
const BATCH: usize = 32;

/// Larger than any datagram, and than what GRO merges, so that nothing is truncated.
const BUFFER_BYTES: usize = 64 << 10;

/// Datagrams up to this size are sent by GSO: Ethernet's 1500 without the headers of IPv6 and UDP. Larger ones may need
/// fragmentation on the next link, which GSO does not do.
pub(super) const SEGMENT_BYTES_MAX: usize = 1452;

/// The maximum size of one send: the longest payload of an IPv4 UDP packet.
pub(super) const MERGED_BYTES_MAX: usize = 65_507;

/// How long sending pauses if the socket cannot be polled for writability.
const BLIND_PAUSE: Duration = Duration::from_millis(100);

/// The requested receive buffer, for bursts. The kernel grants at most `net.core.rmem_max`.
const RECEIVE_BYTES: usize = 1 << 20;

thread_local! {
    /// `None` before the first use and while in use.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Receive buffers. Pages that no datagram has touched take no memory.
struct Scratch {
    bytes: Box<[u8]>,
    metas: [RecvMeta; BATCH],
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { bytes: vec![0; BATCH * BUFFER_BYTES].into(), metas: [RecvMeta::default(); BATCH] }
    }

    fn fill(&mut self, socket: &DatagramSocket) -> io::Result<usize> {
        let mut buffers = self.bytes.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        socket.state.recv(socket.fd.get_ref().into(), &mut slices, &mut self.metas)
    }

    /// Calls `handle` for what was received. Consecutive datagrams of one sender and one size are merged first, as by GRO: a copy
    /// of 1,200 bytes is cheaper than a send call for each.
    fn each(&mut self, received: usize, mut handle: impl FnMut(&Datagrams<'_>)) {
        let mut buffers = self.bytes.chunks_exact_mut(BUFFER_BYTES);
        let mut metas = self.metas.iter().take(received);
        let (Some(mut first), Some(mut run)) = (metas.next(), buffers.next()) else { return };
        let mut length = first.len;
        for (meta, buffer) in metas.zip(buffers) {
            if continues(first, length, meta)
                && let Some(tail) = run.get_mut(length..length + meta.len)
                && let Some(bytes) = buffer.get(..meta.len)
            {
                tail.copy_from_slice(bytes);
                length += meta.len;
                continue;
            }
            handle(&Datagrams::of(first, run, length));
            (first, run, length) = (meta, buffer, meta.len);
        }
        handle(&Datagrams::of(first, run, length));
    }
}

/// Returns whether `next` can be sent by one call with the `length` bytes from `first` on: all but the last must be of one size.
fn continues(first: &RecvMeta, length: usize, next: &RecvMeta) -> bool {
    let RecvMeta { addr, dst_ip, ecn, stride, .. } = *first;
    (next.addr, next.dst_ip, next.ecn) == (addr, dst_ip, ecn)
        && (1..=SEGMENT_BYTES_MAX).contains(&stride)
        && length.is_multiple_of(stride)
        && next.len > 0
        && (next.stride == stride || (next.stride == next.len && next.len < stride))
        && length + next.len <= MERGED_BYTES_MAX
}

/// Datagrams of one size, received together. The last may be shorter.
pub(super) struct Datagrams<'a> {
    pub(super) peer: SocketAddr,
    /// The address that the peer wrote to.
    pub(super) local: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: &'a [u8],
    stride: usize,
}

impl<'a> Datagrams<'a> {
    /// Returns the datagrams in the first `length` bytes of `buffer`.
    fn of(meta: &RecvMeta, buffer: &'a [u8], length: usize) -> Datagrams<'a> {
        let bytes = buffer.get(..length).unwrap_or_default();
        // An empty datagram counts as one.
        let stride = meta.stride.max(1);
        Datagrams { peer: meta.addr, local: meta.dst_ip, ecn: meta.ecn, bytes, stride }
    }

    /// Returns a single datagram without a local address.
    pub(super) fn one(peer: SocketAddr, bytes: &'a [u8]) -> Datagrams<'a> {
        Datagrams::joined(peer, bytes, bytes.len())
    }

    /// Returns datagrams of `size` bytes, of which the last may be shorter.
    pub(super) fn joined(peer: SocketAddr, bytes: &'a [u8], size: usize) -> Datagrams<'a> {
        Datagrams { peer, local: None, ecn: None, bytes, stride: size.max(1) }
    }

    /// Returns the same datagrams with this mark for congestion.
    pub(super) fn marked(&self, ecn: Option<EcnCodepoint>) -> Datagrams<'a> {
        Datagrams { ecn, ..*self }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(self.stride))
    }
}

/// A UDP socket, registered with the runtime of this thread.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    /// Registered for reading alone: otherwise every datagram sent would wake the task for writability.
    fd: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// The send buffer was full at the last send.
    blocked: AtomicBool,
    /// Notified when `blocked` becomes true, for [`DatagramSocket::watch_blocked`].
    became_blocked: Notify,
    /// Notified when `blocked` becomes false.
    unblocked: Notify,
}

impl DatagramSocket {
    /// Registers a listening socket, which reports the local address of each datagram.
    ///
    /// Datagrams larger than the MTU may be fragmented, except to an IPv6 client from an IPv6 socket: `quinn-udp` disables it
    /// there, and no safe API enables it again.
    pub(super) fn listening(socket: UdpSocket) -> io::Result<DatagramSocket> {
        let state = UdpSocketState::new((&socket).into())?;
        allow_fragments(&socket);
        DatagramSocket::register(socket, state)
    }

    /// Registers a connected socket.
    pub(super) fn connected(socket: UdpSocket) -> io::Result<DatagramSocket> {
        let state = if socket.local_addr()?.is_ipv4() {
            UdpSocketState::new((&socket).into())?
        } else {
            // Created for another socket, so that this one may send fragments; see `listening`. This disables GRO.
            UdpSocketState::new((&UdpSocket::bind("127.0.0.1:0")?).into())?
        };
        allow_fragments(&socket);
        DatagramSocket::register(socket, state)
    }

    #[expect(
        deprecated,
        reason = "unsound for types that lie about their descriptor; UdpSocket cannot, and the replacement is unsafe to call"
    )]
    fn register(socket: UdpSocket, state: UdpSocketState) -> io::Result<DatagramSocket> {
        socket.set_nonblocking(true)?;
        // A smaller buffer is fine.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES);
        let fd = AsyncFd::with_interest(socket, Interest::READABLE | Interest::ERROR)?;
        let blocked = AtomicBool::new(false);
        Ok(DatagramSocket { fd, state, blocked, became_blocked: Notify::new(), unblocked: Notify::new() })
    }

    /// Waits for datagrams, or for an error.
    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, UdpSocket>> {
        self.fd.ready(Interest::READABLE | Interest::ERROR).await
    }

    /// Waits until the send buffer is not full. Rarely long, because it is full only while the queue of the link is. Any number of
    /// tasks may wait, while one polls [`DatagramSocket::watch_blocked`].
    pub(super) async fn writable(&self) {
        loop {
            let mut unblocked = pin!(self.unblocked.notified());
            if !self.blocked.load(Relaxed) {
                return;
            }
            unblocked.as_mut().enable();
            if self.blocked.load(Relaxed) {
                unblocked.await;
            }
        }
    }

    /// Wakes the tasks in [`DatagramSocket::writable`], while it is polled. Takes one more descriptor while the socket is blocked,
    /// for any number of tasks.
    pub(super) async fn watch_blocked(&self) {
        loop {
            if !self.blocked.load(Relaxed) {
                self.became_blocked.notified().await;
            }
            if self.wait_writable().await.is_err() {
                // Out of descriptors: the next send tests the socket.
                tokio::time::sleep(BLIND_PAUSE).await;
            }
            self.blocked.store(false, Relaxed);
            self.unblocked.notify_waiters();
        }
    }

    #[expect(deprecated, reason = "see `register`")]
    async fn wait_writable(&self) -> io::Result<()> {
        let socket = AsyncFd::with_interest(self.fd.get_ref().try_clone()?, Interest::WRITABLE)?;
        socket.writable().await.map(drop)
    }

    /// Receives one batch and calls `handle` for it. Returns `true` if there may be more.
    pub(super) fn receive(
        &self,
        mut guard: AsyncFdReadyGuard<'_, UdpSocket>,
        handle: impl FnMut(&Datagrams<'_>),
    ) -> io::Result<bool> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| Box::new(Scratch::new()));
        let received = scratch.fill(self);
        if let Ok(received) = &received {
            scratch.each(*received, handle);
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

    /// Sends without waiting. Fails with `WouldBlock` if the send buffer is full; the rest is dropped, as UDP allows.
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

/// Returns whether an error means that the segments together, or each of them, are too large.
fn is_size(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
        || error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Allows fragmentation. `quinn-udp` disables it because QUIC forbids it, but other protocols such as DNS may need it.
fn allow_fragments(socket: &UdpSocket) {
    // The option of the other address family fails, which is ignored.
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

    /// Returns the batches that consecutive datagrams are merged into: port, bytes, stride.
    fn merged(metas: &[RecvMeta]) -> Vec<(u16, usize, usize)> {
        let mut scratch = Scratch::new();
        for (n, (meta, buffer)) in metas.iter().zip(scratch.bytes.chunks_exact_mut(BUFFER_BYTES)).enumerate()
        {
            scratch.metas[n] = *meta;
            buffer[..meta.len].fill(u8::try_from(n).unwrap());
        }
        let mut merged = Vec::new();
        let mut received = metas.iter().enumerate();
        scratch.each(metas.len(), |datagrams| {
            merged.push((datagrams.peer.port(), datagrams.bytes.len(), datagrams.stride));
            let mut bytes = datagrams.bytes;
            while !bytes.is_empty() {
                let (n, meta) = received.next().unwrap();
                let (one, rest) = bytes.split_at(meta.len);
                assert!(one.iter().all(|byte| usize::from(*byte) == n), "in order and complete");
                bytes = rest;
            }
        });
        merged
    }

    #[test]
    fn datagrams_of_one_sender_and_one_size_are_merged() {
        assert_eq!(merged(&[]), []);
        assert_eq!(merged(&[meta(1, 1200, 1200)]), [(1, 1200, 1200)]);
        assert_eq!(merged(&[meta(1, 1200, 1200), meta(1, 1200, 1200), meta(1, 7, 7)]), [(1, 2407, 1200)]);
        assert_eq!(
            merged(&[meta(1, 7, 7), meta(1, 9, 9), meta(1, 9, 9)]),
            [(1, 7, 7), (1, 18, 9)],
            "only the last may be shorter, and none longer"
        );
        assert_eq!(
            merged(&[meta(1, 9, 9), meta(1, 7, 7), meta(1, 9, 9)]),
            [(1, 16, 9), (1, 9, 9)],
            "a shorter one is the last"
        );
        assert_eq!(
            merged(&[meta(1, 9, 9), meta(2, 9, 9), meta(1, 9, 9)]),
            [(1, 9, 9), (2, 9, 9), (1, 9, 9)],
            "senders are not mixed"
        );
        assert_eq!(
            merged(&[meta(1, 2400, 1200), meta(1, 3000, 1200), meta(1, 1200, 1200)]),
            [(1, 5400, 1200), (1, 1200, 1200)],
            "already merged by the kernel"
        );
        assert_eq!(
            merged(&[meta(1, 1500, 1500), meta(1, 1500, 1500)]),
            [(1, 1500, 1500), (1, 1500, 1500)],
            "too large for GSO"
        );
        assert_eq!(
            merged(&[meta(1, 0, 0), meta(1, 0, 0)]),
            [(1, 0, 1), (1, 0, 1)],
            "empty datagrams are not merged"
        );
        let most: Vec<_> = (0..32).map(|_| meta(1, 1452 * 2, 1452)).collect();
        assert_eq!(merged(&most).len(), 2, "within the limit of one send");
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[tokio::test]
    async fn flows_that_wait_for_the_send_buffer_share_one_descriptor() {
        let socket = DatagramSocket::listening(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        socket.blocked.store(true, Relaxed);
        let before = descriptors();
        let mut watch = pin!(socket.watch_blocked());
        let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(socket.writable())).collect();
        assert!(futures_util::poll!(watch.as_mut()).is_pending());
        for flow in &mut waiting {
            assert!(futures_util::poll!(flow.as_mut()).is_pending());
        }
        // Other tests of this process may open some as well.
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
    fn datagrams_with_different_headers_are_not_merged() {
        let (mut marked, mut elsewhere) = (meta(1, 9, 9), meta(1, 9, 9));
        marked.ecn = Some(EcnCodepoint::Ce);
        elsewhere.dst_ip = Some(IpAddr::from([127, 0, 0, 2]));
        assert_eq!(merged(&[meta(1, 9, 9), marked, elsewhere]).len(), 3);
    }
}
