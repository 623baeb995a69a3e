//! The PROXY protocol header that precedes a session to its endpoint.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::client_details::{ClientDetails, ClientTls};
use crate::credentials::PeerIdentity;
use crate::listener::ClientAddr;
use crate::proxy_protocol::tlv::{Ssl, Tlvs, kind};
use crate::proxy_protocol::{Addresses, Encoder, Transport, encode_v1};
use crate::route::{Options, ProxyTlv, ProxyVersion};

/// The client of a session.
pub(super) struct Client<'a> {
    pub(super) addr: ClientAddr,
    /// The address that it has connected to. `None` for a session that a peer has opened.
    pub(super) destination: Option<SocketAddr>,
    pub(super) details: Option<&'a ClientDetails>,
    /// The peer that has opened the session, or the identity in the client's certificate.
    pub(super) identity: Option<&'a PeerIdentity>,
}

impl Client<'_> {
    /// Returns the header that the options ask for. Empty if they ask for none.
    pub(super) fn header(&self, options: &Options, transport: Transport) -> Vec<u8> {
        match options.send_proxy {
            None => Vec::new(),
            Some(ProxyVersion::V1) => encode_v1(self.addresses()).into_bytes(),
            Some(ProxyVersion::V2) => self.encode_v2(&options.proxy_tlv, transport),
        }
    }

    /// Returns `None` for a client of a unix socket, which has no address. A destination that is not known is unspecified, because a
    /// header without one could not contain the source either.
    fn addresses(&self) -> Option<Addresses> {
        let ClientAddr::Inet(source) = self.addr else { return None };
        let unspecified: IpAddr =
            if source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let destination = self.destination.unwrap_or_else(|| SocketAddr::new(unspecified, 0));
        Some(Addresses::canonical(source, destination))
    }

    /// The fields that the options ask for take the place of those received.
    fn encode_v2(&self, asked_for: &[ProxyTlv], transport: Transport) -> Vec<u8> {
        let received = self.details.and_then(|details| Tlvs::parse(&details.tlvs)).unwrap_or_default();
        let own: Vec<_> = asked_for.iter().filter_map(|tlv| self.field(*tlv, received)).collect();
        let begun = Encoder::new(self.addresses(), transport);
        let with_own = own.iter().fold(begun, |header, (kind, value)| header.with(*kind, value));
        let others = received.iter().filter(|tlv| own.iter().all(|(kind, _)| *kind != tlv.kind));
        others.fold(with_own, |header, tlv| header.with(tlv.kind, tlv.value)).into_bytes()
    }

    /// Returns the type and the value of a field. `None` if it is not known here.
    fn field(&self, tlv: ProxyTlv, received: Tlvs<'_>) -> Option<(u8, Cow<'_, [u8]>)> {
        match tlv {
            ProxyTlv::Ssl => Some((kind::SSL, ssl(self.details?.tls.as_ref()?).into())),
            ProxyTlv::Authority => {
                Some((kind::AUTHORITY, self.details?.server_name.as_ref()?.as_bytes().into()))
            }
            ProxyTlv::Identity => Some((kind::IDENTITY, self.identity?.identity.as_bytes().into())),
            // An identifier that an earlier proxy has assigned is kept: its purpose is to be the same everywhere.
            ProxyTlv::UniqueId if received.iter().any(|tlv| tlv.kind == kind::UNIQUE_ID) => None,
            ProxyTlv::UniqueId => Some((kind::UNIQUE_ID, unique_id().into_bytes().into())),
        }
    }
}

fn ssl(ClientTls { version, cipher, common_name, peer }: &ClientTls) -> Vec<u8> {
    let (has_certificate, cipher) = (peer.is_some(), openssl_name(cipher));
    Ssl { version, cipher: &cipher, has_certificate, common_name: common_name.as_deref() }.value()
}

/// Returns the name that OpenSSL, and therefore HAProxy, has for a cipher suite of rustls.
fn openssl_name(suite: &str) -> Cow<'_, str> {
    if let Some(name) = suite.strip_prefix("TLS13_") {
        return format!("TLS_{name}").into();
    }
    let Some(name) = suite.strip_prefix("TLS_") else { return suite.into() };
    let name = name.replace("_WITH", "").replace("AES_", "AES").replace('_', "-");
    name.strip_suffix("-POLY1305-SHA256").map(|name| format!("{name}-POLY1305")).unwrap_or(name).into()
}

/// Returns a different text for every session of every process: 32 hexadecimal digits.
fn unique_id() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static SESSIONS: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    format!("{process:016x}{:016x}", SESSIONS.fetch_add(1, Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy_protocol::parse;

    fn options(send_proxy: ProxyVersion, proxy_tlv: &[ProxyTlv]) -> Options {
        Options { send_proxy: Some(send_proxy), proxy_tlv: proxy_tlv.to_vec(), ..Options::named("test") }
    }

    fn client(addr: &str, details: Option<&'static ClientDetails>) -> Client<'static> {
        let destination = Some("192.0.2.2:443".parse().unwrap());
        Client { addr: ClientAddr::Inet(addr.parse().unwrap()), destination, details, identity: None }
    }

    /// Returns the kinds and values of the fields that are sent.
    fn sent(client: &Client<'_>, proxy_tlv: &[ProxyTlv]) -> Vec<(u8, String)> {
        let header = client.header(&options(ProxyVersion::V2, proxy_tlv), Transport::Stream);
        let tlvs = parse(&header).unwrap().unwrap().tlvs;
        tlvs.iter().map(|tlv| (tlv.kind, tlv.value.escape_ascii().to_string())).collect()
    }

    #[test]
    fn header_has_the_version_that_is_asked_for() {
        let header = |client: &Client<'_>, version| client.header(&options(version, &[]), Transport::Stream);
        let known = client("192.0.2.1:7", None);
        assert_eq!(header(&known, ProxyVersion::V1), b"PROXY TCP4 192.0.2.1 192.0.2.2 7 443\r\n");
        assert_eq!(known.header(&Options::named("test"), Transport::Stream), b"");
        let opened_by_peer = Client { destination: None, ..known };
        assert_eq!(header(&opened_by_peer, ProxyVersion::V1), b"PROXY TCP4 192.0.2.1 0.0.0.0 7 0\r\n");
        let unix = Client { addr: ClientAddr::Unix, ..opened_by_peer };
        assert_eq!(header(&unix, ProxyVersion::V1), b"PROXY UNKNOWN\r\n");
        assert!(header(&unix, ProxyVersion::V2).ends_with(b"\x20\0\0\0"));
    }

    fn details() -> &'static ClientDetails {
        let tls = ClientTls { version: "TLSv1.3", cipher: "C".to_owned(), common_name: None, peer: None };
        Box::leak(Box::new(ClientDetails {
            // A custom field, a unique ID and an authority.
            tlvs: b"\xe0\0\x01x\x05\0\x01u\x02\0\x01a".to_vec(),
            server_name: Some("b".to_owned()),
            tls: Some(tls),
            ..ClientDetails::default()
        }))
    }

    #[test]
    fn fields_received_are_passed_on_unless_they_are_known_here() {
        let through = client("192.0.2.1:7", Some(details()));
        let text = |pairs: &[(u8, &str)]| {
            pairs.iter().map(|(kind, value)| (*kind, (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(sent(&through, &[]), text(&[(0xe0, "x"), (5, "u"), (2, "a")]));
        assert_eq!(
            sent(&through, &[ProxyTlv::UniqueId, ProxyTlv::Authority, ProxyTlv::Identity]),
            text(&[(2, "b"), (0xe0, "x"), (5, "u")])
        );
        let tls = sent(&through, &[ProxyTlv::Ssl]);
        assert!(tls[0].0 == kind::SSL && tls[0].1.contains("TLSv1.3"), "{tls:?}");
    }

    /// From `openssl ciphers -stdname`.
    #[test]
    fn cipher_suites_have_the_names_of_openssl() {
        for (suite, expected) in [
            ("TLS13_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
            ("TLS13_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
            ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
        ] {
            assert_eq!(openssl_name(suite), expected);
        }
    }

    #[test]
    fn unique_ids_differ() {
        let client = client("192.0.2.1:7", None);
        let [one, other] = [(); 2].map(|()| sent(&client, &[ProxyTlv::UniqueId]));
        assert!(one[0].0 == kind::UNIQUE_ID && one[0].1.len() == 32 && one != other, "{one:?} {other:?}");
    }
}
