//! The whole program: built, with every address bound, and then run until it is told to stop.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, Admin, Knows};
use crate::cluster::acquire::HoldLimit;
use crate::config::{self, AdminAddr, Config};
use crate::discovery::file::File;
use crate::discovery::follow;
use crate::drain::Control;
use crate::events::Events;
use crate::fd_budget::FdBudget;
use crate::listener::BindError;
use crate::reconcile::{Overview, Reconciler};
use crate::session::Shared;
use crate::stall::StallMonitor;
use crate::worker::Workers;

/// How long forced sessions may take to write their last log line.
const FORCE_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bind(Vec<BindError>),
    #[error("{0}")]
    Admin(#[from] admin::BindError),
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// An ambassador that owns its addresses and serves from [`Bound::run`] on.
pub struct Bound {
    reconciler: Reconciler,
    admin: Admin,
    control: Control,
    drain_timeout: Duration,
    _file: Option<AbortOnDropHandle<()>>,
    _stalls: StallMonitor,
}

/// Binds what can be bound and starts what must be running before the first session.
pub async fn build(config: Config) -> Result<Bound, BuildError> {
    build_watched(config, StallMonitor::start()?).await
}

/// The same, with a monitor that watches this thread already.
pub async fn build_watched(config: Config, stalls: StallMonitor) -> Result<Bound, BuildError> {
    for warning in &config.warnings {
        tracing::warn!("{}", warning.one_line());
    }
    // On TCP it listens beside the unix socket.
    let admins = if matches!(config.settings.admin, Some(AdminAddr::Tcp(_))) { 2 } else { 1 };
    let fds = Arc::new(FdBudget::within(raised_file_limit(), config.settings.workers.get(), admins));
    let control = Control::default();
    let shared = Arc::new(Shared {
        hold_limit: HoldLimit::new(config.settings.max_held),
        force: control.force.clone(),
        stop: control.stop.clone(),
        fds,
        access_log: config.settings.access_log,
    });
    let workers = Workers::start(config.settings.workers, &shared, &stalls)?;
    let events = Arc::new(Events::default());
    let mut reconciler =
        Reconciler::new(config.clone(), workers, shared, &control, events.clone(), stalls.counts());
    reconciler.begin().await.map_err(BuildError::Bind)?;
    let knows = Knows {
        overview: reconciler.overview(),
        commands: reconciler.commands(),
        events: events.clone(),
        stop: control.stop.clone(),
        started: SystemTime::now(),
    };
    let admin = Admin::bind(&admin::Choice::of(&config), &config.settings.admin_hosts, knows)?;
    let path = config.path.filter(|path| !config::is_own_descriptor(path));
    let routes = reconciler.overview().load().routes.len();
    tracing::info!(
        routes,
        admin = admin.addrs().join(","),
        "ambassador {} started",
        env!("CARGO_PKG_VERSION")
    );
    let file = path.map(|path| File { path, reload: control.reload.clone(), events: events.clone() });
    let file = file.map(|file| follow(file, reconciler.news()));
    Ok(Bound {
        reconciler,
        admin,
        control,
        drain_timeout: config.settings.drain_timeout,
        _file: file,
        _stalls: stalls,
    })
}

/// Two descriptors a session: as many as the administrator allows, not the shell's default of 1,024.
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
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    pub fn overview(&self) -> Arc<ArcSwap<Overview>> {
        self.reconciler.overview()
    }

    /// The first address of the route of this name.
    pub fn addr(&self, route: &str) -> Option<SocketAddr> {
        let overview = self.reconciler.overview().load_full();
        let view = overview.routes.iter().find(|view| view.route.options.name == route)?;
        view.addrs.first().copied()
    }

    /// Serves until `control.stop`, then lets sessions finish for the drain timeout, then ends them.
    pub async fn run(self) {
        let Bound { mut reconciler, admin, control, drain_timeout, _file, _stalls } = self;
        let _admin = admin.serve();
        reconciler.run_until(control.stop.cancelled()).await;
        let Some(workers) = reconciler.stop_listening() else { return };
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

/// A worker that hangs does not keep the process: nothing here waits for its thread.
async fn force(force: &CancellationToken, finished: Pin<&mut impl Future<Output = ()>>) {
    force.cancel();
    if tokio::time::timeout(FORCE_GRACE, finished).await.is_err() {
        tracing::error!("sessions did not end when told to");
    }
}
