//! The network that counts as one client. Pure.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 address: the smallest network that is assigned to one host (RFC 6177), which can use
/// every address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientNet(IpAddr);

/// The part of an IPv6 address that a host cannot choose.
const PREFIX: u128 = !0 << 64;

impl ClientNet {
    /// Returns the network of an address. An IPv4-mapped address is the IPv4 address.
    pub fn of(ip: IpAddr) -> ClientNet {
        ClientNet(match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & PREFIX).into(),
            ip => ip,
        })
    }

    /// Returns its first address.
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_the_same_prefix_are_one_client() {
        let net = |ip: &str| ClientNet::of(ip.parse().unwrap());
        assert_eq!(net("2001:db8:0:1::1"), net("2001:db8:0:1:ffff::2"));
        assert_ne!(net("2001:db8:0:1::1"), net("2001:db8:0:2::1"));
        assert_ne!(net("192.0.2.1"), net("192.0.2.2"));
        assert_eq!(net("::ffff:192.0.2.1"), net("192.0.2.1"));
    }
}
