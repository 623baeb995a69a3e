//! What a CA has issued and revoked. Pure.

use std::fmt;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diagnostic::Mistake;

/// Entries are removed this long after the certificate has expired, so that daily certificates do not fill the index.
const KEEP_EXPIRED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Every certificate that was issued, in the order of issue.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    certificates: Vec<IssuedCertificate>,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// The identity.
    pub name: String,
    /// In hexadecimal.
    pub serial: String,
    /// The name of the CA's certificate.
    pub ca: String,
    /// DNS names and IP addresses in addition to the name.
    pub alternative_names: Vec<String>,
    /// When it was issued.
    pub issued: RfcTime,
    /// The end of its validity.
    pub not_after: RfcTime,
    /// When it was revoked.
    pub revoked: Option<RfcTime>,
}

/// A time that is shown and written as in RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RfcTime(pub SystemTime);

impl Index {
    pub(super) fn parse(json: &[u8]) -> Result<Index, Mistake> {
        let help = "restore the directory of the CA from a backup";
        serde_json::from_slice(json)
            .map_err(|error| Mistake::new(format!("is not an index: {error}")).help(help))
    }

    pub(super) fn to_json(&self) -> String {
        // A derived structure of text converts without errors.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Adds a certificate, and forgets those that expired a while ago.
    pub(super) fn add(&mut self, certificate: IssuedCertificate, now: SystemTime) {
        self.certificates.retain(|known| known.not_after.0 + KEEP_EXPIRED > now);
        self.certificates.push(certificate);
    }

    /// Marks a certificate as revoked, or all of a name. Returns them.
    pub(super) fn revoke(&mut self, name_or_serial: &str, now: SystemTime) -> Vec<IssuedCertificate> {
        let serial = name_or_serial.replace(':', "").to_ascii_lowercase();
        let mut revoked = Vec::new();
        for certificate in &mut self.certificates {
            if certificate.name == name_or_serial || certificate.serial == serial {
                certificate.revoked.get_or_insert(RfcTime(now));
                revoked.push(certificate.clone());
            }
        }
        revoked
    }

    /// Returns the revoked certificates of one certificate of the CA. Expired ones need no revocation.
    pub(super) fn revoked_by(&self, ca: &str, now: SystemTime) -> Vec<IssuedCertificate> {
        let of_ca = self.certificates.iter().filter(|certificate| certificate.ca == ca);
        of_ca
            .filter(|certificate| certificate.revoked.is_some() && certificate.not_after.0 >= now)
            .cloned()
            .collect()
    }

    /// Returns the names that have a valid certificate, but none of this CA certificate.
    pub(super) fn names_without(&self, ca: &str, now: SystemTime) -> Vec<String> {
        let valid = || self.certificates.iter().filter(|certificate| certificate.is_valid(now));
        let has_new =
            |name: &str| valid().any(|certificate| certificate.ca == ca && certificate.name == name);
        let mut names: Vec<String> = valid().map(|certificate| certificate.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !has_new(name));
        names
    }

    /// Forgets what other certificates of the CA have issued.
    pub(super) fn keep_only(&mut self, ca: &str) {
        self.certificates.retain(|certificate| certificate.ca == ca);
    }

    pub(super) fn sorted(&self) -> Vec<IssuedCertificate> {
        let mut sorted = self.certificates.clone();
        sorted.sort_by(|one, other| (&one.name, one.issued).cmp(&(&other.name, other.issued)));
        sorted
    }
}

impl IssuedCertificate {
    /// Returns whether it is neither revoked nor expired.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.revoked.is_none() && self.not_after.0 >= now
    }

    pub(super) fn serial_bytes(&self) -> Vec<u8> {
        HEXLOWER.decode(self.serial.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for RfcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for RfcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RfcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RfcTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(RfcTime).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn time(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * days
    }

    fn certificate(name: &str, serial: &str, ca: &str, days: u32) -> IssuedCertificate {
        IssuedCertificate {
            name: name.to_owned(),
            serial: serial.to_owned(),
            ca: ca.to_owned(),
            alternative_names: Vec::new(),
            issued: RfcTime(time(0)),
            not_after: RfcTime(time(days)),
            revoked: None,
        }
    }

    fn index(certificates: &[IssuedCertificate]) -> Index {
        Index { certificates: certificates.to_vec() }
    }

    #[test]
    fn name_revokes_all_of_its_certificates_and_serial_number_one() {
        let all = [
            certificate("a", "01", "x", 9),
            certificate("a", "02", "x", 9),
            certificate("b", "0abc", "x", 9),
        ];
        for (what, serials) in [
            ("a", &["01", "02"][..]),
            ("02", &["02"]),
            ("0A:BC", &["0abc"]),
            ("B", &[]),
            ("3", &[]),
            ("", &[]),
        ] {
            let mut index = index(&all);
            let revoked = index.revoke(what, time(1));
            assert_eq!(
                revoked.iter().map(|found| found.serial.as_str()).collect::<Vec<_>>(),
                serials,
                "{what}"
            );
            assert_eq!(index.revoked_by("x", time(2)), revoked);
            assert_eq!(index.revoked_by("y", time(2)), []);
            assert_eq!(index.revoked_by("x", time(10)), [], "expired");
        }
    }

    #[test]
    fn second_revocation_keeps_the_time_of_the_first() {
        let mut index = index(&[certificate("a", "01", "x", 9)]);
        index.revoke("a", time(1));
        assert_eq!(index.revoke("01", time(2))[0].revoked, Some(RfcTime(time(1))));
    }

    #[test]
    fn rotation_waits_for_names_whose_valid_certificates_are_all_of_the_old_key() {
        let mut index = index(&[
            certificate("done", "01", "old", 9),
            certificate("done", "02", "new", 9),
            certificate("waiting", "03", "old", 9),
            certificate("revoked", "04", "old", 9),
            certificate("expired", "05", "old", 1),
            certificate("new-expired", "06", "old", 9),
            certificate("new-expired", "07", "new", 1),
        ]);
        index.revoke("revoked", time(1));
        assert_eq!(index.names_without("new", time(2)), ["new-expired", "waiting"]);
    }

    #[test]
    fn expired_entries_are_forgotten_after_a_month() {
        let mut index = index(&[certificate("a", "01", "x", 1)]);
        index.add(certificate("b", "02", "x", 90), time(30));
        assert_eq!(index.certificates.len(), 2);
        index.add(certificate("c", "03", "x", 90), time(31));
        assert_eq!(index.sorted().iter().map(|known| known.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn index_is_read_as_it_was_written() {
        let index = index(&[certificate("a", "01", "x", 9)]);
        assert_eq!(Index::parse(index.to_json().as_bytes()).unwrap().certificates, index.certificates);
        assert!(Index::parse(b"{}").unwrap_err().message.starts_with("is not an index: missing field"));
    }
}
