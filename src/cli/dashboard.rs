//! `ambassador dashboard`.

use super::request::AdminArgs;
use super::{block_on, err, fail, out, request};
use crate::config::vars::Vars;
use crate::exit::Exit;
use crate::web::{Dashboard, DashboardError};

/// The examples below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  ambassador dashboard
  ambassador dashboard --admin unix:/run/ambassador/admin.sock --port 9700

On another host, over SSH:
  ssh -t -L 9700:127.0.0.1:9700 HOST ambassador dashboard --port 9700

To serve the page from the ambassador itself, for example in a container, start it with --web.";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DashboardArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Port on 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
}

/// Serves the page until it is interrupted.
pub(super) fn run(args: &DashboardArgs, vars: &Vars) -> Exit {
    let choice = match args.admin.choice(vars) {
        Ok(choice) => choice,
        Err(mistake) => {
            err(&mistake.to_string());
            return Exit::Usage;
        }
    };
    let served = block_on(async {
        let dashboard = Dashboard::bind(choice, args.port).await?;
        let address = dashboard.address().unwrap_or_default();
        out(&format!("{address}\n"));
        err("Open this address in a browser on this host. Ctrl-C ends the page.");
        dashboard.serve().await;
        Ok(())
    });
    match served {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(DashboardError::Ambassador(error))) => request::unanswered(&error),
        Ok(Err(error)) => {
            err(&error.to_string());
            Exit::Unavailable
        }
        Err(error) => fail(&error.to_string()),
    }
}
