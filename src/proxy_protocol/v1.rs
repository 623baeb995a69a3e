//! Version 1: a line of text, such as `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::tlv::Tlvs;
use super::{Addresses, Header, Invalid};

/// The beginning of every line.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line with its CRLF.
const LINE_BYTES_MAX: usize = 107;

const MALFORMED: Invalid = Invalid("malformed PROXY v1 header");

/// Parses a line, whose beginning is known to be that of [`SIGNATURE`].
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header<'_>>, Invalid> {
    let line = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        let is_too_long = line.len() == LINE_BYTES_MAX;
        return if is_too_long { Err(Invalid("PROXY v1 header longer than 107 bytes")) } else { Ok(None) };
    };
    match line.get(end..) {
        Some([b'\r', b'\n', ..]) => {}
        Some([b'\r']) if line.len() < LINE_BYTES_MAX => return Ok(None),
        _ => return Err(Invalid("PROXY v1 header not ended by CRLF")),
    }
    let text = line.get(SIGNATURE.len()..end).and_then(|text| std::str::from_utf8(text).ok());
    let addresses = addresses(text.ok_or(MALFORMED)?)?;
    Ok(Some(Header { addresses, tlvs: Tlvs::default(), length: end + 2 }))
}

/// Parses what follows `PROXY `.
fn addresses(text: &str) -> Result<Option<Addresses>, Invalid> {
    let (protocol, rest) = text.split_once(' ').unwrap_or((text, ""));
    match protocol {
        // What follows it is ignored.
        "UNKNOWN" => Ok(None),
        "TCP4" => pair::<Ipv4Addr>(rest).map(Some),
        "TCP6" => pair::<Ipv6Addr>(rest).map(Some),
        _ => Err(MALFORMED),
    }
}

fn pair<Ip: FromStr + Into<IpAddr>>(text: &str) -> Result<Addresses, Invalid> {
    let mut words = text.split(' ');
    let mut next = || words.next().ok_or(MALFORMED);
    let (source, destination) = (ip::<Ip>(next()?)?, ip::<Ip>(next()?)?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(MALFORMED);
    }
    let source = SocketAddr::new(source, source_port);
    Ok(Addresses::canonical(source, SocketAddr::new(destination, destination_port)))
}

/// The standard library accepts neither leading zeros nor a scope.
fn ip<Ip: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, Invalid> {
    text.parse::<Ip>().map(Into::into).map_err(|_| Invalid("invalid address in the PROXY v1 header"))
}

/// Unlike the standard library, accepts neither a sign nor leading zeros.
fn port(text: &str) -> Result<u16, Invalid> {
    let is_strict = text == "0" || text.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
    let port = if is_strict { text.parse().ok() } else { None };
    port.ok_or(Invalid("invalid port in the PROXY v1 header"))
}

/// Returns the line for these addresses. If only one of them is an IPv6 address, both are written as such. `None` is written as
/// `UNKNOWN`.
pub fn encode(addresses: Option<Addresses>) -> String {
    let Some(Addresses { source, destination }) = addresses else { return "PROXY UNKNOWN\r\n".to_owned() };
    let (from, to) = (source.port(), destination.port());
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            format!("PROXY TCP4 {source} {destination} {from} {to}\r\n")
        }
        (source, destination) => {
            format!("PROXY TCP6 {} {} {from} {to}\r\n", v6(source), v6(destination))
        }
    }
}

/// Returns the address, IPv4 addresses as IPv4-mapped ones.
pub(super) fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
