//! `consul://[HOST[:PORT]/]SERVICE[+TAG...][@DATACENTER]`. Pure.
//!
//! The separators have no meaning in shells or in the rest of the grammar: after a `;`, a shell would drop the tags, and
//! the route would select more instances than intended.

use std::collections::BTreeSet;

use super::{at, split_port};
use crate::diagnostic::Mistake;
use crate::ordered::CollectOrdered;
use crate::route::{ConsulService, Target};

/// The port of Consul's HTTP API.
const PORT: u16 = 8500;

const FORM: &str =
    "write `consul://[HOST:8500/]SERVICE[+TAG...][@DATACENTER]`, as in `consul://redis+primary@dc1`";

/// Parses the part after `consul://`.
pub(super) fn parse(text: &str) -> Result<Target, Mistake> {
    let wrong = |what: &str| Mistake::new(format!("invalid target `consul://{text}`: {what}")).help(FORM);
    let (rest, datacenter) = match text.rsplit_once('@') {
        Some((rest, datacenter)) => (rest, Some(datacenter)),
        None => (text, None),
    };
    let mut words = rest.split('+');
    let place = words.next().unwrap_or_default();
    let (agent_text, service) = match place.rsplit_once('/') {
        Some((agent, service)) => (Some(agent), service),
        None => (None, place),
    };
    if service.is_empty() || !service.chars().all(is_name_char) {
        return Err(wrong("a service consists of letters, digits and `_.-`"));
    }
    let tags: BTreeSet<String> = words.map(str::to_owned).collect_ordered();
    if tags.iter().any(|tag| tag.is_empty() || !tag.chars().all(is_tag_char)) {
        return Err(wrong("a tag consists of letters, digits and `_.-/:=~`"));
    }
    if datacenter.is_some_and(|name| name.is_empty() || !name.chars().all(is_name_char)) {
        return Err(wrong("a datacenter consists of letters, digits and `_.-`"));
    }
    Ok(Target::Consul(ConsulService {
        agent: agent_text.map(agent).transpose()?,
        service: service.to_owned(),
        tags,
        datacenter: datacenter.map(str::to_owned),
    }))
}

/// Parses the address of an agent, `HOST[:PORT]`. Returns it with its port.
pub(crate) fn agent(text: &str) -> Result<String, Mistake> {
    let (host, port) = split_port(text)?;
    Ok(at(host, port.unwrap_or(PORT))?.to_string())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

fn is_tag_char(c: char) -> bool {
    is_name_char(c) || "/:=~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_tags_and_datacenter_are_optional() {
        for (text, printed) in [
            ("redis", "redis"),
            ("redis+primary", "redis+primary"),
            ("redis+v1.2+primary+v1.2@dc-2", "redis+primary+v1.2@dc-2"),
            ("consul.example:8501/redis", "consul.example:8501/redis"),
            ("10.0.0.1/redis@eu", "10.0.0.1:8500/redis@eu"),
            ("[fd00::1]:8500/web+traefik.enable=true", "[fd00::1]:8500/web+traefik.enable=true"),
            ("web+urlprefix-/foo", "web+urlprefix-/foo"),
        ] {
            let target = parse(text).unwrap_or_else(|mistake| panic!("{mistake:?}"));
            assert_eq!(target.to_string(), format!("consul://{printed}"));
            assert_eq!(parse(printed), Ok(target));
        }
    }

    #[test]
    fn an_invalid_service_is_an_error_with_the_form() {
        for text in
            ["", "a b", "redis@", "redis+", "redis++a", "h:8500/", "redis;tag=a", "redis+a;b", "redis@a/b"]
        {
            let mistake = parse(text).expect_err(text);
            assert_eq!(mistake.help.as_deref(), Some(FORM), "{text}");
        }
        for text in ["/redis", "h:0/redis", "a/b/redis"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
