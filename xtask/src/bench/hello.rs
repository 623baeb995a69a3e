//! What a TLS server has chosen, from the unencrypted beginning of its stream (RFC 8446, 4.1.3 and 5.1).

/// The choices of a ServerHello.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) cipher: u16,
    /// The key exchange; `None` in a resumption without one.
    pub(super) group: Option<u16>,
    pub(super) resumed: bool,
}

pub(super) const TLS_1_3: u16 = 0x0304;
pub(super) const AES_128_GCM: u16 = 0x1301;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

impl Hello {
    /// Returns the last ServerHello: a first one may have asked for another key exchange. Returns `None` if the stream
    /// does not begin with one.
    pub(super) fn of(stream: &[u8]) -> Option<Hello> {
        let mut bytes = Bytes(stream);
        let mut hello = None;
        while let Some(kind @ (CHANGE_CIPHER_SPEC | HANDSHAKE)) = bytes.byte() {
            bytes.take(2)?;
            let mut record = bytes.sized()?;
            if kind == HANDSHAKE && record.byte()? == SERVER_HELLO {
                hello = Some(server_hello(record)?);
            }
        }
        hello
    }

    /// Returns the names of IANA's registry.
    pub(super) fn in_words(&self) -> String {
        let cipher = match self.cipher {
            AES_128_GCM => "AES-128-GCM".to_owned(),
            0x1302 => "AES-256-GCM".to_owned(),
            0x1303 => "ChaCha20-Poly1305".to_owned(),
            other => format!("cipher {other:#06x}"),
        };
        let group = match self.group {
            Some(0x0017) => "P-256".to_owned(),
            Some(0x001d) => "X25519".to_owned(),
            Some(0x11ec) => "X25519MLKEM768".to_owned(),
            Some(other) => format!("group {other:#06x}"),
            None => "no key exchange".to_owned(),
        };
        format!("TLS 1.3, {cipher}, {group}")
    }
}

fn server_hello(mut bytes: Bytes<'_>) -> Option<Hello> {
    // The length of the message, its legacy version and its random.
    bytes.take(3 + 2 + 32)?;
    let session = bytes.byte()?;
    bytes.take(session.into())?;
    let cipher = bytes.number()?;
    bytes.byte()?;
    let mut hello = Hello { version: 0, cipher, group: None, resumed: false };
    let mut extensions = bytes.sized()?;
    while let Some(kind) = extensions.number() {
        let mut extension = extensions.sized()?;
        match kind {
            SUPPORTED_VERSIONS => hello.version = extension.number()?,
            KEY_SHARE => hello.group = extension.number(),
            PRE_SHARED_KEY => hello.resumed = true,
            _ => {}
        }
    }
    Some(hello)
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Returns the bytes that follow their length in two bytes.
    fn sized(&mut self) -> Option<Bytes<'a>> {
        let length = self.number()?;
        self.take(length.into()).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Hello, TLS_1_3};

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3], &u16::try_from(content.len()).expect("short").to_be_bytes()[..], content].concat()
    }

    fn server_hello(extensions: &[u8]) -> Vec<u8> {
        let length = u16::try_from(extensions.len()).expect("short").to_be_bytes();
        let head = [&[2, 0, 0, 0, 3, 3][..], &[7; 32], &[1, 9], &[0x13, 0x01, 0]].concat();
        record(22, &[&head[..], &length, extensions].concat())
    }

    #[test]
    fn choices_are_those_of_the_last_server_hello() {
        let asked = server_hello(&[0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 0x17]);
        let chosen = server_hello(&[0, 51, 0, 5, 0, 0x1d, 0, 1, 9, 0, 43, 0, 2, 3, 4, 0, 41, 0, 2, 0, 0]);
        let stream = [asked, record(20, &[1]), chosen, record(23, &[1, 2, 3])].concat();
        let hello = Hello::of(&stream).expect("a ServerHello");
        assert_eq!(hello, Hello { version: TLS_1_3, cipher: 0x1301, group: Some(0x1d), resumed: true });
        assert_eq!(hello.in_words(), "TLS 1.3, AES-128-GCM, X25519");
    }

    #[test]
    fn stream_that_is_not_tls_or_incomplete_has_none() {
        assert_eq!(Hello::of(b"plain text"), None);
        assert_eq!(Hello::of(&server_hello(&[0, 43, 0, 2, 3, 4])[..40]), None);
        assert_eq!(Hello::of(&record(21, &[2, 40])), None);
    }
}
