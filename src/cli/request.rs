//! Requests to the running ambassador, and how their responses are shown.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{block_on, err, fail, out, out_escaped};
use crate::admin::address::Choice;
use crate::admin::client::{self, AdminRequest, AdminResponse, ClientError};
use crate::config;
use crate::config::suggest::nearest;
use crate::config::vars::Vars;
use crate::diagnostic::{Diagnostic, Place};
use crate::escape::escaped;
use crate::exit::Exit;
use crate::observe::status::Status;

/// The address of the running ambassador.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Admin address of the running ambassador: unix:/path, @name or HOST:PORT [env: AMBASSADOR_ADMIN] [default: found
    /// automatically]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

/// The address of the running ambassador, and the output format.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RequestArgs {
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl AdminArgs {
    pub(super) fn choice(&self, vars: &Vars) -> Result<Choice, Diagnostic> {
        let given = match (&self.admin, vars.value("AMBASSADOR_ADMIN")) {
            (Some(text), _) => Some(config::parse_admin(text, &Place::Flag("admin".to_owned()))?),
            (None, Some(text)) => {
                Some(config::parse_admin(text, &Place::Variable("AMBASSADOR_ADMIN".to_owned()))?)
            }
            (None, None) => None,
        };
        Ok(Choice::new(given, vars.value("XDG_RUNTIME_DIR").map(Path::new)))
    }
}

pub(super) fn health(admin: &AdminArgs, vars: &Vars) -> Exit {
    match send(admin, vars, &AdminRequest::get("/ready")) {
        Ok(answer) if answer.is_ok() => {
            out_escaped(&answer.body);
            Exit::Done
        }
        Ok(answer) => fail(answer.body.trim_end()),
        Err(exit) => exit,
    }
}

pub(super) fn status(args: &RequestArgs, vars: &Vars) -> Exit {
    show(args, vars, &AdminRequest::get("/status"), |status: &Status| status.table())
}

/// Sends a request and prints the response, as JSON or formatted by `format`.
pub(super) fn show<T: DeserializeOwned>(
    args: &RequestArgs,
    vars: &Vars,
    admin_request: &AdminRequest,
    format: impl Fn(&T) -> String,
) -> Exit {
    let answer = match send(&args.admin, vars, admin_request) {
        Ok(answer) if answer.is_ok() => answer,
        Ok(answer) => return refused(&answer, args.json),
        Err(exit) => return exit,
    };
    let shown = if args.json {
        pretty(&answer.body).map(|text| out(&text))
    } else {
        read(&answer.body).map(|value| out_escaped(&format(&value)))
    };
    match shown {
        Ok(()) => Exit::Done,
        Err(why) => fail(&why),
    }
}

/// Sends a request and returns the response. Without one, prints why and returns the exit code.
pub(super) fn send(
    admin: &AdminArgs,
    vars: &Vars,
    admin_request: &AdminRequest,
) -> Result<AdminResponse, Exit> {
    let choice = admin.choice(vars).map_err(|mistake| {
        err(&mistake.to_string());
        Exit::Usage
    })?;
    match block_on(client::send(&choice, admin_request)) {
        Ok(answer) => answer.map_err(|error| unanswered(&error)),
        Err(error) => Err(fail(&error.to_string())),
    }
}

pub(super) fn unanswered(error: &ClientError) -> Exit {
    err(&error.to_string());
    match error {
        ClientError::Several(_) => Exit::Usage,
        ClientError::Unreachable { .. } | ClientError::Ended => Exit::Unavailable,
        ClientError::Unexpected(_) => Exit::Failed,
    }
}

/// Prints the error of a response and returns the exit code. An unknown name is printed with the known ones.
pub(super) fn refused(answer: &AdminResponse, json: bool) -> Exit {
    let value: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match (json, value.get("error").and_then(Value::as_str)) {
        (true, Some(_)) => out(&format!("{value:#}\n")),
        (false, Some(error)) => err(&format!("{}{}", escaped(error), known(error, &value))),
        (_, None) => err(answer.body.trim_end()),
    }
    match answer.status {
        503 => Exit::Unavailable,
        400..500 => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn known(error: &str, value: &Value) -> String {
    let Some(known) = value.get("known").and_then(Value::as_array) else { return String::new() };
    let known: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
    let near = error.split('`').nth(1).and_then(|name| nearest(name, &known));
    let list = known.iter().map(|name| format!("\n  {}", escaped(name))).collect::<String>();
    match near {
        _ if known.is_empty() => "; there are none".to_owned(),
        Some(near) => format!(": did you mean `{near}`? Known are{list}"),
        None => format!("; known are{list}"),
    }
}

pub(super) fn read<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| format!("unexpected response of the ambassador: {error}"))
}

fn pretty(body: &str) -> Result<String, String> {
    read::<Value>(body).map(|value| format!("{value:#}\n"))
}
