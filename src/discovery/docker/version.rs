//! The version of the API that both sides speak. Pure.

use std::fmt;

/// 20.10 speaks 1.41 at most, 29 speaks 1.44 at least (later 29s again 1.40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// The newest whose answers we have read. What we use of them has been the same since 1.24.
    const NEWEST: Version = Version { major: 1, minor: 44 };

    /// The engine's oldest and newest in, the one to ask with out: ours, or the nearest to it that the engine speaks.
    pub(super) fn common(oldest: Option<&str>, newest: Option<&str>) -> Result<Version, String> {
        let Some(newest) = newest.and_then(Version::parse) else {
            return Err("/version names no API version: is this a Docker engine?".to_owned());
        };
        let oldest = oldest.and_then(Version::parse).unwrap_or(newest).min(newest);
        Ok(Version::NEWEST.clamp(oldest, newest))
    }

    fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(oldest: Option<&str>, newest: Option<&str>, expected: Option<&str>) {
        let version = Version::common(oldest, newest).ok().map(|version| version.to_string());
        assert_eq!(version.as_deref(), expected, "{oldest:?} {newest:?}");
    }

    #[test]
    fn each_engine_is_asked_at_a_version_it_speaks() {
        check(Some("1.12"), Some("1.41"), Some("1.41"));
        check(Some("1.24"), Some("1.43"), Some("1.43"));
        check(Some("1.44"), Some("1.52"), Some("1.44"));
        check(Some("1.40"), Some("1.54"), Some("1.44"));
        check(Some("1.50"), Some("1.60"), Some("1.50"));
        check(Some("1.9"), Some("1.10"), Some("1.10"));
    }

    #[test]
    fn an_engine_that_says_little_is_asked_at_what_it_says() {
        check(None, Some("1.41"), Some("1.41"));
        check(Some("nonsense"), Some("1.52"), Some("1.52"));
        check(Some("1.44"), None, None);
        check(Some("1.44"), Some("99999999.1"), None);
    }
}
