//! The file of the shared secret, one secret a line, and the keys derived from it.
//!
//! A secret is not a password. The certificate that we present to any stranger is signed with a key that is derived from the
//! secret, so a stranger can test guesses without us noticing. Only a random secret withstands that.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::error::Unspecified;
use ring::hkdf::{HKDF_SHA256, Salt};

use super::random;
use crate::diagnostic::Mistake;

/// A random text of this length has at least 106 bits, if it is one of digits only; 128 bits in hexadecimal.
const CHARACTERS_MIN: usize = 32;

/// A random text of 32 hexadecimal digits has fewer different characters with a probability of about 1 in 10^6.
const DIFFERENT_MIN: usize = 8;

/// Long enough for each key format in use.
const CHARACTERS_MAX: usize = 1024;

/// During a rotation there are two or three. Each is a CA that a certificate is compared with.
const SECRETS_MAX: usize = 8;

/// Separates our keys from those that another program derives from the same secret.
const SALT: &[u8] = b"ambassador peer secret v1";

/// One line of the file. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerSecret(String);

/// The bytes of a private key (RFC 8032). Not shown by `Debug`.
pub(super) struct Seed(pub(super) [u8; 32]);

impl PeerSecret {
    /// Derives the seed of the Ed25519 key of the CA that the holders of the secret have in common.
    pub(super) fn ca_seed(&self) -> Result<Seed, Unspecified> {
        self.derived(b"CA key, Ed25519").map(Seed)
    }

    /// Derives a number for the name of the CA, which distinguishes the CAs of two secrets.
    pub(super) fn ca_number(&self) -> Result<[u8; 8], Unspecified> {
        let [a, b, c, d, e, f, g, h, ..] = self.derived(b"CA name")?;
        Ok([a, b, c, d, e, f, g, h])
    }

    /// HKDF-SHA256 (RFC 5869).
    fn derived(&self, purpose: &[u8]) -> Result<[u8; 32], Unspecified> {
        let mut derived = [0; 32];
        let key = Salt::new(HKDF_SHA256, SALT).extract(self.0.as_bytes());
        key.expand(&[purpose], HKDF_SHA256)?.fill(&mut derived)?;
        Ok(derived)
    }
}

impl fmt::Debug for PeerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Reads the secrets of a file: the one in use, then those that are accepted too. Never empty.
///
/// Empty lines are ignored, and white space around a secret.
pub fn parse(file: &[u8]) -> Result<Vec<PeerSecret>, Mistake> {
    let text = std::str::from_utf8(file).map_err(|_| Mistake::new("is not UTF-8 text").help(MAKE_ONE))?;
    // Editors of another system write a byte order mark, which would be a part of the secret.
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).enumerate();
    let secrets = lines.filter(|(_, line)| !line.is_empty()).map(|(n, line)| parse_line(n + 1, line));
    let secrets: Vec<PeerSecret> = secrets.collect::<Result<_, _>>()?;
    match secrets.len() {
        0 => Err(Mistake::new("has no secret").help(MAKE_ONE)),
        1..=SECRETS_MAX => Ok(secrets),
        count => {
            Err(Mistake::new(format!("has {count} secrets; at most {SECRETS_MAX} are accepted at a time"))
                .help("remove the secrets that no host uses any more"))
        }
    }
}

/// Returns a new secret: 256 random bits in hexadecimal.
pub fn generate() -> Result<String, Unspecified> {
    Ok(HEXLOWER.encode(&random::bytes::<32>()?))
}

const MAKE_ONE: &str = "`ambassador peer secret > FILE` creates a secret; copy the file to each host";

fn parse_line(number: usize, line: &str) -> Result<PeerSecret, Mistake> {
    let mistake = |what: String| Mistake::new(format!("line {number}: {what}")).help(MAKE_ONE);
    if line.starts_with("-----BEGIN ") {
        return Err(mistake("a PEM file is not a secret".to_owned())
            .help("certificates and keys belong to --peer-cert and --peer-ca"));
    }
    if line.chars().any(char::is_control) {
        return Err(mistake("a secret has no control characters".to_owned()));
    }
    let length = line.chars().count();
    if !(CHARACTERS_MIN..=CHARACTERS_MAX).contains(&length) {
        let range = format!("must have {CHARACTERS_MIN} to {CHARACTERS_MAX}");
        return Err(mistake(format!("a secret of {length} characters: {range}")));
    }
    let mut different: Vec<char> = line.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < DIFFERENT_MIN {
        let count = different.len();
        let at_least = format!("at least {DIFFERENT_MIN} are required");
        return Err(mistake(format!("a secret of {count} different characters: {at_least}")));
    }
    Ok(PeerSecret(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "8f14e45fceea167a5a36dedd4bea2543f1c9645dbc14efddc7d8a322685f26eb";
    const BASE64: &str = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k=";

    fn count(file: &str) -> Result<usize, String> {
        parse(file.as_bytes()).map(|secrets| secrets.len()).map_err(|mistake| mistake.message)
    }

    #[test]
    fn each_line_is_a_secret_and_white_space_is_ignored() {
        for (file, expected) in [
            (HEX.to_owned(), 1),
            (format!("{HEX}\n"), 1),
            (format!("\u{feff}\r\n  {HEX} \r\n\n{BASE64}\r\n"), 2),
            ("correct horse battery staple once more\n".to_owned(), 1),
        ] {
            assert_eq!(count(&file), Ok(expected), "{file}");
        }
        assert_eq!(parse(format!(" {HEX}\r\n").as_bytes()), parse(HEX.as_bytes()));
    }

    #[test]
    fn weak_secrets_and_other_files_are_refused_without_showing_them() {
        for (file, expected) in [
            (String::new(), "has no secret"),
            ("\n \n".to_owned(), "has no secret"),
            ("hunter2".to_owned(), "line 1: a secret of 7 characters: must have 32 to 1024"),
            (
                format!("{HEX}\n{}", "a".repeat(40)),
                "line 2: a secret of 1 different characters: at least 8 are required",
            ),
            ("x".repeat(1025), "line 1: a secret of 1025 characters: must have 32 to 1024"),
            (format!("{HEX}\u{0}"), "line 1: a secret has no control characters"),
            ("-----BEGIN PRIVATE KEY-----\n".to_owned(), "line 1: a PEM file is not a secret"),
            (format!("{HEX}\n").repeat(9), "has 9 secrets; at most 8 are accepted at a time"),
        ] {
            assert_eq!(count(&file), Err(expected.to_owned()), "{file}");
        }
        assert_eq!(parse(b"\xff").unwrap_err().message, "is not UTF-8 text");
        assert_eq!(format!("{:?}", parse(HEX.as_bytes()).unwrap()), "[***]");
    }

    #[test]
    fn keys_are_the_same_on_each_host_and_differ_by_purpose_and_secret() {
        let [hex, base64] = [HEX, BASE64].map(|text| parse(text.as_bytes()).unwrap().remove(0));
        // Computed by another implementation of HKDF. Another value would separate hosts of different versions.
        let seed = HEXLOWER.encode(&hex.ca_seed().unwrap().0);
        assert_eq!(seed, "b3345e0cbf8c3780efdecd7724b7e83e0d36817882d95110733e11ebeec887f4");
        assert_ne!(hex.ca_seed().unwrap().0, base64.ca_seed().unwrap().0);
        assert_ne!(hex.ca_number(), base64.ca_number());
        assert_ne!(hex.ca_seed().unwrap().0[..8], hex.ca_number().unwrap());
    }
}
