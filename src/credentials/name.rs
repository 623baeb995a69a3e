//! The names of peers: what may stand in a certificate of ours. Pure.

use crate::diagnostic::Mistake;

/// The longest common name of a certificate (RFC 5280, `ub-common-name`).
pub const NAME_MAX: usize = 64;

/// The longest label of a DNS name (RFC 1035).
const LABEL_MAX: usize = 63;

/// Checks that a name can be a DNS name and the path of a SPIFFE ID: letters, digits, `-`, `_`, and single dots between.
pub fn check(name: &str) -> Result<(), Mistake> {
    let is_valid = (1..=NAME_MAX).contains(&name.len()) && name.split('.').all(is_label);
    if is_valid {
        return Ok(());
    }
    let help = "a name has 1 to 64 letters, digits, `-` and `_`, with single dots between, such as `host1` or `db.example`";
    Err(Mistake::new(format!("invalid name of a peer `{name}`")).help(help))
}

fn is_label(label: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = label.as_bytes();
    bytes.len() <= LABEL_MAX
        && bytes.iter().copied().all(is_inner)
        && is_edge(bytes.first())
        && is_edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_of_up_to_64_characters() {
        let longest = format!("{}.{}", "a".repeat(32), "b".repeat(31));
        for name in ["a", "host1", "db.example.com", "my_host-2", "UPPER", "10", &longest] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let longer = format!("{longest}c");
        let label = "a".repeat(64);
        for name in [
            "", ".", "..", "a..b", ".a", "a.", "-a", "a-", "a/b", "a b", "a\n", "\u{e9}", "*.a", &longer,
            &label,
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
