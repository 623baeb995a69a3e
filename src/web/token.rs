//! The token of the web page, in a file or made for one run of `ambassador dashboard`.

use std::fmt;
use std::path::PathBuf;

use ring::digest::{SHA256, digest};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};

use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::regular;

/// A random text of 20 characters in base64 has 120 bits.
const CHARACTERS_MIN: usize = 20;
/// Longer ones would not fit into the head of a request with its other headers.
const CHARACTERS_MAX: usize = 1024;
/// Bytes of a token that is made here.
const RANDOM_BYTES: usize = 24;

/// The file of a token: its first line. Read again for each request, so that a new token applies at once.
#[derive(Clone, Debug)]
pub(super) struct TokenFile(PathBuf);

/// A token of visible ASCII characters. Not shown by `Debug`.
#[derive(Clone)]
pub(super) struct Token(String);

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> TokenFile {
        TokenFile(path)
    }

    /// Reads the token.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or its token could be guessed.
    pub(super) fn read(&self) -> Result<Token, Diagnostic> {
        let place = Place::Path(self.0.clone());
        let bytes = regular::read(&self.0, CHARACTERS_MAX + 2)
            .map_err(|error| Diagnostic::new(place.clone(), format!("cannot read the token: {error}")))?;
        Token::parse(&String::from_utf8_lossy(&bytes)).map_err(|mistake| mistake.at(&place))
    }
}

impl Token {
    fn parse(text: &str) -> Result<Token, Mistake> {
        let token = text.lines().next().unwrap_or_default().trim_end();
        let mistake = |message: &str| Mistake::new(message).help("write one: `openssl rand -hex 32 > FILE`");
        if token.len() < CHARACTERS_MIN {
            return Err(mistake(&format!("the token is shorter than {CHARACTERS_MIN} characters")));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(mistake("the token has a character that is not a visible one of ASCII"));
        }
        Ok(Token(token.to_owned()))
    }

    /// Returns a new token. Fails if the operating system has no random numbers.
    pub(super) fn random() -> Result<Token, Unspecified> {
        let mut bytes = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut bytes)?;
        Ok(Token(data_encoding::BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Returns the token as text, for the address that is printed.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Returns whether a value of `Authorization` has this token. The time taken does not depend on how much of it is right.
    pub(super) fn is_bearer(&self, authorization: &[u8]) -> bool {
        let Some((scheme, given)) = authorization.split_at_checked("Bearer ".len()) else { return false };
        // Of two different digests the first difference reveals nothing about the texts.
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && digest(&SHA256, given).as_ref() == digest(&SHA256, self.0.as_bytes()).as_ref()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        Token::parse(text).unwrap_err().message
    }

    #[test]
    fn token_is_the_first_line_of_a_file() {
        let token = Token::parse("0123456789abcdefghij\r\nsecond\n").unwrap();
        assert_eq!(token.expose(), "0123456789abcdefghij");
        assert_eq!(format!("{token:?}"), "***");
        assert_eq!(mistake(""), "the token is shorter than 20 characters");
        assert_eq!(mistake("short\n0123456789abcdefghij"), "the token is shorter than 20 characters");
        assert!(mistake("0123456789 abcdefghij").contains("visible"));
        assert!(mistake("0123456789äabcdefghij").contains("visible"));
    }

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token = Token::parse("0123456789abcdefghij").unwrap();
        for given in ["Bearer 0123456789abcdefghij", "bearer 0123456789abcdefghij"] {
            assert!(token.is_bearer(given.as_bytes()), "{given}");
        }
        for given in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdefghij",
            "Bearer 0123456789abcdefghi",
            "Basic 0123456789abcdefghij",
        ] {
            assert!(!token.is_bearer(given.as_bytes()), "{given}");
        }
        let random = Token::random().unwrap();
        assert_eq!(random.expose().len(), 32);
        assert!(Token::parse(random.expose()).is_ok());
    }

    #[test]
    fn file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = TokenFile::new(path.clone());
        assert!(file.read().unwrap_err().message.starts_with("cannot read the token"));
        for token in ["0123456789abcdefghij", "abcdefghij0123456789"] {
            std::fs::write(&path, token).unwrap();
            assert_eq!(file.read().unwrap().expose(), token);
        }
    }
}
