//! What is a header, what is not one, and that encoded headers are parsed.

use proptest::collection::vec;
use proptest::prelude::*;

use super::tlv::{Ssl, kind};
use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn check(bytes: &[u8], expected: Result<Option<(&str, &str)>, &str>) {
    let expected = expected.map(|pair| pair.map(|(source, destination)| addresses(source, destination)));
    let parsed = parse(bytes).map(|header| header.expect("a complete header").addresses);
    assert_eq!(parsed.map_err(|invalid| invalid.0), expected, "{}", bytes.escape_ascii());
}

#[test]
fn line_of_version_1_is_parsed_strictly() {
    let malformed = Err("malformed PROXY v1 header");
    let no_address = Err("invalid address in the PROXY v1 header");
    let no_port = Err("invalid port in the PROXY v1 header");
    let no_end = Err("PROXY v1 header not ended by CRLF");
    for (line, expected) in [
        ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Ok(Some(("192.0.2.1:56324", "192.0.2.2:443")))),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 0 65535\r\nGET /", Ok(Some(("192.0.2.1:0", "192.0.2.2:65535")))),
        ("PROXY TCP6 2001:DB8::1 ::1 1 2\r\n", Ok(Some(("[2001:db8::1]:1", "[::1]:2")))),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Ok(Some(("192.0.2.1:1", "[::1]:2")))),
        ("PROXY UNKNOWN\r\n", Ok(None)),
        ("PROXY UNKNOWN 192.0.2.1 what ever\r\n", Ok(None)),
        ("PROXY UNKNOWNS\r\n", malformed),
        ("PROXY \r\n", malformed),
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", malformed),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", malformed),
        ("PROXY TCP4\r\n", no_address),
        ("PROXY TCP4 192.0.2.1\r\n", malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", malformed),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", malformed),
        ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", no_address),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", no_address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", no_address),
        ("PROXY TCP6 192.0.2.1 ::1 1 2\r\n", no_address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", no_address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", no_port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", no_port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", no_port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2  1\r\n", no_port),
        ("PROXY UNKNOWN\n", no_end),
        ("PROXY UNKNOWN\r ", no_end),
        ("PROXY UNKNOWN\r\r\n", no_end),
        ("GET / HTTP/1.1\r\n", Err("not a PROXY header")),
        ("PROXX", Err("not a PROXY header")),
        ("\r\n\r\n\0\r\nQUIT\r", Err("not a PROXY header")),
    ] {
        check(line.as_bytes(), expected);
    }
    check(b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n", malformed);
}

#[test]
fn line_of_version_1_has_at_most_107_bytes() {
    let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
    assert_eq!(parse(&line(107)).unwrap().unwrap().length, 107);
    assert_eq!(parse(&line(108)[..106]), Ok(None));
    for length in 107..=108 {
        assert!(parse(&line(108)[..length]).is_err(), "{length}");
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2, &[command, family], &length, block].concat()
}

const INET: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];

#[test]
fn addresses_of_version_2_are_those_of_tcp_connections() {
    let inet6 = [[0x20; 16], [0x21; 16]].concat();
    let inet6 = [inet6.as_slice(), &[0, 1, 0, 2]].concat();
    let pair = Ok(Some(("192.0.2.1:56324", "192.0.2.2:443")));
    let too_short = Err("PROXY v2 header too short for its addresses");
    for (command, family, block, expected) in [
        (0x21, 0x11, INET.as_slice(), pair),
        (0x21, 0x12, &INET, Ok(None)),
        (0x21, 0x10, &INET, Ok(None)),
        (0x21, 0x00, &INET, Ok(None)),
        (0x21, 0x31, &[0; 216], Ok(None)),
        (0x20, 0x11, &INET, Ok(None)),
        (0x20, 0xff, b"anything", Ok(None)),
        (0x20, 0x00, b"", Ok(None)),
        (0x21, 0x11, &INET[..11], too_short),
        (0x21, 0x21, &inet6[..35], too_short),
        (0x21, 0x31, &[0; 215], too_short),
        (0x21, 0x41, &INET, Err("unknown address family in the PROXY v2 header")),
        (0x21, 0x13, &INET, Err("unknown address family in the PROXY v2 header")),
        (0x22, 0x11, &INET, Err("unknown version or command in the PROXY v2 header")),
        (0x11, 0x11, &INET, Err("unknown version or command in the PROXY v2 header")),
    ] {
        check(&v2(command, family, block), expected);
    }
    let source = "[2020:2020:2020:2020:2020:2020:2020:2020]:1";
    let destination = "[2121:2121:2121:2121:2121:2121:2121:2121]:2";
    check(&v2(0x21, 0x21, &inet6), Ok(Some((source, destination))));
}

#[test]
fn length_of_version_2_is_limited_before_its_bytes_arrive() {
    let longest = v2(0x21, 0x11, &[INET.as_slice(), &[kind::NOOP, 0x0f, 0xe1], &[0; 0xfe1]].concat());
    assert_eq!((longest.len(), parse(&longest).unwrap().unwrap().length), (4096, 4096));
    assert_eq!(parse(&longest[..4095]), Ok(None));
    for length in [4081_u16, 65_535] {
        let begun = [V2, &[0x20, 0x00], &length.to_be_bytes()].concat();
        assert_eq!(parse(&begun), Err(Invalid("PROXY v2 header longer than 4096 bytes")));
    }
}

fn with_fields(fields: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[INET.as_slice(), fields].concat())
}

#[test]
fn fields_are_complete_or_the_header_is_invalid() {
    for fields in [&b"\x01"[..], b"\x01\0", b"\x01\0\x01", b"\x01\xff\xffx", b"\x04\0\0\x01\0\x05abcd"] {
        let invalid = parse(&with_fields(fields)).unwrap_err();
        assert_eq!(invalid.0, "invalid field in the PROXY v2 header", "{fields:?}");
    }
    let unique_id = |length: u8| {
        with_fields(&[&[kind::UNIQUE_ID, 0, length], vec![7; length.into()].as_slice()].concat())
    };
    assert!(parse(&unique_id(128)).is_ok() && parse(&unique_id(129)).is_err());
}

#[test]
fn checksum_and_padding_are_not_passed_on() {
    let fields = b"\x01\0\x02h2\x04\0\x01-\x03\0\x04\0\0\0\0\xe0\0\0";
    let mut header = with_fields(fields);
    assert_eq!(parse(&header), Err(Invalid("wrong checksum in the PROXY v2 header")));
    let checksum = crc32c::crc32c(&[&header]).to_be_bytes();
    let at = header.len() - 7;
    header[at..at + 4].copy_from_slice(&checksum);
    assert_eq!(parse(&header).unwrap().unwrap().tlvs.to_pass_on(), b"\x01\0\x02h2\xe0\0\0");
    header[20] ^= 1;
    assert!(parse(&header).is_err(), "the checksum covers the addresses");
    assert!(parse(&with_fields(b"\x03\0\x02ab")).is_err(), "a checksum has four bytes");
}

/// Recorded, with all of its options.
#[test]
fn header_of_haproxy_is_parsed_and_its_checksum_verified() {
    let mut recorded = include_bytes!("../../fuzz/seeds/proxy/v2-haproxy").to_vec();
    let header = parse(&recorded).unwrap().unwrap();
    assert_eq!(header.addresses, Some(addresses("127.0.0.1:49174", "127.9.0.2:35861")));
    let kinds: Vec<_> = header.tlvs.iter().map(|tlv| tlv.kind).collect();
    assert_eq!(kinds, [kind::CRC32C, kind::ALPN, kind::AUTHORITY, kind::UNIQUE_ID, kind::SSL]);
    *recorded.last_mut().unwrap() ^= 1;
    assert_eq!(parse(&recorded), Err(Invalid("wrong checksum in the PROXY v2 header")));
}

/// Unlike HAProxy's, `verify` is zero only if there is a certificate.
#[test]
fn tls_of_the_client_is_encoded_as_the_specification_has_it() {
    let ssl = Ssl { version: "TLSv1.3", cipher: "C", has_certificate: true, common_name: Some("a") };
    assert_eq!(ssl.value(), b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x01a\x23\0\x01C");
    let ssl = Ssl { has_certificate: false, common_name: None, ..ssl };
    assert_eq!(ssl.value(), b"\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x01C");
}

#[test]
fn field_that_makes_the_header_too_long_is_left_out() {
    let begun = || Encoder::new(Some(addresses("192.0.2.1:1", "192.0.2.2:2")), Transport::Stream);
    assert_eq!(begun().with(0xe0, &[0; 4065]).into_bytes().len(), HEADER_BYTES_MAX);
    let encoded = begun().with(0xe0, &[0; 4066]).with(0xe1, b"fits").into_bytes();
    let tlvs = parse(&encoded).unwrap().unwrap().tlvs;
    assert_eq!(tlvs.iter().map(|tlv| tlv.kind).collect::<Vec<_>>(), [0xe1]);
}

#[test]
fn connection_without_addresses_is_unknown_and_local() {
    assert_eq!(encode_v1(None), "PROXY UNKNOWN\r\n");
    let local = Encoder::new(None, Transport::Stream).with(kind::ALPN, b"h2").into_bytes();
    assert_eq!(local, [V2, b"\x20\0\0\0"].concat());
}

#[test]
fn datagrams_are_marked_as_such() {
    let header = Encoder::new(Some(addresses("192.0.2.1:1", "[::1]:2")), Transport::Datagram).into_bytes();
    assert_eq!(header[13], 0x22);
    check(&header, Ok(None));
}

prop_compose! {
    fn any_addresses()(source: SocketAddr, destination: SocketAddr) -> Addresses {
        Addresses::canonical(source, destination)
    }
}

fn any_fields() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = (0_u8..).prop_filter("has a rule", |kind| *kind != kind::CRC32C);
    vec((kind, vec(any::<u8>(), 0..128)), 0..8)
}

/// Checks that the header is complete exactly at its last byte, and returns it.
fn split_everywhere(encoded: &[u8]) -> Header<'_> {
    for length in 0..encoded.len() {
        assert_eq!(parse(&encoded[..length]), Ok(None), "{length}");
    }
    let header = parse(encoded).unwrap().unwrap();
    let followed = [encoded, b"\r\n\r\n"].concat();
    assert_eq!(parse(&followed).unwrap().unwrap(), header);
    header
}

proptest! {
    #[test]
    fn version_1_is_parsed_as_it_was_encoded(addresses: Option<()>, pair in any_addresses()) {
        let addresses = addresses.map(|()| pair);
        let line = encode_v1(addresses);
        prop_assert!(line.len() <= 107);
        let header = split_everywhere(line.as_bytes());
        prop_assert_eq!((header.addresses, header.length), (addresses, line.len()));
    }

    #[test]
    fn version_2_is_parsed_as_it_was_encoded(addresses in any_addresses(), fields in any_fields()) {
        let begun = Encoder::new(Some(addresses), Transport::Stream);
        let encoded = fields.iter().fold(begun, |encoder, (kind, value)| encoder.with(*kind, value)).into_bytes();
        let header = split_everywhere(&encoded);
        prop_assert_eq!((header.addresses, header.length), (Some(addresses), encoded.len()));
        let parsed: Vec<_> = header.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.to_vec())).collect();
        prop_assert_eq!(parsed, fields);
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in vec(any::<u8>(), 0..300), command: u8, family: u8) {
        read_any(&bytes);
        read_any(&[b"PROXY ", bytes.as_slice()].concat());
        read_any(&[V2, bytes.as_slice()].concat());
        read_any(&v2(command, family, &bytes));
        read_any(&v2(0x21, 0x11, &[INET.as_slice(), bytes.as_slice()].concat()));
    }
}
