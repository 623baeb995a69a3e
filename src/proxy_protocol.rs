//! The PROXY protocol, versions 1 and 2: the header by which a proxy passes on the address of its client. Pure.
//!
//! Parsing allocates nothing. Source: `doc/proxy-protocol.txt` of HAProxy.

mod crc32c;
pub mod tlv;
mod v1;
mod v2;

use std::fmt;
use std::net::SocketAddr;

use tlv::Tlvs;
pub use v1::encode as encode_v1;
pub use v2::{Encoder, Transport};

/// The maximum length of a header, received or sent, in bytes. HAProxy's header with all of its options but the client's
/// certificate takes less than 1,000 bytes, and a certificate usually less than 3,000. The specification expects any header to fit
/// into a TCP segment.
pub const HEADER_BYTES_MAX: usize = 4_096;

/// The header of version 1 for a connection whose client is not known.
pub const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// The header of version 2 for a connection that the sender has opened for itself.
pub const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The connection of the client. `None` if the sender has opened the connection for itself (`LOCAL`), or does not know the
    /// addresses (`UNKNOWN`): those of the socket apply.
    pub addresses: Option<Addresses>,
    /// What version 2 adds.
    pub tlvs: Tlvs<'a>,
    /// The number of bytes until the first byte of the client.
    pub length: usize,
}

/// The two ends of the client's connection. IPv4-mapped addresses are IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The address of the client.
    pub source: SocketAddr,
    /// The address that the client has connected to.
    pub destination: SocketAddr,
}

/// Why bytes are not a header, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid(&'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Invalid {}

/// Parses the header at the beginning of `bytes`. Returns `None` if more bytes are needed, which never exceed
/// [`HEADER_BYTES_MAX`].
///
/// # Errors
///
/// Fails as soon as the bytes cannot be the beginning of a header.
pub fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, Invalid> {
    if begins(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else if begins(bytes, v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(Invalid("not a PROXY header"))
    }
}

/// Returns whether `bytes` begin with `signature`, as far as there are bytes.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

impl Addresses {
    /// Returns the addresses, IPv4-mapped ones as IPv4 addresses.
    pub fn canonical(source: SocketAddr, destination: SocketAddr) -> Addresses {
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Addresses { source: canonical(source), destination: canonical(destination) }
    }
}

/// Parses bytes, and whatever a header among them encodes to, for the fuzz targets.
///
/// # Panics
///
/// If a header does not survive encoding and parsing, or was complete before its last byte.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    let Ok(Some(header)) = parse(bytes) else { return };
    assert!(header.length <= HEADER_BYTES_MAX && header.length <= bytes.len(), "{header:?}");
    let before = bytes.get(..header.length.saturating_sub(1)).unwrap_or_default();
    assert_eq!(parse(before), Ok(None), "the last byte of a header is needed");
    let addresses_of = |bytes: &[u8]| parse(bytes).map(|header| header.map(|header| header.addresses));
    let line = encode_v1(header.addresses);
    assert_eq!(addresses_of(line.as_bytes()), Ok(Some(header.addresses)), "{line}");
    let begun = Encoder::new(header.addresses, Transport::Stream);
    let passed_on = header.tlvs.to_pass_on();
    let fields = Tlvs::parse(&passed_on).unwrap_or_default();
    let encoded = fields.iter().fold(begun, |encoder, tlv| encoder.with(tlv.kind, tlv.value)).into_bytes();
    assert_eq!(addresses_of(&encoded), Ok(Some(header.addresses)), "{header:?}");
}

#[cfg(test)]
mod tests;
