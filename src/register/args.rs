//! The arguments of `ambassador register`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Choice, Plan, RegistryConfig, Via};
use crate::config::args::RunArgs;
use crate::config::grammar::options::duration;
use crate::config::grammar::target::{agent, container_name, etcd, port_of};
use crate::config::vars::Vars;
use crate::config::{consul_config, docker_host, etcd_access, log_config};
use crate::diagnostic::{Diagnostic, Mistake, Place};
use crate::route::PEER_PORT;

/// etcd grants no shorter lease (1.5 times its election timeout), and a busy host may be late by a second.
const TTL_MIN: Duration = Duration::from_secs(2);
/// The longest time for which the entries of a failed host are found.
const TTL_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RegisterArgs {
    /// The registry: `etcd://HOST[:2379][,HOST...][/PREFIX]`, etcds:// for TLS, or `consul://[HOST[:8500]]`
    ///
    /// etcd gets a key PREFIX/NAME/PORT/CONTAINER for each published port, with the value ADVERTISE:PUBLISHED-PORT; the
    /// prefix is /services unless one is written. Consul's agent gets a service NAME with a TTL check; NAME-PORT where a
    /// container has several ports. User and password: AMBASSADOR_ETCD_USER and AMBASSADOR_ETCD_PASSWORD, or
    /// AMBASSADOR_CONSUL_TOKEN.
    #[arg(long, value_name = "REGISTRY")]
    pub to: String,

    /// This host's address, as the other hosts reach it
    #[arg(long, value_name = "IP")]
    pub advertise: String,

    /// What to register: `ports`, the published ports, or `peer[:PORT]`, exports of the ambassador of this host
    ///
    /// With `peer`, each label ambassador.listen.peer:NAME=PORT of a container is an entry NAME with the address
    /// peer://ADVERTISE:15008/NAME, or in Consul a service NAME with the metadata ambassador-peer=NAME. Other ambassadors
    /// reach the service through an encrypted tunnel, and the container needs no published port. PORT is the port of
    /// `--peer-listen`.
    #[arg(long, value_name = "VIA", default_value = "ports")]
    pub via: String,

    /// Register every published port of this container or Compose service; repeatable
    #[arg(long, value_name = "CONTAINER")]
    pub name: Vec<String>,

    /// Register every container with a published port, as its Compose service or by its own name
    #[arg(long)]
    pub all: bool,

    /// How long entries outlive a host or a registrar that fails
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub ttl: String,

    /// Docker's socket [env: DOCKER_HOST] [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub sock: Option<PathBuf>,

    /// error, warn, info, debug or trace [env: AMBASSADOR_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// text or json [env: AMBASSADOR_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

const EXAMPLES: &str = "\
Containers with these labels are registered whatever else is given:
  docker run -d -p 6379 --label ambassador.register=redis redis
  docker run -d -P --label ambassador.register.80=web --label ambassador.register.53/udp=dns app

Examples:
  Register the labelled containers of this host in etcd:
    ambassador register --to etcd://10.0.0.1:2379 --advertise 10.0.0.5
  Register one Compose service, or all containers:
    ambassador register --to etcd://10.0.0.1,10.0.0.2,10.0.0.3 --advertise 10.0.0.5 --name web
    ambassador register --to consul://127.0.0.1:8500 --advertise 10.0.0.5 --all
  Use it from another host:
    ambassador 6379=etcd://10.0.0.1:2379/services/redis/6379
  Register the exports of labelled containers, which are reached through encrypted tunnels:
    docker run -d --label ambassador.listen.peer:redis=6379 redis
    ambassador register --to etcd://10.0.0.1:2379 --advertise 10.0.0.5 --via peer

Entries are withdrawn as soon as their container stops, and on SIGTERM.
Those of a host that fails expire after their TTL.";

impl RegisterArgs {
    /// Validates the arguments. Reports all mistakes.
    pub(crate) fn plan(&self, vars: &Vars) -> Result<Plan, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let mut keep = Keep(&mut mistakes);
        let flag = |name: &str| Place::Flag(name.to_owned());
        let registry = keep.all(self.registry(vars));
        let advertise =
            keep.one(advertise(&self.advertise).map_err(|mistake| mistake.at(&flag("advertise"))));
        let ttl = keep.one(ttl(&self.ttl).map_err(|mistake| mistake.at(&flag("ttl"))));
        let via = keep.one(self.via().map_err(|mistake| mistake.at(&flag("via"))));
        let names: Vec<_> = self.name.iter().map(|name| container_name(name)).collect();
        let names = names.into_iter().map(|name| keep.one(name.map_err(|mistake| mistake.at(&flag("name")))));
        let names: Vec<_> = names.collect();
        let docker = RunArgs { sock: self.sock.clone(), ..RunArgs::default() };
        let docker = keep.one(docker_host(&docker, vars));
        let log = keep.all(log_config(self.log_level.as_deref(), self.log_format.as_deref(), vars));
        match (registry, advertise, ttl, docker, log) {
            (Some(registry), Some(advertise), Some(ttl), Some(docker), Some(log)) if mistakes.is_empty() => {
                let names = names.into_iter().flatten().collect();
                let choice = Choice { names, all: self.all, advertise, via: via.unwrap_or(Via::Ports) };
                Ok(Plan { docker, choice, registry, ttl, log })
            }
            _ => Err(mistakes),
        }
    }

    fn via(&self) -> Result<Via, Mistake> {
        let via = via(&self.via)?;
        if via != Via::Ports && (self.all || !self.name.is_empty()) {
            return Err(Mistake::new("`--via peer` cannot be combined with `--name` and `--all`")
                .help("it registers containers with a label such as `ambassador.listen.peer:redis=6379`"));
        }
        Ok(via)
    }

    fn registry(&self, vars: &Vars) -> Result<RegistryConfig, Vec<Diagnostic>> {
        let place = Place::Flag("to".to_owned());
        if let Some(keys) = etcd::registry(&self.to) {
            let keys = keys.map_err(|mistake| vec![mistake.at(&place)]);
            return Ok(RegistryConfig::Etcd { access: etcd_access(vars)?, keys: keys? });
        }
        let Some(given) = self.to.strip_prefix("consul://") else {
            let mistake = Mistake::new(format!("invalid registry `{}`", self.to))
                .help("write `etcd://HOST:2379` or `consul://HOST:8500`");
            return Err(vec![mistake.at(&place)]);
        };
        let (mut config, mistake) = consul_config(vars);
        let given = given.trim_end_matches('/');
        if !given.is_empty() {
            config.agent = agent(given).map_err(|mistake| vec![mistake.at(&place)])?;
        } else if let Some(mistake) = mistake {
            return Err(vec![mistake]);
        }
        Ok(RegistryConfig::Consul(config))
    }
}

struct Keep<'a>(&'a mut Vec<Diagnostic>);

impl Keep<'_> {
    fn one<T>(&mut self, read: Result<T, Diagnostic>) -> Option<T> {
        self.all(read.map_err(|mistake| vec![mistake]))
    }

    fn all<T>(&mut self, read: Result<T, Vec<Diagnostic>>) -> Option<T> {
        read.map_err(|mistakes| self.0.extend(mistakes)).ok()
    }
}

fn via(text: &str) -> Result<Via, Mistake> {
    match text.split_once(':') {
        None if text == "ports" => Ok(Via::Ports),
        None if text == "peer" => Ok(Via::Peer { port: PEER_PORT }),
        Some(("peer", port)) => Ok(Via::Peer { port: port_of(port)? }),
        _ => Err(Mistake::new(format!("invalid value `{text}` for `--via`"))
            .help("write `ports`, `peer` or `peer:PORT`")),
    }
}

fn advertise(text: &str) -> Result<IpAddr, Mistake> {
    let mistake = || Mistake::new(format!("invalid address `{text}` of this host"));
    let text = text.trim_start_matches('[').trim_end_matches(']');
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
        Ok(_) => Err(mistake().help("write one address of this host, such as `10.0.0.5`")),
        Err(_) => Err(mistake().help("write an IP address without a port, such as `10.0.0.5`")),
    }
}

/// Parses a TTL. Registries use whole seconds.
fn ttl(text: &str) -> Result<Duration, Mistake> {
    let ttl = duration(text)?;
    if ttl < TTL_MIN || ttl > TTL_MAX || ttl.subsec_nanos() != 0 {
        return Err(Mistake::new(format!("invalid TTL `{text}`"))
            .help("write whole seconds from `2s` to `1h`, such as `10s`"));
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests;
