//! The version of the API that both sides support. Pure.

use std::fmt;

/// 20.10 supports 1.41 at most, 29 supports 1.44 at least (later releases of 29 again 1.40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// The newest version that was tested. The fields that are used have not changed since 1.24.
    const NEWEST: Version = Version { major: 1, minor: 44 };

    /// Returns the version to use with an engine that supports `oldest` to `newest`: the supported one closest to ours.
    pub(super) fn common(oldest: Option<&str>, newest: Option<&str>) -> Result<Version, String> {
        let Some(newest) = newest.and_then(Version::parse) else {
            return Err("/version reports no API version: is this a Docker engine?".to_owned());
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
    fn version_supported_by_both_sides_is_used() {
        check(Some("1.12"), Some("1.41"), Some("1.41"));
        check(Some("1.24"), Some("1.43"), Some("1.43"));
        check(Some("1.44"), Some("1.52"), Some("1.44"));
        check(Some("1.40"), Some("1.54"), Some("1.44"));
        check(Some("1.50"), Some("1.60"), Some("1.50"));
        check(Some("1.9"), Some("1.10"), Some("1.10"));
    }

    #[test]
    fn missing_or_invalid_versions_are_replaced_by_the_newest_of_the_engine() {
        check(None, Some("1.41"), Some("1.41"));
        check(Some("nonsense"), Some("1.52"), Some("1.52"));
        check(Some("1.44"), None, None);
        check(Some("1.44"), Some("99999999.1"), None);
    }
}
