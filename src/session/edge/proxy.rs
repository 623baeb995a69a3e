//! Reads the PROXY protocol header of a client that must send one.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::{Edge, Failure};
use crate::connect::cause;
use crate::ending::Ending;
use crate::listener::ClientAddr;
use crate::proxy_protocol::{self, Addresses, Invalid};
use crate::route::{ProxySender, ProxyVersion};
use crate::socket::Socket;

/// A proxy sends the header at once, so only the network can delay it: two retransmissions of Linux fit.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a header contains.
struct Received {
    addresses: Option<Addresses>,
    /// The fields that are passed on.
    tlvs: Vec<u8>,
}

impl Edge {
    /// Reads the header of a client that must send one. From then on, its source is the client. The bytes of other clients belong to
    /// their session, even if they look like a header. `passed_on` is the version of the header that the endpoint gets.
    pub(super) async fn accept_proxy(
        &mut self,
        senders: &[ProxySender],
        passed_on: Option<ProxyVersion>,
    ) -> Result<(), Failure> {
        if !is_sender(senders, self.client) {
            return Ok(());
        }
        let are_passed_on = passed_on == Some(ProxyVersion::V2);
        let Received { addresses, tlvs } = receive(&self.socket, are_passed_on).await.map_err(|why| {
            self.socket.reset_on_close();
            Failure::new(Ending::ProxyHeader, why)
        })?;
        if let Some(Addresses { source, .. }) = addresses {
            self.client = ClientAddr::Inet(source);
        }
        if passed_on.is_some() {
            let details = self.details.get_or_insert_default();
            details.tlvs = tlvs;
            details.destination = addresses.map(|addresses| addresses.destination);
        }
        Ok(())
    }
}

async fn receive(socket: &Socket, are_passed_on: bool) -> Result<Received, String> {
    let header = socket.read_prefix(|bytes| received(bytes, are_passed_on));
    match timeout(HEADER_TIMEOUT, header).await {
        Ok(Ok(received)) => received.map_err(|invalid| invalid.to_string()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err("closed before the PROXY header was complete".to_owned())
        }
        Ok(Err(error)) => Err(cause(&error)),
        Err(_) => Err("no complete PROXY header within 5 s".to_owned()),
    }
}

fn is_sender(senders: &[ProxySender], client: ClientAddr) -> bool {
    senders.iter().any(|sender| match (sender, client) {
        (ProxySender::Net(net), ClientAddr::Inet(addr)) => net.contains(&addr.ip()),
        (ProxySender::Unix, ClientAddr::Unix) => true,
        _ => false,
    })
}

/// Returns the header and its length, or `None` while it is incomplete. Of bytes that are not a header, none is read.
fn received(bytes: &[u8], are_passed_on: bool) -> Option<(usize, Result<Received, Invalid>)> {
    match proxy_protocol::parse(bytes).transpose()? {
        Ok(header) => {
            let tlvs = if are_passed_on { header.tlvs.to_pass_on() } else { Vec::new() };
            Some((header.length, Ok(Received { addresses: header.addresses, tlvs })))
        }
        Err(invalid) => Some((0, Err(invalid))),
    }
}
