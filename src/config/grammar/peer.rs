//! Names of exports and identities of peers. Pure.
//!
//! An export is the `:authority` of a CONNECT request (RFC 9113, 8.5), so its name is a host name or a word, and may end with a
//! port, as other programs write it. An identity is a word, or a SPIFFE ID.

use super::digits;
use crate::diagnostic::Mistake;

/// The length of a DNS name (RFC 1035), which a name may be.
const NAME_LENGTH_MAX: usize = 253;

/// The length of a SPIFFE ID (SPIFFE-ID, 2.3).
const SPIFFE_ID_LENGTH_MAX: usize = 2048;

const SPIFFE: &str = "spiffe://";

/// The trust domain of certificates of `ambassador ca`, whose identity is the rest of the SPIFFE ID.
const OUR_SPIFFE_ID: &str = "spiffe://ambassador/";

/// Parses the name of an export: `redis`, `redis.example.com`, `redis:6379`.
pub(crate) fn export(text: &str) -> Result<String, Mistake> {
    let (name, port) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    check_word("name of an export", text, name)?;
    match port {
        Some(port) if digits::<u16>(port).is_none_or(|port| port == 0) => {
            Err(Mistake::new(format!("invalid name of an export `{text}`: `{port}` is not a port"))
                .help("write a name such as `redis`, or a name and a port such as `redis:6379`"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Parses an identity: `web`, `web.example.com`, `spiffe://example.com/web`. `spiffe://ambassador/web` is `web`.
pub(crate) fn identity(text: &str) -> Result<String, Mistake> {
    let text = text.strip_prefix(OUR_SPIFFE_ID).unwrap_or(text);
    match text.strip_prefix(SPIFFE) {
        Some(id) => check_spiffe_id(text, id)?,
        None => check_word("identity", text, text)?,
    }
    Ok(text.to_owned())
}

fn check_word(what: &str, text: &str, word: &str) -> Result<(), Mistake> {
    if word.is_empty() {
        return Err(Mistake::new(format!("invalid {what} `{text}`: it is empty"))
            .help("write a name such as `redis`"));
    }
    if text.len() > NAME_LENGTH_MAX {
        let mistake = Mistake::new(format!("invalid {what} `{text}`: longer than {NAME_LENGTH_MAX} bytes"));
        return Err(mistake.help("shorten it"));
    }
    match word.chars().find(|c| !is_word_char(*c)) {
        Some(odd) => Err(Mistake::new(format!("invalid {what} `{text}`: it contains {odd:?}"))
            .help("use letters, digits and `.-_`")),
        None => Ok(()),
    }
}

/// Checks a trust domain and a path (SPIFFE-ID, 2.1 and 2.2). The ID of a trust domain alone is not that of a workload.
fn check_spiffe_id(text: &str, id: &str) -> Result<(), Mistake> {
    let (domain, path) = id.split_once('/').unwrap_or((id, ""));
    let is_domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.chars().all(is_word_char);
    let is_valid = text.len() <= SPIFFE_ID_LENGTH_MAX
        && !domain.is_empty()
        && domain.chars().all(is_domain)
        && path.split('/').all(is_segment);
    if is_valid {
        return Ok(());
    }
    Err(Mistake::new(format!("invalid SPIFFE ID `{text}`"))
        .help("write `spiffe://TRUST-DOMAIN/PATH`, as in `spiffe://example.com/web`"))
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_is_a_word_that_may_end_with_a_port() {
        for text in ["redis", "r", "6379", "redis:6379", "db_1.example.com:5432", "-", &"a".repeat(253)] {
            assert_eq!(export(text).as_deref(), Ok(text));
        }
        for (text, help) in [
            ("", "write a name"),
            (":80", "write a name"),
            ("redis:", "redis:6379"),
            ("redis:0", "redis:6379"),
            ("redis:70000", "redis:6379"),
            ("redis:http", "redis:6379"),
            ("a:80:80", "letters, digits"),
            ("a/b", "letters, digits"),
            ("a@b", "letters, digits"),
            ("r\u{e9}dis", "letters, digits"),
            ("[::1]:80", "letters, digits"),
            (&"a".repeat(254), "shorten"),
            (&format!("{}:80", "a".repeat(251)), "shorten"),
        ] {
            let mistake = export(text).expect_err(text);
            assert!(mistake.help.as_deref().unwrap_or("").contains(help), "{text}: {mistake:?}");
        }
    }

    #[test]
    fn identity_is_a_word_or_a_spiffe_id() {
        for text in [
            "web",
            "web.example.com",
            "host_1",
            "spiffe://example.com/web",
            "spiffe://td_1/ns/default/sa/Web-1",
        ] {
            assert_eq!(identity(text).as_deref(), Ok(text));
        }
        assert_eq!(identity("spiffe://ambassador/web").as_deref(), Ok("web"));
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        for (text, help) in [
            ("", "write a name"),
            ("a b", "letters, digits"),
            ("a:80", "letters, digits"),
            ("spiffe:/td/a", "letters, digits"),
            ("spiffe://", "TRUST-DOMAIN/PATH"),
            ("spiffe://td", "TRUST-DOMAIN/PATH"),
            ("spiffe://td/", "TRUST-DOMAIN/PATH"),
            ("spiffe:///a", "TRUST-DOMAIN/PATH"),
            ("spiffe://TD/a", "TRUST-DOMAIN/PATH"),
            ("spiffe://td:80/a", "TRUST-DOMAIN/PATH"),
            ("spiffe://td/a//b", "TRUST-DOMAIN/PATH"),
            ("spiffe://td/a/", "TRUST-DOMAIN/PATH"),
            ("spiffe://td/../a", "TRUST-DOMAIN/PATH"),
            ("spiffe://td/a?b", "TRUST-DOMAIN/PATH"),
            (&long, "TRUST-DOMAIN/PATH"),
        ] {
            let mistake = identity(text).expect_err(text);
            assert!(mistake.help.as_deref().unwrap_or("").contains(help), "{text}: {mistake:?}");
        }
    }
}
