//! The name that a TLS client asks for, read from its first message without decrypting: RFC 8446, 4.1.2 and RFC 6066, 3. Pure.
//!
//! With Encrypted ClientHello the visible message is the outer one, whose name is that of the provider.

use std::borrow::Cow;
use std::fmt;

use crate::postgres;

/// The part of a connection that is searched for the message, which usually has 300 to 2,000 bytes.
pub const HELLO_MAX: usize = 16 << 10;

/// The largest fragment of a record (RFC 8446, 5.1).
const FRAGMENT_MAX: usize = 1 << 14;

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: usize = 0;
const NAME_HOST: u8 = 0;

/// The longest DNS name.
const NAME_LENGTH_MAX: usize = 253;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation per connection, and it lives for one call"
)]
pub enum Hello {
    /// A complete message, with the name, if there is one.
    Complete(Option<ServerName>),
    /// The beginning of a message.
    Incomplete,
    /// Something else, and why.
    Invalid(&'static str),
}

/// A DNS name in lower case, without a final dot. Stored in place, so that parsing allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ServerName {
    bytes: [u8; NAME_LENGTH_MAX],
    length: u8,
}

/// Why parsing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The bytes end too early.
    Incomplete,
    Invalid(&'static str),
}

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

/// Parses the first bytes of a connection. The message may be split over records, and the bytes may end anywhere.
pub fn parse(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => match server_name(message.as_ref()) {
            Ok(name) => Hello::Complete(name),
            Err(Stop::Invalid(why)) => Hello::Invalid(why),
            Err(Stop::Incomplete) => Hello::Invalid("the ClientHello ends too early"),
        },
        Err(Stop::Invalid(why)) => Hello::Invalid(why),
        Err(Stop::Incomplete) if bytes.len() >= HELLO_MAX => Hello::Invalid("the ClientHello exceeds 16 KiB"),
        Err(Stop::Incomplete) => Hello::Incomplete,
    }
}

/// Parses, for fuzzing. Whatever follows a message, or is missing of it, never changes its name.
pub fn read_any(bytes: &[u8]) {
    let whole = parse(bytes);
    for end in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = parse(bytes.get(..end).unwrap_or_default());
        assert!(part == whole || part == Hello::Incomplete, "{part:?} of {whole:?}");
    }
    let _ = postgres::Request::parse(bytes);
}

/// Returns the body of the message, borrowed if it is in one record.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Stop> {
    let mut records = Reader(bytes);
    let first = fragment(&mut records)?;
    if let Some(body) = body(first)? {
        return Ok(body.into());
    }
    let mut message = first.to_vec();
    loop {
        message.extend_from_slice(fragment(&mut records)?);
        if let Some(body) = body(&message)? {
            return Ok(body.to_vec().into());
        }
    }
}

/// Returns the body of the message that `handshake` begins with, if it is complete.
fn body(handshake: &[u8]) -> Result<Option<&[u8]>, Stop> {
    let mut handshake = Reader(handshake);
    if handshake.u8()? != CLIENT_HELLO {
        return Err(Stop::Invalid("the first message is not a ClientHello"));
    }
    match handshake.number(3) {
        Ok(length) if length > HELLO_MAX => Err(Stop::Invalid("the ClientHello exceeds 16 KiB")),
        Ok(length) => Ok(handshake.take(length).ok()),
        Err(_) => Ok(None),
    }
}

/// Returns the next part of the handshake: as much of a record as there is.
fn fragment<'a>(records: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    let not_tls = Stop::Invalid("the first bytes are not TLS");
    if records.u8()? != RECORD_HANDSHAKE || records.u8()? != 3 {
        return Err(not_tls);
    }
    let _minor_version = records.u8()?;
    let length = records.number(2)?;
    if length == 0 || length > FRAGMENT_MAX {
        return Err(not_tls);
    }
    if records.0.is_empty() {
        return Err(Stop::Incomplete);
    }
    records.take(length.min(records.0.len()))
}

fn server_name(message: &[u8]) -> Result<Option<ServerName>, Stop> {
    let mut message = Reader(message);
    let _version_and_random = message.take(2 + 32)?;
    let _session = message.vector(1)?;
    let _cipher_suites = message.vector(2)?;
    let _compression_methods = message.vector(1)?;
    if message.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader(message.vector(2)?);
    while !extensions.0.is_empty() {
        let (kind, body) = (extensions.number(2)?, extensions.vector(2)?);
        if kind == EXTENSION_SERVER_NAME {
            return host_name(Reader(body).vector(2)?).map(Some);
        }
    }
    Ok(None)
}

/// Returns the host of a list of names. There is at most one, and no other kind of name was ever defined.
fn host_name(list: &[u8]) -> Result<ServerName, Stop> {
    let mut list = Reader(list);
    let (kind, name) = (list.u8()?, list.vector(2)?);
    if kind != NAME_HOST || !list.0.is_empty() {
        return Err(Stop::Invalid("the name in the ClientHello is not that of one host"));
    }
    ServerName::new(name).ok_or(Stop::Invalid("the name in the ClientHello is not a DNS name"))
}

impl ServerName {
    /// Returns `None` for bytes that are no name.
    pub fn new(name: &[u8]) -> Option<ServerName> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if name.is_empty()
            || !name.iter().all(is_valid)
            || name.split(|byte| *byte == b'.').any(<[u8]>::is_empty)
        {
            return None;
        }
        let mut bytes = [0; NAME_LENGTH_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        bytes.make_ascii_lowercase();
        Some(ServerName { bytes, length: u8::try_from(name.len()).ok()? })
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Stop::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Stop> {
        self.take(1).map(|bytes| bytes.iter().fold(0, |_, byte| *byte))
    }

    fn number(&mut self, length: usize) -> Result<usize, Stop> {
        Ok(self.take(length)?.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    /// Reads bytes after their length.
    fn vector(&mut self, length_bytes: usize) -> Result<&'a [u8], Stop> {
        let length = self.number(length_bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(length_bytes: usize, body: &[u8]) -> Vec<u8> {
        [&body.len().to_be_bytes()[8 - length_bytes..], body].concat()
    }

    fn name_extension(name: &[u8]) -> Vec<u8> {
        let list = vector(2, &[&[NAME_HOST], vector(2, name).as_slice()].concat());
        [&[0, 0], vector(2, &list).as_slice()].concat()
    }

    /// The handshake message, with these extensions.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let body = [
            &[3, 3],
            [7; 32].as_slice(),
            &vector(1, &[1; 32]),
            &vector(2, &[0x13, 1, 0x13, 2]),
            &vector(1, &[0]),
            &vector(2, extensions),
        ];
        [&[CLIENT_HELLO], vector(3, &body.concat()).as_slice()].concat()
    }

    fn record(fragment: &[u8]) -> Vec<u8> {
        [&[RECORD_HANDSHAKE, 3, 1], vector(2, fragment).as_slice()].concat()
    }

    fn with_name(name: &[u8]) -> Vec<u8> {
        let before = [&[0, 0x17], vector(2, &[]).as_slice()].concat();
        record(&hello(&[before, name_extension(name)].concat()))
    }

    fn name(bytes: &[u8]) -> Result<Option<String>, String> {
        match parse(bytes) {
            Hello::Complete(name) => Ok(name.map(|name| name.as_str().to_owned())),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn name_is_read_in_lower_case_without_the_final_dot() {
        for text in ["db.example.com", "DB.Example.COM", "db.example.com."] {
            assert_eq!(name(&with_name(text.as_bytes())), Ok(Some("db.example.com".to_owned())));
        }
        let followed = [with_name(b"a_b-1"), record(b"more")].concat();
        assert_eq!(name(&followed), Ok(Some("a_b-1".to_owned())));
    }

    #[test]
    fn hello_without_a_name_is_complete() {
        assert_eq!(name(&record(&hello(&[]))), Ok(None));
        let other = [&[0, 43], vector(2, &[2, 3, 4]).as_slice()].concat();
        assert_eq!(name(&record(&hello(&other))), Ok(None));
        // Before TLS 1.2 the extensions could be missing.
        let mut old = hello(&[]);
        old.truncate(old.len() - 2);
        old[3] -= 2;
        assert_eq!(name(&record(&old)), Ok(None));
    }

    #[test]
    fn message_may_be_split_at_every_byte_and_over_records() {
        let whole = with_name(b"db.example.com");
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Hello::Incomplete, "{end}");
        }
        let message = &whole[5..];
        for cut in 1..message.len() {
            let records = [record(&message[..cut]), record(&message[cut..])].concat();
            assert_eq!(name(&records), Ok(Some("db.example.com".to_owned())), "{cut}");
            for end in 0..records.len() {
                assert_eq!(parse(&records[..end]), Hello::Incomplete, "{cut}, {end}");
            }
        }
        let single: Vec<u8> = message.iter().flat_map(|byte| record(&[*byte])).collect();
        assert_eq!(name(&single), Ok(Some("db.example.com".to_owned())));
    }

    #[test]
    fn other_bytes_are_invalid_as_soon_as_they_are_seen() {
        for bytes in
            [b"G".as_slice(), b"\x16\x02", b"\x80\x2e\x01", b"\x16\x03\x01\0\0", b"\x16\x03\x01\xff\xff"]
        {
            assert!(matches!(parse(bytes), Hello::Invalid(_)), "{bytes:?}");
        }
        assert!(matches!(parse(&record(&[2])), Hello::Invalid(_)), "a ServerHello");
    }

    #[test]
    fn invalid_names_are_rejected() {
        let long = [b'a'; 300];
        for bad in
            [b"".as_slice(), b"a\0b", b".", b"a..b", b"a b", "\u{e4}".as_bytes(), &long, b"a/b", b"*.a"]
        {
            assert!(matches!(parse(&with_name(bad)), Hello::Invalid(_)), "{bad:?}");
        }
        let longest = [[b'a'; 63].as_slice(); 4].join(&b'.');
        assert!(name(&with_name(&longest[..253])).is_ok());
    }

    #[test]
    fn two_names_and_lengths_beyond_the_end_are_invalid() {
        let one = [&[NAME_HOST], vector(2, b"a").as_slice()].concat();
        let list = vector(2, &[one.clone(), one].concat());
        let two = [&[0, 0], vector(2, &list).as_slice()].concat();
        assert!(matches!(parse(&record(&hello(&two))), Hello::Invalid(_)));
        assert!(matches!(parse(&record(&hello(&[0, 0, 0, 9, 0]))), Hello::Invalid(_)));
    }

    #[test]
    fn message_beyond_the_limit_is_invalid_at_once() {
        assert!(matches!(parse(&record(&[CLIENT_HELLO, 1, 0, 0])), Hello::Invalid(_)), "64 KiB");
        let message = hello(&[&[0, 21], vector(2, &[0; 16_000]).as_slice()].concat());
        let records: Vec<u8> = message.chunks(8).flat_map(record).collect();
        assert!(matches!(parse(&records[..HELLO_MAX]), Hello::Invalid(_)));
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
            parse(&record(&bytes));
            parse(&record(&hello(&bytes)));
            parse(&record(&[&[CLIENT_HELLO], vector(3, &bytes).as_slice()].concat()));
        }
    }
}
