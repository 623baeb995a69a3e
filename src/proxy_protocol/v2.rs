//! Version 2: binary, with a length and additional fields. Pure.
//!
//! ```text
//!   signature (12) │ version, command (1) │ family, transport (1) │ length (2) │ addresses │ fields
//! ```

use std::net::{IpAddr, SocketAddr};

use super::crc32c::crc32c;
use super::tlv::{self, Tlvs, kind};
use super::v1::v6;
use super::{Addresses, HEADER_BYTES_MAX, Header, Invalid};

/// The beginning of every header.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The bytes before the addresses.
const FIXED_BYTES: usize = 16;
/// Where the version and the command are.
const COMMAND: usize = 12;
/// Where the family and the transport are.
const FAMILY: usize = 13;
/// Where the length of what follows is.
const LENGTH: std::ops::Range<usize> = 14..FIXED_BYTES;
/// Two paths.
const UNIX_BYTES: usize = 216;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const INET: u8 = 0x1;
const INET6: u8 = 0x2;

/// What the client's connection consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Stream = 1,
    /// UDP.
    Datagram = 2,
}

/// Parses a header, whose beginning is known to be that of [`SIGNATURE`].
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, Invalid> {
    let Some(command) = bytes.get(COMMAND) else { return Ok(None) };
    let is_local = match *command {
        LOCAL => true,
        PROXY => false,
        _ => return Err(Invalid("unknown version or command in the PROXY v2 header")),
    };
    let Some(family) = bytes.get(FAMILY) else { return Ok(None) };
    if !is_local && (family >> 4 > 3 || family & 0xf > 2) {
        return Err(Invalid("unknown address family in the PROXY v2 header"));
    }
    let Some(&[_, _, high, low]) = bytes.get(COMMAND..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_BYTES_MAX {
        return Err(Invalid("PROXY v2 header longer than 4096 bytes"));
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    if is_local {
        // Any addresses and fields are those of the sender.
        return Ok(Some(Header { addresses: None, tlvs: Tlvs::default(), length }));
    }
    let block = header.get(FIXED_BYTES..).unwrap_or_default();
    let (addresses, fields) = addresses(*family, block).ok_or(TRUNCATED)?;
    let tlvs = Tlvs::parse(fields).ok_or(Invalid("invalid field in the PROXY v2 header"))?;
    verify(header, tlvs)?;
    Ok(Some(Header { addresses, tlvs, length }))
}

const TRUNCATED: Invalid = Invalid("PROXY v2 header too short for its addresses");

/// Returns the addresses and what follows them. Only those of TCP are used: a client of a unix socket or of UDP cannot be the
/// client of a TCP connection. Without a family, the specification defines no fields either.
fn addresses(family: u8, block: &[u8]) -> Option<(Option<Addresses>, &[u8])> {
    let (addresses, fields) = match family >> 4 {
        INET => inet::<4>(block)?,
        INET6 => inet::<16>(block)?,
        3 => return Some((None, block.get(UNIX_BYTES..)?)),
        _ => return Some((None, &[])),
    };
    Some((Some(addresses).filter(|_| family & 0xf == Transport::Stream as u8), fields))
}

/// Parses two addresses of `N` bytes, then two ports.
fn inet<const N: usize>(block: &[u8]) -> Option<(Addresses, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, fields) = rest.split_first_chunk::<2>()?;
    let addr = |ip: [u8; N], port: [u8; 2]| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    let source = addr(*source, *source_port);
    Some((Addresses::canonical(source, addr(*destination, *destination_port)), fields))
}

/// Verifies the checksum, if there is one: it is computed with zeros in its place.
fn verify(header: &[u8], tlvs: Tlvs<'_>) -> Result<(), Invalid> {
    let Some((checksum, after)) = tlvs.find(kind::CRC32C) else { return Ok(()) };
    let before = header.get(..header.len().saturating_sub(after.len() + checksum.len())).unwrap_or_default();
    let expected = crc32c(&[before, &[0; size_of::<u32>()], after]).to_be_bytes();
    if checksum == expected { Ok(()) } else { Err(Invalid("wrong checksum in the PROXY v2 header")) }
}

/// Encodes one header.
#[derive(Debug)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// Begins a header with these addresses. If only one of them is an IPv6 address, both are written as such. `None` is written as
    /// `LOCAL`, which has no fields.
    pub fn new(addresses: Option<Addresses>, transport: Transport) -> Encoder {
        let mut bytes = SIGNATURE.to_vec();
        let Some(Addresses { source, destination }) = addresses else {
            bytes.extend_from_slice(&[LOCAL, 0, 0, 0]);
            return Encoder(bytes);
        };
        let is_v4 = source.is_ipv4() && destination.is_ipv4();
        let family = if is_v4 { INET } else { INET6 };
        bytes.extend_from_slice(&[PROXY, family << 4 | transport as u8, 0, 0]);
        for addr in [source, destination] {
            match addr.ip() {
                IpAddr::V4(ip) if is_v4 => bytes.extend_from_slice(&ip.octets()),
                ip => bytes.extend_from_slice(&v6(ip).octets()),
            }
        }
        bytes.extend_from_slice(&source.port().to_be_bytes());
        bytes.extend_from_slice(&destination.port().to_be_bytes());
        Encoder(bytes).with_length()
    }

    /// Adds a field, unless the header would exceed [`HEADER_BYTES_MAX`].
    #[must_use]
    pub fn with(mut self, kind: u8, value: &[u8]) -> Encoder {
        if self.0.get(COMMAND) == Some(&PROXY) {
            tlv::append(&mut self.0, kind, value, HEADER_BYTES_MAX);
        }
        self.with_length()
    }

    fn with_length(mut self) -> Encoder {
        let length = u16::try_from(self.0.len() - FIXED_BYTES).unwrap_or_default();
        if let Some(field) = self.0.get_mut(LENGTH) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        self
    }

    /// Returns the header.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
