//! `ambassador peer check`: what stands between this host and an export of a peer, step by step.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{block_on, err, fail, out, out_escaped};
use crate::address::PeerName;
use crate::config::args::CredentialFlags;
use crate::config::grammar::options::duration;
use crate::config::grammar::peer::identity;
use crate::config::grammar::target::{PeerAt, peer_at};
use crate::config::peer::PeerSettings;
use crate::config::peer_settings;
use crate::config::vars::Vars;
use crate::credentials::{CredentialKind, Credentials, CredentialsError};
use crate::diagnostic::{Diagnostic, Place};
use crate::discovery::dns::Resolver;
use crate::exit::Exit;
use crate::observe::config as show;
use crate::observe::table::aligned;
use crate::tunnel::{Probe, Step};

/// Addresses of a name that are checked.
const ADDRS_MAX: usize = 16;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The peer, and the export to open a session with
    #[arg(value_name = "HOST[:PORT][/NAME]")]
    peer: String,
    /// Identity that the certificate of the peer must have, as the option `identity` of a route
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// How long each step may take
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    timeout: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    credentials: CredentialFlags,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  Check a peer, and that its export `redis` can be used:
    ambassador peer check --peer-secret-file secret host1/redis
  Check only the tunnel, on another port:
    ambassador peer check --peer-cert host2.pem --peer-ca ca.pem host1:15009";

/// What to check, and with what.
struct Plan {
    peer: PeerAt,
    settings: PeerSettings,
    identity: Option<String>,
    limit: Duration,
}

pub(super) fn check(args: &CheckArgs, vars: &Vars) -> Exit {
    let plan = match plan(args, vars) {
        Ok(plan) => plan,
        Err(mistakes) => {
            let text = show::mistakes(&mistakes, args.json);
            if args.json {
                out(&text);
            } else {
                err(&text);
            }
            return Exit::Usage;
        }
    };
    let steps = match block_on(run(&plan)) {
        Ok(steps) => steps,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    if args.json {
        let PeerAt { host, port, export } = &plan.peer;
        out(&format!("{:#}\n", json!({ "host": host, "port": port, "export": export, "steps": steps })));
    } else {
        out_escaped(&table(&steps));
    }
    if steps.iter().all(|step| step.ok) { Exit::Done } else { Exit::Failed }
}

fn plan(args: &CheckArgs, vars: &Vars) -> Result<Plan, Vec<Diagnostic>> {
    let (settings, mut mistakes) = match peer_settings(&args.credentials.0, vars) {
        Ok(settings) => (settings, Vec::new()),
        Err(mistakes) => (PeerSettings::default(), mistakes),
    };
    let peer = peer_at(&args.peer).map_err(|mistake| mistake.at(&Place::Argument(1)));
    let limit = duration(&args.timeout).map_err(|mistake| mistake.at(&Place::Flag("timeout".to_owned())));
    let identity = args.identity.as_deref().map(identity).transpose();
    let identity = identity.map_err(|mistake| mistake.at(&Place::Flag("identity".to_owned())));
    match (peer, identity, limit) {
        (Ok(peer), Ok(identity), Ok(limit)) if mistakes.is_empty() => {
            Ok(Plan { peer, settings, identity, limit })
        }
        (peer, identity, limit) => {
            mistakes.extend(peer.err().into_iter().chain(identity.err()).chain(limit.err()));
            Err(mistakes)
        }
    }
}

async fn run(Plan { peer, settings, identity, limit }: &Plan) -> Vec<Step> {
    let credentials = match Credentials::load(settings.credential_files().unwrap_or_default()) {
        Ok(credentials) => Arc::new(credentials),
        Err(error) => return vec![unusable(&error)],
    };
    let mut steps = vec![own(&credentials)];
    let addrs = match addresses(&peer.host, peer.port).await {
        Ok(addrs) => addrs,
        Err(why) => {
            let help = "check the name, and the name servers of /etc/resolv.conf";
            steps.push(Step::failed("dns", why, Some(help)));
            return steps;
        }
    };
    let shown: Vec<String> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
    steps.push(Step::done("dns", format!("{}: {}", peer.host, shown.join(", "))));
    let name = match identity {
        Some(identity) => PeerName::Identity(identity.clone()),
        None => PeerName::Host(peer.host.clone()),
    };
    let probe = Probe { credentials, name, export: peer.export.clone(), limit: *limit };
    for addr in addrs {
        steps.extend(probe.run(addr).await);
    }
    steps
}

fn own(credentials: &Credentials) -> Step {
    let kind = match credentials.kind() {
        CredentialKind::Secret => "a shared secret",
        CredentialKind::OwnCa => "certificates of `ambassador ca`",
        CredentialKind::ForeignCa => "certificates of another CA",
    };
    Step::done("credentials", format!("{kind}; peers see this host as {}", credentials.identity().identity))
}

fn unusable(error: &CredentialsError) -> Step {
    match error {
        CredentialsError::Files(mistake) => {
            let Diagnostic { place, message, help } = &**mistake;
            Step::failed("credentials", format!("{place}: {message}"), help.as_deref())
        }
        other => Step::failed("credentials", other.to_string(), None),
    }
}

/// Returns the addresses of a host, which are all checked.
async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let addresses = Resolver::from_system().addresses(host).await?;
    if addresses.is_empty() {
        return Err(format!("{host}: no address"));
    }
    Ok(addresses.into_iter().take(ADDRS_MAX).map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Returns a line for each step, and one for what to do about a failure.
fn table(steps: &[Step]) -> String {
    let row = |Step { step, ok, result, .. }: &Step| {
        [(*step).to_owned(), if *ok { "ok" } else { "failed" }.to_owned(), result.clone()]
    };
    let rows: Vec<_> = steps.iter().map(row).collect();
    let lines = aligned(&rows);
    let help = |step: &Step| step.help.as_ref().map(|help| format!("  help: {help}\n")).unwrap_or_default();
    lines.lines().zip(steps).map(|(line, step)| format!("{line}\n{}", help(step))).collect()
}
