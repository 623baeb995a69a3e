//! `docker://NAME[:PORT]` and `docker://label:KEY[=VALUE][:PORT]`. Pure.

use super::super::listen::number;
use super::port_of;
use crate::diagnostic::Mistake;
use crate::route::Target;

/// What stands after `docker://`.
pub(super) fn parse(text: &str) -> Result<Target, Mistake> {
    if let Some(label) = text.strip_prefix("label:").filter(|rest| number(rest).is_none()) {
        return labelled(label);
    }
    let (name, port) = split_port(text)?;
    Ok(Target::Docker { name: container_name(name)?, port })
}

/// A label's value holds no colon here, so that what follows one is a port.
fn labelled(text: &str) -> Result<Target, Mistake> {
    let (label, port) = split_port(text)?;
    let (key, value) = match label.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (label, None),
    };
    let odd = |part: &str| part.is_empty() || !part.chars().all(is_label_char);
    if odd(key) || value.is_some_and(odd) {
        return Err(Mistake::new(format!("`docker://label:{text}` names no label"))
            .help("write `docker://label:KEY=VALUE[:PORT]`, of letters, digits and `_.-/@+~`"));
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

/// Docker's own rule for names, which IDs and Compose services keep as well. Go tools print a name with a slash before
/// it.
pub(crate) fn container_name(text: &str) -> Result<String, Mistake> {
    let name = text.strip_prefix('/').unwrap_or(text);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Ok(name.to_owned());
    }
    Err(Mistake::new(format!("`{text}` cannot be the name of a container"))
        .help("write a container's name or ID, or a Compose service: letters, digits and `_.-`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_meant_by_name_or_by_label() {
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
    fn what_means_no_container_is_answered_with_the_way_out() {
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
