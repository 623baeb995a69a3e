//! How a client of PostgreSQL begins TLS: "SSL Session Encryption" in the manual's chapter on the protocol. Pure.

/// The length of each request.
pub(crate) const REQUEST_BYTES: usize = 8;

/// Length 8, and the code 1234.5679.
pub(crate) const SSL_REQUEST: [u8; REQUEST_BYTES] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Length 8, and the code 1234.5680.
const GSS_REQUEST: [u8; REQUEST_BYTES] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// The server continues with TLS.
pub(crate) const ACCEPTED: [u8; 1] = *b"S";

/// The server continues without, and the client may ask for something else.
const DECLINED: [u8; 1] = *b"N";

/// What a client asks for before it identifies itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// TLS.
    Ssl,
    /// Encryption by Kerberos, which libpq asks for first where it has a ticket.
    Gss,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// One of the requests.
    Request(Request),
    /// The beginning of one.
    Incomplete,
    /// Something else.
    Other,
}

impl Request {
    /// Parses the first bytes of a connection.
    pub(crate) fn parse(bytes: &[u8]) -> Parsed {
        let first = bytes.get(..REQUEST_BYTES).unwrap_or(bytes);
        match first {
            _ if first == SSL_REQUEST => Parsed::Request(Request::Ssl),
            _ if first == GSS_REQUEST => Parsed::Request(Request::Gss),
            _ if SSL_REQUEST.starts_with(first) || GSS_REQUEST.starts_with(first) => Parsed::Incomplete,
            _ => Parsed::Other,
        }
    }

    /// Returns the answer of a server that has TLS only.
    pub(crate) fn answer(self) -> [u8; 1] {
        match self {
            Request::Ssl => ACCEPTED,
            Request::Gss => DECLINED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_recognized_by_their_first_bytes() {
        for (bytes, expected) in [
            (&SSL_REQUEST[..], Parsed::Request(Request::Ssl)),
            (&GSS_REQUEST, Parsed::Request(Request::Gss)),
            (&SSL_REQUEST[..7], Parsed::Incomplete),
            (&[], Parsed::Incomplete),
            (&[0, 0, 0, 84, 0, 3, 0, 0], Parsed::Other),
            (&[22, 3, 1], Parsed::Other),
        ] {
            assert_eq!(Request::parse(bytes), expected, "{bytes:?}");
        }
    }
}
