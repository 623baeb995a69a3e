//! The last snapshot of every source, and the routes and endpoints that follow from them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::docker::labels::Policy;
use super::docker::links::OwnLinks;
use super::docker::named::{NamedRoutes, named_routes};
use super::docker::{DockerSnapshot, Resolution, Selector};
use super::{ENDPOINTS_MAX, Snapshot};
use crate::address::{BACKUP_TIER, EndpointAddr, EndpointSpec, Identity};
use crate::diagnostic::Diagnostic;
use crate::ordered::CollectOrdered;
use crate::route::{Layer, Options, PeerHost, PeerTarget, Route, Target, TlsHost};

/// The last snapshots. A source without a snapshot yet is `None` or absent, which differs from an empty snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiscoveryState {
    pub(crate) file: Layer,
    pub(crate) docker: Option<DockerSnapshot>,
    /// The links of our own container, including those that Docker has deleted.
    pub(crate) links: OwnLinks,
    /// The endpoints of each target that has a source of its own.
    pub(crate) targets: BTreeMap<Target, Resolution>,
}

/// The endpoints of one route, and why others are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) endpoints: Vec<EndpointSpec>,
    pub(crate) problems: Vec<String>,
}

impl Resolved {
    /// Removes the endpoints that are peers, for a process without credentials for peers.
    pub(crate) fn remove_peers(&mut self) {
        let is_peer = |endpoint: &EndpointSpec| matches!(endpoint.key.addr, EndpointAddr::Peer(_));
        if let Some(first) = self.endpoints.iter().find(|endpoint| is_peer(endpoint)) {
            let problem = format!("{}: not used, because there are no credentials for peers", first.key);
            self.problems.push(problem);
            self.endpoints.retain(|endpoint| !is_peer(endpoint));
        }
    }
}

/// The routes of Docker's containers, in the order of precedence.
#[derive(Clone, Debug, Default)]
pub(crate) struct DockerLayers {
    pub(crate) layers: Vec<Layer>,
    pub(crate) mistakes: Vec<Diagnostic>,
    /// Configured names that do not exist yet.
    pub(crate) notices: Vec<String>,
}

const NO_ROUTE: &str = "Docker answered, but no container asks for a route: give one a label \
                        (ambassador.listen.6379=6379), or write a route";

impl DiscoveryState {
    /// Replaces the last snapshot of a source.
    pub(crate) fn apply(&mut self, snapshot: Snapshot) {
        match snapshot {
            Snapshot::File(routes) => self.file = Layer { routes },
            Snapshot::Docker(containers) => {
                self.links.update(&containers);
                self.docker = Some(containers.into());
            }
            Snapshot::Target { target, endpoints, problem } => {
                let problem = problem.or_else(|| endpoints.is_empty().then(|| "has no endpoint".to_owned()));
                let problems = problem.into_iter().map(|why| format!("{target}: {why}")).collect();
                self.targets.insert(target, Resolution { endpoints, problems });
            }
        }
    }

    /// Returns the routes from Docker: those of `-name`, and, with a policy, the implicit ones of links and labels. If there are no
    /// routes at all, `written` ones included, that is a notice.
    pub(crate) fn docker_layers(
        &self,
        names: &[String],
        implicit: Option<&Policy<'_>>,
        written: &[Layer],
    ) -> DockerLayers {
        let Some(docker) = &self.docker else { return DockerLayers::default() };
        let NamedRoutes { routes, mistakes, mut notices } = named_routes(names, docker);
        let mut found = vec![(routes, mistakes)];
        if let Some(policy) = implicit {
            found.push(self.links.routes());
            found.push(docker.labels().routes(policy));
            let is_empty = |(routes, mistakes): &(Vec<_>, Vec<_>)| routes.is_empty() && mistakes.is_empty();
            let is_written = written.iter().any(|layer| !layer.routes.is_empty());
            if names.is_empty() && !is_written && found.iter().all(is_empty) {
                notices.push(NO_ROUTE.to_owned());
            }
        }
        let (layers, mistakes): (Vec<_>, Vec<_>) =
            found.into_iter().map(|(routes, mistakes)| (Layer { routes }, mistakes)).unzip();
        DockerLayers { layers, mistakes: mistakes.concat(), notices }
    }

    /// Returns the endpoints of a route. An endpoint of several targets is used once, in the lowest of its tiers.
    pub(crate) fn resolve(&self, route: &Route) -> Resolved {
        let mut resolved = Resolved::default();
        let mut known = HashSet::new();
        let backup = route.options.backup.iter().map(|target| (target, BACKUP_TIER));
        for (target, tier) in route.targets.iter().map(|target| (target, 0)).chain(backup) {
            let Resolution { endpoints, problems } = self.resolve_target(route, target);
            let (endpoints, beyond) = within_range(route, endpoints);
            resolved.problems.extend(beyond);
            for mut endpoint in endpoints {
                let Options { identity, sni, ca, cert, .. } = &route.options;
                endpoint.key.addr.verify_with(sni.as_deref(), ca.as_deref(), cert.as_deref());
                if let Some(identity) = identity {
                    endpoint.key.addr.require_identity(identity);
                }
                if known.insert(endpoint.key.clone()) {
                    resolved.endpoints.push(EndpointSpec { tier: endpoint.tier + tier, ..endpoint });
                }
            }
            resolved.problems.extend(problems);
        }
        resolved
    }

    fn resolve_target(&self, route: &Route, target: &Target) -> Resolution {
        match target {
            Target::Addr(addr) => one(EndpointAddr::Inet(*addr)),
            Target::Unix(path) => one(EndpointAddr::Unix(path.clone())),
            Target::Peer(PeerTarget { host: PeerHost::Addr(addr), export }) => {
                one(EndpointAddr::peer_at(*addr, export))
            }
            Target::Tls(TlsHost::Addr(addr)) => one(EndpointAddr::tls(*addr, &addr.ip().to_string())),
            Target::Docker { name, port } => {
                self.resolve_containers(route, target, Selector::Name(name), *port)
            }
            Target::Labelled { key, value, port } => {
                let selector = Selector::Label { key, value: value.as_deref() };
                self.resolve_containers(route, target, selector, *port)
            }
            _ => match self.targets.get(target) {
                None => problem(format!("{target}: not known yet")),
                Some(Resolution { endpoints, .. }) if endpoints.len() > ENDPOINTS_MAX => Resolution {
                    endpoints: endpoints.iter().take(ENDPOINTS_MAX).cloned().collect(),
                    problems: vec![format!(
                        "{target}: only the first {ENDPOINTS_MAX} of its endpoints are used"
                    )],
                },
                Some(known) => known.clone(),
            },
        }
    }

    fn resolve_containers(
        &self,
        route: &Route,
        target: &Target,
        selector: Selector<'_>,
        port: Option<u16>,
    ) -> Resolution {
        let listen = &route.listen;
        match &self.docker {
            Some(containers) => containers.resolve(selector, port, listen.first_port(), listen.protocol()),
            None => problem(format!("{target}: Docker has not answered yet")),
        }
    }
}

/// Returns the endpoints that have a port for each port of the listener, and why the others are not used.
fn within_range(route: &Route, endpoints: Vec<EndpointSpec>) -> (Vec<EndpointSpec>, Option<String>) {
    let has_all = |endpoint: &EndpointSpec| match &endpoint.key.addr {
        EndpointAddr::Inet(addr) => route.listen.has_counterparts_from(addr.port()),
        EndpointAddr::Tls(tls) => route.listen.has_counterparts_from(tls.addr.port()),
        EndpointAddr::Unix(_) | EndpointAddr::Peer(_) => route.listen.count() == 1,
    };
    let (within, beyond): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(has_all);
    let problem = beyond.first().map(|first| {
        let (count, ports) = (beyond.len(), route.listen.count());
        let why = match first.key.addr {
            EndpointAddr::Inet(_) | EndpointAddr::Tls(_) => {
                format!("{ports} ports from there would exceed 65535")
            }
            EndpointAddr::Unix(_) | EndpointAddr::Peer(_) => {
                "it has no ports for those of the listener".to_owned()
            }
        };
        format!("{}: not used, because {why} (such endpoints: {count})", first.key)
    });
    (within, problem)
}

/// Returns the targets of these routes that have a source of their own.
pub(crate) fn followed<'r>(routes: impl Iterator<Item = &'r Route>) -> BTreeSet<Target> {
    routes.flat_map(Route::all_targets).filter(|target| target.is_followed()).cloned().collect_ordered()
}

fn one(addr: EndpointAddr) -> Resolution {
    Resolution { endpoints: vec![EndpointSpec::new(addr, Identity::Literal)], problems: Vec::new() }
}

fn problem(text: String) -> Resolution {
    Resolution { endpoints: Vec::new(), problems: vec![text] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{PeerName, PeerVia, Scheme};
    use crate::diagnostic::Place;
    use crate::route::{Listen, PortRange, Protocol};

    fn route(targets: Vec<Target>) -> Route {
        let listen = Listen::Inet { protocol: Protocol::Tcp, ip: None, ports: PortRange::single(6379) };
        Route::new(listen, targets, Place::Built)
    }

    fn redis() -> Target {
        Target::Host { host: "redis".to_owned(), port: 6379 }
    }

    #[test]
    fn every_address_of_a_name_is_an_endpoint_and_equal_targets_are_merged() {
        let mut state = DiscoveryState::default();
        let addrs = ["10.0.0.1:6379", "[fd00::1]:6379"];
        let endpoint = |addr: &str| {
            EndpointSpec::new(EndpointAddr::Inet(addr.parse().unwrap()), Identity::Name("redis".to_owned()))
        };
        state.apply(Snapshot::Target {
            target: redis(),
            endpoints: addrs.map(endpoint).to_vec(),
            problem: None,
        });
        let mut route = route(vec![redis(), redis()]);
        route.options.backup = vec![redis(), Target::Unix("/run/x".into())];
        let resolved = state.resolve(&route);
        let found: Vec<_> = resolved.endpoints.iter().map(|e| (e.key.addr.to_string(), e.tier)).collect();
        assert_eq!(
            found,
            [(addrs[0].to_owned(), 0), (addrs[1].to_owned(), 0), ("unix:/run/x".to_owned(), BACKUP_TIER)]
        );
        assert_eq!(resolved.problems, [""; 0]);
    }

    #[test]
    fn identity_replaces_the_host_for_all_peers_that_are_dialled() {
        use crate::config::grammar::parse_route;
        let mut state = DiscoveryState::default();
        let keys = Target::File("/f".into());
        let [first, second] = ["10.0.0.1:15008", "10.0.0.2:15008"].map(|addr| addr.parse().unwrap());
        let endpoints = [
            EndpointAddr::of_host(first, "host1", &Scheme::Peer("redis".to_owned())),
            EndpointAddr::reverse_peer("laptop", [10, 0, 0, 9].into(), "redis"),
            EndpointAddr::Inet(first),
        ]
        .map(|addr| EndpointSpec::new(addr, Identity::Key("f".to_owned())));
        state.apply(Snapshot::Target { target: keys, endpoints: endpoints.to_vec(), problem: None });
        let resolved = |options: &str| -> Vec<EndpointAddr> {
            let line = format!("80=file:/f,peer://10.0.0.2/redis{options}");
            let resolved = state.resolve(&parse_route(&line, &Place::Built).unwrap());
            resolved.endpoints.into_iter().map(|endpoint| endpoint.key.addr).collect()
        };
        let mut expected = endpoints.map(|endpoint| endpoint.key.addr).to_vec();
        expected.push(EndpointAddr::peer_at(second, "redis"));
        assert_eq!(resolved(""), expected);
        expected.iter_mut().for_each(|addr| addr.require_identity("redis"));
        assert_eq!(resolved("?identity=redis"), expected);
        let shown = |addr: &EndpointAddr| {
            matches!(addr, EndpointAddr::Peer(peer)
            if matches!(&peer.via, PeerVia::Dial { name: PeerName::Identity(name), .. } if name == "redis"))
        };
        assert_eq!(expected.iter().map(shown).collect::<Vec<_>>(), [true, false, false, true]);
    }

    #[test]
    fn endpoints_beyond_the_limit_are_a_problem_and_not_used() {
        let mut state = DiscoveryState::default();
        let endpoint = |n: u32| {
            let addr = EndpointAddr::Inet((std::net::Ipv4Addr::from_bits(n), 6379).into());
            EndpointSpec::new(addr, Identity::Name("redis".to_owned()))
        };
        let endpoints = (0..=16_384).map(endpoint).collect();
        state.apply(Snapshot::Target { target: redis(), endpoints, problem: None });
        let resolved = state.resolve(&route(vec![redis()]));
        assert_eq!(resolved.endpoints.len(), ENDPOINTS_MAX);
        assert_eq!(resolved.problems, ["redis:6379: only the first 16384 of its endpoints are used"]);
    }

    #[test]
    fn endpoint_without_a_port_for_each_of_a_range_is_not_used() {
        let mut state = DiscoveryState::default();
        let endpoint =
            |addr: &str| EndpointSpec::new(EndpointAddr::Inet(addr.parse().unwrap()), Identity::Literal);
        let endpoints = ["10.0.0.1:65534", "10.0.0.2:65535", "10.0.0.3:65535"].map(endpoint).to_vec();
        state.apply(Snapshot::Target { target: redis(), endpoints, problem: None });
        let mut route = route(vec![redis()]);
        assert_eq!(state.resolve(&route).endpoints.len(), 3);
        let ports = PortRange { first: 8000, last: 8001 };
        route.listen = Listen::Inet { protocol: Protocol::Tcp, ip: None, ports };
        let Resolved { endpoints, problems } = state.resolve(&route);
        assert_eq!(endpoints.len(), 1);
        assert!(problems[0].contains("10.0.0.2:65535") && problems[0].contains(": 2)"), "{problems:?}");

        let peer = EndpointAddr::peer_at("10.0.0.1:15008".parse().unwrap(), "redis");
        let endpoints = vec![EndpointSpec::new(peer, Identity::Literal)];
        state.apply(Snapshot::Target { target: redis(), endpoints, problem: None });
        let Resolved { endpoints, problems } = state.resolve(&route);
        assert!(endpoints.is_empty() && problems[0].contains("it has no ports"), "{problems:?}");
    }

    #[test]
    fn target_without_endpoint_is_a_problem_with_the_reason_of_its_source() {
        let mut state = DiscoveryState::default();
        for (problem, expected) in
            [(None, "redis:6379: has no endpoint"), (Some("no such name"), "redis:6379: no such name")]
        {
            let problem = problem.map(str::to_owned);
            state.apply(Snapshot::Target { target: redis(), endpoints: Vec::new(), problem });
            assert_eq!(state.resolve(&route(vec![redis()])).problems, [expected]);
        }
    }

    #[test]
    fn labels_of_a_snapshot_are_parsed_once() {
        use crate::discovery::docker::fixtures::{container, engine, labelled};
        use crate::discovery::docker::labels::tests::PARSED;

        let parsed = || PARSED.get();
        let containers = |port: &str| {
            let label = [("ambassador.listen.80", port)];
            Snapshot::Docker(std::sync::Arc::new(engine([("a", labelled(container("web", 2), &label))])))
        };
        let mut state = DiscoveryState::default();
        let target = |state: &mut DiscoveryState| {
            let layers = state.docker_layers(&[], Some(&Policy::default()), &[]).layers;
            layers.last().unwrap().routes[0].targets[0].to_string()
        };
        let before = parsed();
        state.apply(containers("81"));
        assert!(target(&mut state).ends_with(":81"));
        for n in 1..100 {
            let endpoints = vec![EndpointSpec::new(EndpointAddr::Unix("/x".into()), Identity::Literal); n];
            state.apply(Snapshot::Target { target: redis(), endpoints, problem: None });
            target(&mut state);
        }
        assert_eq!(parsed() - before, 1);
        state.apply(containers("82"));
        assert!(target(&mut state).ends_with(":82"));
        assert_eq!(parsed() - before, 2);
    }

    #[test]
    fn target_without_a_snapshot_is_a_problem() {
        let targets = vec![redis(), Target::Docker { name: "redis".to_owned(), port: None }];
        let resolved = DiscoveryState::default().resolve(&route(targets.clone()));
        assert_eq!((resolved.endpoints.len(), resolved.problems.len()), (0, 2));
        assert_eq!(followed([route(targets)].iter()), BTreeSet::from([redis()]));
    }
}
