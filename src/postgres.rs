//! How a client of PostgreSQL begins TLS: "SSL Session Encryption" in the manual's chapter on the protocol. Pure.

/// Length 8, and the code 1234.5679.
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The server continues with TLS.
pub(crate) const ACCEPTED: [u8; 1] = *b"S";
