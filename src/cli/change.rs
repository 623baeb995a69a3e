//! A request that changes the running ambassador: executed, or tried with `--dry-run`.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::request::{self, RequestArgs};
use crate::admin::client::AdminRequest;
use crate::config::vars::Vars;
use crate::escape;
use crate::exit::Exit;

/// The options of a command that changes something.
#[derive(Clone, Debug, Args)]
pub(super) struct ChangeArgs {
    /// Print what the command does to sessions, endpoints and listeners, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) request: RequestArgs,
}

/// A request for a change.
#[derive(Debug)]
pub(super) struct ChangeRequest<'a> {
    pub(super) args: &'a ChangeArgs,
    pub(super) request: AdminRequest,
}

impl ChangeArgs {
    pub(super) fn post(&self, path: String, mut body: Value) -> ChangeRequest<'_> {
        body["dry_run"] = self.dry_run.into();
        ChangeRequest { args: self, request: AdminRequest::post(path, &body) }
    }

    pub(super) fn delete(&self, path: &str) -> ChangeRequest<'_> {
        let request = AdminRequest::get(format!("{path}?dry_run={}", self.dry_run));
        ChangeRequest { args: self, request: AdminRequest { method: hyper::Method::DELETE, ..request } }
    }
}

impl ChangeRequest<'_> {
    /// Sends the request and prints the message, after the effects for a dry run.
    pub(super) fn show(&self, vars: &Vars) -> Exit {
        request::show(&self.args.request, vars, &self.request, ChangeAnswer::text)
    }
}

/// The response to a change.
#[derive(Deserialize)]
struct ChangeAnswer {
    message: String,
    effects: Vec<String>,
    dry_run: bool,
}

impl ChangeAnswer {
    fn text(&self) -> String {
        let effects = self.effects.iter().filter(|_| self.dry_run);
        effects.chain([&self.message]).map(|line| format!("{}\n", escape::escaped(line))).collect()
    }
}
