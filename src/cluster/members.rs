//! The endpoints and the policy of a cluster at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::condition::Preference;
use super::endpoint::Endpoint;
use crate::address::{EndpointKey, EndpointSpec};
use crate::balancer::Plan;
use crate::limit::RateLimit;
use crate::ordered::CollectOrdered;
use crate::route::{Balance, Options};

/// The endpoints and the policy of a cluster. Replaced as a whole.
#[derive(Debug)]
pub struct Members {
    /// The options of the route.
    pub options: Options,
    /// Limits new sessions per client. Carried over when the members are replaced.
    pub(crate) rate: Option<Arc<RateLimit>>,
    /// The tiers in ascending order; none is empty.
    pub tiers: Vec<Tier>,
}

/// Endpoints of equal priority. A tier is tried after those before it.
#[derive(Debug)]
pub struct Tier {
    /// As in [`EndpointSpec::tier`].
    pub number: u32,
    /// The endpoints, sorted by key.
    pub members: Vec<Member>,
    /// The balancer's plan over the members of each [`Preference`].
    plans: [Option<Plan>; 3],
}

/// An endpoint in a tier.
#[derive(Clone, Debug)]
pub struct Member {
    /// The endpoint, shared with earlier and later members.
    pub endpoint: Arc<Endpoint>,
    /// As in [`EndpointSpec::weight`].
    pub weight: u32,
}

/// The endpoints that joined and left a cluster in one update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange {
    /// Endpoints that are new.
    pub joined: Vec<EndpointKey>,
    /// Endpoints that are gone.
    pub left: Vec<EndpointKey>,
}

pub(super) type ByKey<'m> = BTreeMap<&'m EndpointKey, &'m Arc<Endpoint>>;

impl Members {
    /// Returns every member with its tier, in the order of the tiers.
    pub fn all(&self) -> impl Iterator<Item = (&Tier, &Member)> {
        self.tiers.iter().flat_map(|tier| tier.members.iter().map(move |member| (tier, member)))
    }

    /// Returns whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Returns whether exactly this endpoint is a member and takes new sessions.
    pub(super) fn takes_sessions(&self, endpoint: &Endpoint) -> bool {
        self.all().any(|(_, member)| std::ptr::eq(&*member.endpoint, endpoint) && member.weight > 0)
    }

    pub(super) fn by_key(&self) -> ByKey<'_> {
        self.all().map(|(_, member)| (&member.endpoint.key, &member.endpoint)).collect()
    }

    pub(super) fn specs(&self) -> BTreeSet<EndpointSpec> {
        let spec = |(tier, member): (&Tier, &Member)| EndpointSpec {
            key: member.endpoint.key.clone(),
            weight: member.weight,
            tier: tier.number,
        };
        self.all().map(spec).collect_ordered()
    }

    pub(super) fn change_to(&self, new: &Members) -> MembershipChange {
        let (before, after) = (self.by_key(), new.by_key());
        let only_in = |these: &ByKey<'_>, others: &ByKey<'_>| -> Vec<EndpointKey> {
            these.keys().filter(|key| !others.contains_key(*key)).map(|key| (*key).clone()).collect()
        };
        MembershipChange { joined: only_in(&after, &before), left: only_in(&before, &after) }
    }
}

impl Tier {
    /// Creates a tier, with a plan for each preference that one of its members has now.
    pub(super) fn new(number: u32, members: Vec<Member>, balance: Balance) -> Tier {
        let preferences: Vec<Preference> =
            members.iter().map(|member| member.endpoint.preference()).collect();
        let plan = |preference| {
            let weight = |(member, its): (&Member, &Preference)| {
                if *its == preference { member.weight } else { 0 }
            };
            let weights: Box<[u32]> = members.iter().zip(&preferences).map(weight).collect();
            let takes_sessions = weights.iter().any(|weight| *weight > 0);
            takes_sessions.then(|| {
                Plan::new(balance, weights, members.iter().map(|member| hashed_name(&member.endpoint.key)))
            })
        };
        let plans = Preference::ALL
            .map(|preference| preferences.contains(&preference).then(|| plan(preference)).flatten());
        Tier { number, members, plans }
    }

    /// Returns the plan over the members of this preference, or `None` if none of them takes sessions.
    pub(super) fn plan(&self, preference: Preference) -> Option<&Plan> {
        self.plans.get(preference as usize)?.as_ref()
    }
}

/// Returns the address without the identity, so that all ambassadors send a client to the same endpoint, whatever their
/// sources are.
fn hashed_name(key: &EndpointKey) -> String {
    key.addr.to_string()
}
