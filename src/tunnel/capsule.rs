//! The datagrams of a flow as capsules in a stream of bytes (RFC 9297, 3.2; RFC 9298, 5). Pure.
//!
//! ```text
//!   type 0 │ length │ context ID 0 │ UDP payload        the first three are integers of variable length (RFC 9000, 16)
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest UDP payload (RFC 9298, 5).
pub const PAYLOAD_BYTES_MAX: usize = 65_527;

/// The type of a capsule with a datagram, and the context ID of a UDP payload.
const DATAGRAM: u64 = 0;
const UDP_PAYLOAD: u64 = 0;

/// The longest form of an integer. A context ID may have it, whatever its value.
const INTEGER_BYTES_MAX: usize = 8;

/// Splits a stream of capsules into UDP payloads. Keeps at most one incomplete datagram.
#[derive(Debug, Default)]
pub struct Capsules {
    /// The first bytes of a capsule: of its header, or of all of a datagram.
    partial: BytesMut,
    /// What is left of a capsule of an unknown type.
    skip: u64,
}

/// A datagram that is too long, or that has no context ID. The rest of the stream is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed datagram in a capsule")]
pub struct Malformed;

/// The header of a capsule.
struct Header {
    bytes: usize,
    kind: u64,
    length: u64,
}

impl Capsules {
    /// Takes bytes from `input` up to the end of the next UDP payload. Returns `None` if that is not in `input`, which is empty
    /// then. Skips capsules of other types and datagrams of other contexts.
    ///
    /// # Errors
    ///
    /// Fails if a datagram is malformed.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
        while !input.is_empty() {
            if self.skip > 0 {
                self.skip(input);
            } else if let Some(datagram) = self.datagram(input)?
                && let Some(payload) = payload(datagram)?
            {
                return Ok(Some(payload));
            }
        }
        Ok(None)
    }

    /// Returns whether the stream may end here, because its last capsule is complete.
    pub fn is_complete(&self) -> bool {
        self.partial.is_empty() && self.skip == 0
    }

    fn skip(&mut self, input: &mut Bytes) {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(input.len());
        input.advance(skipped);
        self.skip -= skipped as u64;
    }

    /// Takes one capsule, or as much of it as there is. Returns its value if it is a complete datagram.
    fn datagram(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
        // Without a copy, if the capsule is complete.
        if self.partial.is_empty()
            && let Some(header) = Header::read(input)
            && header.kind == DATAGRAM
            && let end = header.datagram_end()?
            && end <= input.len()
        {
            return Ok(Some(input.split_to(end).split_off(header.bytes)));
        }
        let Some(header) = self.header(input) else { return Ok(None) };
        if header.kind != DATAGRAM {
            self.partial.clear();
            self.skip = header.length;
            return Ok(None);
        }
        let missing = header.datagram_end()?.saturating_sub(self.partial.len());
        self.partial.put(input.split_to(missing.min(input.len())));
        let is_complete = self.partial.len() == header.datagram_end()?;
        Ok(is_complete.then(|| self.partial.split().freeze().split_off(header.bytes)))
    }

    /// Moves the header of a capsule to `partial`, or as much of it as there is.
    fn header(&mut self, input: &mut Bytes) -> Option<Header> {
        loop {
            if let Some(header) = Header::read(&self.partial) {
                return Some(header);
            }
            self.partial.put_u8(input.try_get_u8().ok()?);
        }
    }
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Header> {
        let (kind, kind_bytes) = integer(bytes)?;
        let (length, length_bytes) = integer(bytes.get(kind_bytes..)?)?;
        Some(Header { bytes: kind_bytes + length_bytes, kind, length })
    }

    /// Returns the number of bytes of a capsule with a datagram.
    fn datagram_end(&self) -> Result<usize, Malformed> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        if length > PAYLOAD_BYTES_MAX + INTEGER_BYTES_MAX { Err(Malformed) } else { Ok(self.bytes + length) }
    }
}

/// Returns the UDP payload of a datagram; `None` if it has another context.
fn payload(mut datagram: Bytes) -> Result<Option<Bytes>, Malformed> {
    let (context, bytes) = integer(&datagram).ok_or(Malformed)?;
    datagram.advance(bytes);
    match context {
        UDP_PAYLOAD if datagram.len() > PAYLOAD_BYTES_MAX => Err(Malformed),
        UDP_PAYLOAD => Ok(Some(datagram)),
        _ => Ok(None),
    }
}

/// Returns the integer at the beginning of `bytes`, and the number of its bytes; `None` if it is not complete.
fn integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let (first, rest) = bytes.split_first()?;
    let length = 1 << (first >> 6);
    let rest = rest.get(..length - 1)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

/// Returns the number of bytes of the capsule of a UDP payload of this size.
pub(super) fn encoded_bytes(payload: usize) -> usize {
    // Type, length and context ID.
    1 + length_bytes(payload + 1) + 1 + payload
}

/// Appends the capsule of a UDP payload of at most [`PAYLOAD_BYTES_MAX`].
pub(super) fn encode(payload: &[u8], to: &mut BytesMut) {
    let length = payload.len() + 1;
    to.put_u8(0);
    let form = u64::from(length_bytes(length).trailing_zeros()) << (8 * length_bytes(length) - 2);
    to.put_uint(length as u64 | form, length_bytes(length));
    to.put_u8(0);
    to.put_slice(payload);
}

/// Returns the number of bytes of an integer below 2^30.
fn length_bytes(value: usize) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        _ => 4,
    }
}

/// Parses any bytes, split at a place that they determine: the payloads must be those without a split, and encoding and parsing
/// must return the same ones.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) {
    let read = |parts: &[&[u8]]| {
        let (mut capsules, mut payloads) = (Capsules::default(), Vec::new());
        for part in parts {
            let mut input = Bytes::copy_from_slice(part);
            loop {
                match capsules.next(&mut input) {
                    Ok(Some(payload)) => payloads.push(payload),
                    Ok(None) => break,
                    Err(malformed) => return (payloads, Err(malformed)),
                }
            }
            assert!(input.is_empty(), "all was read");
            assert!(capsules.partial.len() < PAYLOAD_BYTES_MAX + 3 * INTEGER_BYTES_MAX);
        }
        (payloads, Ok(capsules.is_complete()))
    };
    let whole = read(&[bytes]);
    let (first, second) = bytes.split_at(bytes.last().map_or(0, |last| usize::from(*last) % bytes.len()));
    assert_eq!(read(&[first, second]), whole);
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole);
    let mut encoded = BytesMut::new();
    whole.0.iter().for_each(|payload| encode(payload, &mut encoded));
    assert_eq!(encoded.len(), whole.0.iter().map(|payload| encoded_bytes(payload.len())).sum::<usize>());
    assert_eq!(read(&[&encoded]), (whole.0, Ok(true)));
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::*;

    /// Returns the payloads of a stream that arrives in these parts.
    fn payloads(parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Malformed> {
        let (mut capsules, mut payloads) = (Capsules::default(), Vec::new());
        for part in parts {
            let mut input = Bytes::copy_from_slice(part);
            while let Some(payload) = capsules.next(&mut input)? {
                payloads.push(payload.to_vec());
            }
        }
        Ok(payloads)
    }

    fn encoded(payloads: &[&[u8]]) -> Vec<u8> {
        let mut stream = BytesMut::new();
        payloads.iter().for_each(|payload| encode(payload, &mut stream));
        stream.to_vec()
    }

    #[test]
    fn payloads_of_every_size_are_encoded_as_the_rfc_defines() {
        assert_eq!(encoded(&[b"hi"]), b"\x00\x03\x00hi");
        assert_eq!(encoded(&[b""]), b"\x00\x01\x00");
        assert_eq!(encoded(&[&[7; 63]])[..4], [0, 0x40, 64, 0]);
        assert_eq!(encoded(&[&[7; PAYLOAD_BYTES_MAX]])[..6], [0, 0x80, 0, 0xff, 0xf8, 0]);
        for size in [0, 1, 62, 63, 64, 1200, 16_382, 16_383, 16_384, 65_507, PAYLOAD_BYTES_MAX] {
            let payload = vec![7; size];
            let stream = encoded(&[&payload]);
            assert_eq!(stream.len(), encoded_bytes(size));
            assert_eq!(payloads(&[&stream]), Ok(vec![payload]));
        }
    }

    #[test]
    fn capsules_of_unknown_types_and_contexts_are_skipped() {
        let long_type = b"\xff\xff\xff\xff\xff\xff\xff\xff\x02ab";
        let other_context = b"\x00\x03\x02ab";
        let no_value = b"\x29\x00";
        let stream = [&long_type[..], other_context, no_value, b"\x00\x03\x00hi"].concat();
        for split in 0..stream.len() {
            let (first, second) = stream.split_at(split);
            assert_eq!(payloads(&[first, second]), Ok(vec![b"hi".to_vec()]), "{split}");
        }
    }

    #[test]
    fn longer_forms_of_integers_are_read() {
        let stream = b"\x40\x00\x80\x00\x00\x0a\xc0\x00\x00\x00\x00\x00\x00\x00hi";
        assert_eq!(payloads(&[stream]), Ok(vec![b"hi".to_vec()]));
    }

    #[test]
    fn datagram_that_is_too_long_or_without_a_context_is_malformed() {
        assert_eq!(payloads(&[b"\x00\x00"]), Err(Malformed), "no context");
        assert_eq!(payloads(&[b"\x00\x01\x40"]), Err(Malformed), "half a context");
        let too_long = [&b"\x00\x80\x00\xff\xf9\x00"[..], &[7; PAYLOAD_BYTES_MAX + 1]].concat();
        assert_eq!(payloads(&[&too_long]), Err(Malformed));
        assert_eq!(payloads(&[b"\x00\x80\x01\x00\x00"]), Err(Malformed), "refused before its value arrives");
        assert_eq!(payloads(&[b"\x00\xff\xff\xff\xff\xff\xff\xff\xff"]), Err(Malformed));
    }

    #[test]
    fn stream_may_end_only_between_two_capsules() {
        for (stream, is_complete) in [
            (&b""[..], true),
            (b"\x00\x03\x00hi", true),
            (b"\x00\x03\x00h", false),
            (b"\x00", false),
            (b"\x29\x02ab", true),
            (b"\x29\x02a", false),
        ] {
            let (mut capsules, mut input) = (Capsules::default(), Bytes::from_static(stream));
            while let Ok(Some(_)) = capsules.next(&mut input) {}
            assert_eq!(capsules.is_complete(), is_complete, "{stream:?}");
        }
    }

    proptest! {
        #[test]
        fn payloads_survive_every_split_of_the_stream(
            sent in vec(vec(any::<u8>(), 0..200), 0..8),
            cuts in vec(0_usize..2000, 0..20),
        ) {
            let stream = encoded(&sent.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            assert_eq!(payloads(&parts), Ok(sent));
        }

        #[test]
        fn any_bytes_are_parsed_alike_however_they_are_split(bytes in vec(any::<u8>(), 0..400)) {
            read_any(&bytes);
        }
    }
}
