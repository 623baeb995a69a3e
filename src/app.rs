//! The application: built, with every address bound, then run until it is stopped.

mod peers;
mod sampler;
mod tls;

use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, Admin, AdminState};
use crate::cluster::acquire::HoldLimit;
use crate::config::{self, AdminAddr, Config};
use crate::diagnostic::Diagnostic;
use crate::discovery::file::File;
use crate::discovery::follow;
use crate::drain::Control;
use crate::events::Events;
use crate::fd_budget::FdBudget;
use crate::listener::BindError;
use crate::reconcile::{Overview, Reconciler};
use crate::route::Protocol;
use crate::session::Shared;
use crate::session::exports::Exports;
use crate::stall::StallMonitor;
use crate::tls::Tls;
use crate::tunnel::{Peers, Pool};
use crate::web::{Web, WebError};
use crate::worker::Workers;
pub use peers::read_credentials;
pub use tls::read_certificates;

/// Time in which sessions that are forced to end may write their last log line.
const FORCE_GRACE: Duration = Duration::from_secs(2);

/// Why the application cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Listeners of routes that cannot be bound.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bind(Vec<BindError>),
    /// The address of the admin API cannot be bound.
    #[error("{0}")]
    Admin(#[from] admin::BindError),
    /// The web page cannot be served.
    #[error("{0}")]
    Web(#[from] WebError),
    /// The credentials for peers cannot be used, or do not permit a route.
    #[error("{}", .0.iter().map(Diagnostic::one_line).collect::<Vec<_>>().join("; "))]
    Peers(Vec<Diagnostic>),
    /// Certificates of routes, or CAs, cannot be used.
    #[error("{}", .0.iter().map(Diagnostic::one_line).collect::<Vec<_>>().join("; "))]
    Tls(Vec<Diagnostic>),
    /// A thread cannot be started.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// An ambassador that has bound its addresses. [`Bound::run`] serves them.
pub struct Bound {
    reconciler: Reconciler,
    admin: Admin,
    web: Option<Web>,
    control: Control,
    drain_timeout: Duration,
    tunnels: Arc<Peers>,
    _tasks: Vec<AbortOnDropHandle<()>>,
    _stalls: StallMonitor,
}

/// Binds the addresses, and starts what must run before the first session.
///
/// # Errors
///
/// Returns an error if an address cannot be bound or a thread cannot be started.
pub async fn build(config: Config) -> Result<Bound, BuildError> {
    build_watched(config, StallMonitor::start()?).await
}

/// As [`build`], with a monitor that already watches this thread.
pub async fn build_watched(mut config: Config, stalls: StallMonitor) -> Result<Bound, BuildError> {
    for warning in &config.warnings {
        tracing::warn!("{}", warning.one_line());
    }
    let control = Control::default();
    let events = Arc::new(Events::default());
    let tunnels = Arc::new(peers::load(&mut config, events.clone()).map_err(BuildError::Peers)?);
    let certificates = Arc::new(read_certificates(&config).map_err(BuildError::Tls)?);
    let shared = Arc::new(shared(&config, &control, tunnels.clone(), certificates.clone()));
    // For health checks, which run on this thread.
    Pool::enter(tunnels.clone());
    certificates.clone().enter();
    let workers = Workers::start(config.settings.workers, &shared, &stalls)?;
    let mut reconciler =
        Reconciler::new(config.clone(), workers, shared, &control, events.clone(), stalls.counts());
    reconciler.begin().await.map_err(BuildError::Bind)?;
    let state = admin_state(&reconciler, &control, events.clone());
    let web = Web::bind(&config, state.clone())?;
    let admin = Admin::bind(&admin::Choice::of(&config), &config.settings.admin_hosts, state)?;
    let path = config.path.filter(|path| !config::is_own_descriptor(path));
    let routes = reconciler.overview().load().routes.len();
    tracing::info!(
        routes,
        admin = admin.addrs().join(","),
        web = web.as_ref().and_then(Web::addr).map(tracing::field::display),
        "ambassador {} started",
        env!("CARGO_PKG_VERSION")
    );
    let file = path.map(|path| File {
        path,
        reload: control.reload.clone(),
        events: events.clone(),
        peer: config.settings.peer.clone(),
        tls: certificates.clone(),
        has_certificates: config.certificates_of_file,
    });
    let mut tasks: Vec<_> = file.map(|file| follow(file, reconciler.updates())).into_iter().collect();
    tasks.extend(peers::follow_credentials(&tunnels));
    tasks.push(sample(&reconciler, events.clone()));
    tasks.push(tls::follow(certificates, events));
    for peer in &config.settings.peer.dial {
        let (dial, lookups) = peers::follow_peer(peer, config.settings.dns, control.stop.clone());
        reconciler.dial_reverse(&dial);
        tasks.extend(lookups);
    }
    Ok(Bound {
        reconciler,
        admin,
        web,
        control,
        drain_timeout: config.settings.drain_timeout,
        tunnels,
        _tasks: tasks,
        _stalls: stalls,
    })
}

/// Creates what all sessions share.
fn shared(config: &Config, control: &Control, tunnels: Arc<Peers>, tls: Arc<Tls>) -> Shared {
    // With TCP there is a unix socket as well.
    let has_tcp = matches!(config.settings.admin, Some(AdminAddr::Tcp(_)));
    let admins = 1 + usize::from(has_tcp) + usize::from(config.settings.web.listen.is_some());
    let fds = Arc::new(FdBudget::within(raised_file_limit(), config.settings.workers.get(), admins));
    Shared {
        hold_limit: HoldLimit::new(config.settings.max_held),
        force: control.force.clone(),
        stop: control.stop.clone(),
        tunnel_fds: fds.route(Protocol::Tcp),
        fds,
        access_log: config.settings.access_log,
        peers: tunnels,
        exports: Exports::default(),
        tls,
        history: Arc::default(),
    }
}

/// Starts the task that records the history of the routes.
fn sample(reconciler: &Reconciler, events: Arc<Events>) -> AbortOnDropHandle<()> {
    let overview = reconciler.overview();
    let history = overview.load().history.clone();
    #[expect(clippy::disallowed_methods, reason = "its handle is returned, and ends it when dropped")]
    AbortOnDropHandle::new(tokio::spawn(sampler::run(history, overview, events)))
}

fn admin_state(reconciler: &Reconciler, control: &Control, events: Arc<Events>) -> AdminState {
    AdminState {
        overview: reconciler.overview(),
        commands: reconciler.commands(),
        events,
        stop: control.stop.clone(),
        started: SystemTime::now(),
    }
}

/// Raises the limit of open files to the maximum that the administrator allows, since a session takes two descriptors and the
/// usual default is 1,024. Returns the limit.
fn raised_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        if let Err(error) = raised {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

impl Bound {
    /// Returns the handles that stop the ambassador.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Returns what the control loop publishes.
    pub fn overview(&self) -> Arc<ArcSwap<Overview>> {
        self.reconciler.overview()
    }

    /// Returns the first address of the route of this name.
    pub fn addr(&self, route: &str) -> Option<SocketAddr> {
        let overview = self.reconciler.overview().load_full();
        let view = overview.routes.iter().find(|view| view.route.options.name == route)?;
        view.addrs.first().copied()
    }

    /// Serves until `control.stop`, lets sessions finish until the drain timeout, then ends them.
    pub async fn run(self) {
        let Bound { mut reconciler, admin, web, control, drain_timeout, tunnels, _tasks, _stalls } = self;
        let _admin = admin.serve();
        let _web = web.map(Web::serve);
        reconciler.run_until(control.stop.cancelled()).await;
        let Some(workers) = reconciler.stop_listening() else { return };
        tunnels.drain();
        let mut finished = pin!(workers.join());
        tokio::select! {
            () = reconciler.run_until(pending()) => {}
            () = &mut finished => {
                tracing::info!("drained");
                return;
            }
            () = tokio::time::sleep(drain_timeout) => tracing::warn!("drain timeout reached: resetting the remaining sessions"),
            () = control.force.cancelled() => {}
        }
        let sessions_cut = reconciler.sessions();
        force(&control.force, finished).await;
        tracing::warn!(sessions_cut, "drain ended");
    }
}

/// Ends all sessions. Does not wait for the threads of the workers: one that hangs must not keep the process alive.
async fn force(force: &CancellationToken, finished: Pin<&mut impl Future<Output = ()>>) {
    force.cancel();
    if tokio::time::timeout(FORCE_GRACE, finished).await.is_err() {
        tracing::error!("sessions did not end in time");
    }
}
