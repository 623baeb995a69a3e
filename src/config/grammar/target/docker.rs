//! `docker://NAME[:PORT]` and `docker://label:KEY[=VALUE][:PORT]`. Pure.

use super::super::digits;
use super::port_of;
use crate::diagnostic::Mistake;
use crate::route::Target;

/// Parses the part after `docker://`.
pub(super) fn parse(text: &str) -> Result<Target, Mistake> {
    if let Some(label) = text.strip_prefix("label:").filter(|rest| digits::<u16>(rest).is_none()) {
        return labelled(label);
    }
    let (name, port) = split_port(text)?;
    Ok(Target::Docker { name: container_name(name)?, port })
}

/// Parses a label and a port. The value of the label cannot contain a colon.
fn labelled(text: &str) -> Result<Target, Mistake> {
    let (label, port) = split_port(text)?;
    let (key, value) = match label.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (label, None),
    };
    let odd = |part: &str| part.is_empty() || !part.chars().all(is_label_char);
    if odd(key) || value.is_some_and(odd) {
        return Err(Mistake::new(format!("invalid label in `docker://label:{text}`"))
            .help("write `docker://label:KEY=VALUE[:PORT]` with letters, digits and `_.-/@+~`"));
    }
    Ok(Target::Labelled { key: key.to_owned(), value: value.map(str::to_owned), port })
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-/@+~".contains(c)
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), Mistake> {
    match text.rsplit_once(':') {
        Some((name, port)) => Ok((name, Some(port_of(port)?))),
        None => Ok((text, None)),
    }
}

/// Parses the name of a container by Docker's rule, which IDs and Compose services satisfy as well. Accepts the leading slash
/// of names in Docker's API.
pub(crate) fn container_name(text: &str) -> Result<String, Mistake> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Ok(name.to_owned());
    }
    Err(Mistake::new(format!("invalid name of a container `{text}`"))
        .help("write the name or ID of a container, or a Compose service: letters, digits and `_.-`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_selected_by_name_or_by_label() {
        let docker = |name: &str, port| Target::Docker { name: name.to_owned(), port };
        let label = |key: &str, value: Option<&str>, port| Target::Labelled {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            port,
        };
        for (text, expected) in [
            ("redis", docker("redis", None)),
            ("/redis", docker("redis", None)),
            ("testapp_redis-1:6380", docker("testapp_redis-1", Some(6380))),
            ("label", docker("label", None)),
            ("label:80", docker("label", Some(80))),
            ("label:role", label("role", None, None)),
            ("label:role:6379", label("role", None, Some(6379))),
            ("label:com.example/role=cache", label("com.example/role", Some("cache"), None)),
            ("label:role=cache:6379", label("role", Some("cache"), Some(6379))),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_invalid_container_is_an_error_with_a_help() {
        for (text, help) in [
            ("", "letters, digits"),
            ("a b", "letters, digits"),
            ("a:b", "from 1 to 65535"),
            ("label:", "label:KEY=VALUE"),
            ("label:=x", "label:KEY=VALUE"),
            ("label:role=", "label:KEY=VALUE"),
            ("label:role=a=b", "label:KEY=VALUE"),
            ("label:role=cache:http", "from 1 to 65535"),
        ] {
            let mistake = parse(text).expect_err(text);
            assert!(mistake.help.as_deref().unwrap_or("").contains(help), "{text}: {mistake:?}");
        }
    }
}
