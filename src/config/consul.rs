//! How Consul is accessed for targets without an agent, by the variables of Consul's own tools
//! (<https://developer.hashicorp.com/consul/commands#environment-variables>). Pure.

use super::grammar::target::agent;
use super::hosts::Hosts;
use super::secret::Secret;
use super::vars::Vars;
use crate::diagnostic::{Diagnostic, Mistake, Place};

const ADDRESS: &str = "CONSUL_HTTP_ADDR";
/// In order of precedence: the ambassador may have a token of its own.
const TOKENS: [&str; 2] = ["AMBASSADOR_CONSUL_TOKEN", "CONSUL_HTTP_TOKEN"];

/// The default agent and the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulConfig {
    /// `HOST:PORT`, for targets without an agent.
    pub agent: String,
    /// Sent to `agent` and to the agents in `hosts`.
    pub token: Option<Secret>,
    /// The agents in routes of the command line, the environment and the file.
    pub hosts: Hosts,
}

impl ConsulConfig {
    /// Returns the token to send to an agent, `HOST:PORT`.
    pub(crate) fn token(&self, agent: &str) -> Option<&Secret> {
        self.token.as_ref().filter(|_| agent == self.agent || self.hosts.has_consul(agent))
    }

    /// Returns whether a token is configured that is not sent to this agent.
    pub(crate) fn is_withheld(&self, agent: &str) -> bool {
        self.token.is_some() && self.token(agent).is_none()
    }
}

impl Default for ConsulConfig {
    fn default() -> ConsulConfig {
        ConsulConfig { agent: "127.0.0.1:8500".to_owned(), token: None, hosts: Hosts::default() }
    }
}

/// Reads the variables. An invalid address is a mistake, returned with the default.
pub(crate) fn consul(vars: &Vars) -> (ConsulConfig, Option<Diagnostic>) {
    let token = TOKENS.iter().find_map(|name| vars.value(name)).map(Secret::new);
    let mut config = ConsulConfig { token, ..ConsulConfig::default() };
    match vars.value(ADDRESS).map(address) {
        None => (config, None),
        Some(Ok(agent)) => {
            config.agent = agent;
            (config, None)
        }
        Some(Err(mistake)) => (config, Some(mistake.at(&Place::Variable(ADDRESS.to_owned())))),
    }
}

fn address(text: &str) -> Result<String, Mistake> {
    let address = match text.split_once("://") {
        Some(("http", address)) => address,
        None => text,
        Some((scheme, _)) => {
            return Err(Mistake::new(format!("`{scheme}://` is not supported"))
                .help("write the `HOST:PORT` of an agent that serves plain HTTP"));
        }
    };
    agent(address.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (ConsulConfig, Option<Diagnostic>) {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        consul(&pairs.collect())
    }

    #[test]
    fn the_agent_is_read_from_consuls_own_variable() {
        for (text, agent) in [
            ("", "127.0.0.1:8500"),
            ("consul.example:8501", "consul.example:8501"),
            ("http://10.0.0.1:8500/", "10.0.0.1:8500"),
            ("[fd00::1]:8500", "[fd00::1]:8500"),
        ] {
            let (config, mistake) = read(&[(ADDRESS, text)]);
            assert_eq!((config.agent.as_str(), mistake), (agent, None));
        }
        for text in ["https://10.0.0.1:8501", "unix:///run/consul.sock", "a b:1"] {
            let (config, mistake) = read(&[(ADDRESS, text)]);
            assert_eq!(config, ConsulConfig::default());
            assert!(mistake.is_some_and(|mistake| mistake.help.is_some()), "{text}");
        }
    }

    #[test]
    fn the_ambassadors_token_takes_precedence_and_no_token_is_printed() {
        let both = [("AMBASSADOR_CONSUL_TOKEN", "ours-s3cret"), ("CONSUL_HTTP_TOKEN", "theirs-s3cret")];
        let (config, _) = read(&both);
        assert_eq!(config.token.as_ref().map(Secret::reveal), Some("ours-s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        let (config, _) = read(&both[1..]);
        assert_eq!(config.token.as_ref().map(Secret::reveal), Some("theirs-s3cret"));
    }
}
