//! Numbers and addresses as text, for what is written once per session: `core::fmt` takes several times the instructions.

use std::fmt::{self, Write};
use std::net::SocketAddr;

/// The longest text: `255.255.255.255:65535`, and 20 digits of a `u64`.
const BYTES_MAX: usize = 21;

/// ASCII, written from its end.
struct Backwards {
    text: [u8; BYTES_MAX],
    start: usize,
}

pub(crate) fn write_number(to: &mut impl Write, number: u64) -> fmt::Result {
    let mut text = Backwards::new();
    text.number(number);
    to.write_str(text.as_str())
}

/// The last so many digits, with zeros before them.
pub(crate) fn write_digits(to: &mut impl Write, mut number: u32, digits: usize) -> fmt::Result {
    let mut text = Backwards::new();
    for _ in 0..digits {
        text.digit(u64::from(number));
        number /= 10;
    }
    to.write_str(text.as_str())
}

pub(crate) fn write_socket_addr(to: &mut impl Write, addr: SocketAddr) -> fmt::Result {
    let SocketAddr::V4(addr) = addr else { return write!(to, "{addr}") };
    let mut text = Backwards::new();
    text.number(u64::from(addr.port()));
    for (octet, after) in addr.ip().octets().into_iter().zip(*b"...:").rev() {
        text.byte(after);
        text.number(u64::from(octet));
    }
    to.write_str(text.as_str())
}

impl Backwards {
    fn new() -> Backwards {
        Backwards { text: [0; BYTES_MAX], start: BYTES_MAX }
    }

    fn byte(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.text.get_mut(self.start) {
            *place = byte;
        }
    }

    /// The last one of this number.
    fn digit(&mut self, number: u64) {
        self.byte(b'0' + (number % 10) as u8);
    }

    fn number(&mut self, mut number: u64) {
        self.digit(number);
        while number >= 10 {
            number /= 10;
            self.digit(number);
        }
    }

    fn as_str(&self) -> &str {
        self.text.get(self.start..).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
        let mut text = String::new();
        write(&mut text).unwrap();
        text
    }

    #[test]
    fn longest_texts_are_whole() {
        assert_eq!(written(|to| write_number(to, u64::MAX)), u64::MAX.to_string());
        let addr: SocketAddr = "255.255.255.255:65535".parse().unwrap();
        assert_eq!(written(|to| write_socket_addr(to, addr)), addr.to_string());
        assert_eq!(written(|to| write_number(to, 0)), "0");
        assert_eq!(written(|to| write_digits(to, 45, 6)), "000045");
    }

    proptest! {
        #[test]
        fn text_is_the_one_that_the_standard_library_writes(addr: SocketAddr, number: u64, part in 0..1_000_000_u32) {
            assert_eq!(written(|to| write_socket_addr(to, addr)), addr.to_string());
            assert_eq!(written(|to| write_number(to, number)), number.to_string());
            assert_eq!(written(|to| write_digits(to, part, 6)), format!("{part:06}"));
        }
    }
}
