//! The additional fields of version 2: a type, a length, a value. Pure.

/// The types that have a meaning here.
pub mod kind {
    /// The protocol that was negotiated in TLS (RFC 7301).
    pub const ALPN: u8 = 0x01;
    /// The name that the client asked for, in TLS its SNI.
    pub const AUTHORITY: u8 = 0x02;
    /// A checksum of the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// Identifies the connection across proxies.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The TLS connection of the client.
    pub const SSL: u8 = 0x20;
    /// In [`SSL`]: the version, such as `TLSv1.3`.
    pub const SSL_VERSION: u8 = 0x21;
    /// In [`SSL`]: the common name in the client's certificate.
    pub const SSL_CN: u8 = 0x22;
    /// In [`SSL`]: the cipher suite.
    pub const SSL_CIPHER: u8 = 0x23;
    /// The identity of the client, as ztunnel sends it. Not in the specification.
    pub const IDENTITY: u8 = 0xD0;
}

/// The type and the length of the value, which has at most 65,535 bytes.
const HEAD_BYTES: usize = 3;

/// The maximum length of a unique ID.
const UNIQUE_ID_BYTES_MAX: usize = 128;

/// A sequence of fields, all of which are complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The type.
    pub kind: u8,
    /// The value.
    pub value: &'a [u8],
}

impl<'a> Tlvs<'a> {
    /// Returns the fields in these bytes, or `None` if the last one is incomplete or a unique ID is too long.
    pub fn parse(bytes: &'a [u8]) -> Option<Tlvs<'a>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tlv, after) = split(rest)?;
            if tlv.kind == kind::UNIQUE_ID && tlv.value.len() > UNIQUE_ID_BYTES_MAX {
                return None;
            }
            rest = after;
        }
        Some(Tlvs(bytes))
    }

    /// Returns the fields in their order.
    pub fn iter(self) -> impl Iterator<Item = Tlv<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (tlv, after) = split(rest)?;
            rest = after;
            Some(tlv)
        })
    }

    /// Returns the value of the first field of this type, and the bytes after it.
    pub(super) fn find(self, kind: u8) -> Option<(&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        loop {
            let (tlv, after) = split(rest)?;
            if tlv.kind == kind {
                return Some((tlv.value, after));
            }
            rest = after;
        }
    }

    /// Returns the fields that hold for the next header, too: all but the checksum and padding.
    pub fn to_pass_on(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Tlv { kind, value } in self.iter().filter(|tlv| !matches!(tlv.kind, kind::CRC32C | kind::NOOP)) {
            append(&mut bytes, kind, value, usize::from(u16::MAX));
        }
        bytes
    }
}

fn split(bytes: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let (value, rest) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
    Some((Tlv { kind: *kind, value }, rest))
}

/// Appends a field, unless that makes `buffer` longer than `bytes_max`.
pub(super) fn append(buffer: &mut Vec<u8>, kind: u8, value: &[u8], bytes_max: usize) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    if buffer.len() + HEAD_BYTES + value.len() <= bytes_max {
        buffer.push(kind);
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(value);
    }
}

/// The TLS connection of a client, for [`kind::SSL`].
#[derive(Clone, Copy, Debug)]
pub struct Ssl<'a> {
    /// Such as `TLSv1.3`.
    pub version: &'a str,
    /// Such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'a str,
    /// Whether the client has a certificate, which is verified then.
    pub has_certificate: bool,
    /// The common name in it.
    pub common_name: Option<&'a str>,
}

/// The client uses TLS.
const CLIENT_SSL: u8 = 0x01;
/// The client has sent a certificate on this connection, and in this TLS session.
const CLIENT_CERT: u8 = 0x02 | 0x04;

impl Ssl<'_> {
    /// Returns the value of the field.
    pub fn value(&self) -> Vec<u8> {
        let Ssl { version, cipher, has_certificate, common_name } = *self;
        let client = CLIENT_SSL | if has_certificate { CLIENT_CERT } else { 0 };
        // Zero stands for a certificate that was verified.
        let verify = u32::from(!has_certificate).to_be_bytes();
        let mut value = [&[client], verify.as_slice()].concat();
        let mut append = |kind, text: &str| append(&mut value, kind, text.as_bytes(), usize::from(u16::MAX));
        append(kind::SSL_VERSION, version);
        common_name.inspect(|name| append(kind::SSL_CN, name));
        append(kind::SSL_CIPHER, cipher);
        value
    }
}
