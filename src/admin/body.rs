//! The bodies of commands: JSON from any client that can reach the socket, parsed strictly. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::escaped;
use crate::config::grammar::options;
use crate::config::suggest::suggest;
use crate::diagnostic::Mistake;
use crate::reconcile::command::{Command, CommandRequest, Mode, SwitchRequest, Trial};
use crate::route::OnRemove;

/// The commands that can be posted to a route.
const VERBS: [&str; 6] = ["pause", "resume", "switch", "weight", "drain", "restore"];

/// The longest timeout of a trial.
const TRIAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Why a command cannot be parsed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("invalid body: {0}")]
    Invalid(String),
    #[error("unknown command `{verb}`: {help}")]
    UnknownVerb { verb: String, help: String },
    #[error("give either `targets` or `reset: true`")]
    TargetsOrReset,
    #[error("give either `weight` or `reset: true`")]
    WeightOrReset,
    #[error("{}", one_line(.0))]
    Timeout(Mistake),
}

/// A command without arguments. An empty body counts as `{}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainBody {
    /// Whether the command is only checked.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    route: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchBody {
    /// A comma-separated string, or a list.
    #[serde(default)]
    targets: Option<Targets>,
    #[serde(default)]
    reset: bool,
    /// `drain` or `cut`.
    #[serde(default)]
    old: Option<Old>,
    /// A duration: the switch is rolled back if it has not settled within this time.
    #[serde(default)]
    timeout: Option<String>,
    /// Whether each new endpoint must answer before it is used. Implied by `timeout`.
    #[serde(default)]
    wait: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Targets {
    Text(String),
    List(Vec<String>),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Old {
    Drain,
    Cut,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    endpoint: String,
    #[serde(default)]
    weight: Option<u32>,
    /// Whether to use the weight that the source reports.
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    endpoint: String,
    #[serde(default)]
    undo: bool,
    #[serde(default)]
    dry_run: bool,
}

/// Parses the body of `POST /routes`.
pub(super) fn add(bytes: &[u8]) -> Result<CommandRequest, BodyError> {
    let AddBody { route, dry_run } = read(bytes)?;
    Ok(CommandRequest { command: Command::Add { line: route }, mode: mode(dry_run) })
}

/// Parses the body of `POST /routes/NAME/VERB`.
pub(super) fn command(name: &str, verb: &str, bytes: &[u8]) -> Result<CommandRequest, BodyError> {
    let route = name.to_owned();
    let plain = |command: Command| {
        let PlainBody { dry_run } = read(bytes)?;
        Ok((command, dry_run))
    };
    let (command, dry_run) = match verb {
        "pause" => plain(Command::Pause { route }),
        "resume" => plain(Command::Resume { route }),
        "restore" => plain(Command::Restore { route }),
        "switch" => switch(route, read(bytes)?),
        "weight" => match read(bytes)? {
            WeightBody { endpoint, weight, reset, dry_run } if weight.is_some() != reset => {
                Ok((Command::Weight { route, endpoint, weight }, dry_run))
            }
            WeightBody { .. } => Err(BodyError::WeightOrReset),
        },
        "drain" => match read(bytes)? {
            DrainBody { endpoint, undo: false, dry_run } => Ok((Command::Drain { route, endpoint }, dry_run)),
            DrainBody { endpoint, undo: true, dry_run } => {
                Ok((Command::Undrain { route, endpoint }, dry_run))
            }
        },
        _ => Err(BodyError::UnknownVerb { verb: verb.to_owned(), help: suggest(verb, &VERBS) }),
    }?;
    Ok(CommandRequest { command, mode: mode(dry_run) })
}

/// Returns the mode of a request with this `dry_run`.
pub(super) fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Execute }
}

fn switch(route: String, body: SwitchBody) -> Result<(Command, bool), BodyError> {
    let SwitchBody { targets, reset, old, timeout, wait, dry_run } = body;
    let targets = match (targets, reset) {
        (Some(Targets::Text(text)), false) => Some(text),
        (Some(Targets::List(list)), false) => Some(list.join(",")),
        (None, true) => None,
        (Some(_), true) | (None, false) => return Err(BodyError::TargetsOrReset),
    };
    let old = old.map(|old| match old {
        Old::Drain => OnRemove::Drain,
        Old::Cut => OnRemove::Cut,
    });
    let timeout = timeout.map(|text| trial_timeout(&text)).transpose()?;
    let trial = (wait || timeout.is_some()).then_some(Trial { timeout });
    Ok((Command::Switch(SwitchRequest { route, targets, old, trial }), dry_run))
}

fn trial_timeout(text: &str) -> Result<Duration, BodyError> {
    let timeout = options::duration(text).map_err(BodyError::Timeout)?;
    if timeout > TRIAL_MAX {
        let mistake = Mistake::new(format!("invalid timeout `{text}`: must be at most 1 day"));
        return Err(BodyError::Timeout(mistake));
    }
    Ok(timeout)
}

fn one_line(Mistake { message, help }: &Mistake) -> String {
    help.as_ref().map_or_else(|| message.clone(), |help| format!("{message}: {help}"))
}

/// Returns the request that has a client execute this command: method, path and body.
pub(super) fn request(command: &Command) -> Value {
    let post = |route: &str, verb: &str, body: Value| json!({ "method": "POST", "path": format!("{}/{verb}", path(route)), "body": body });
    match command {
        Command::Pause { route } => post(route, "pause", json!({})),
        Command::Resume { route } => post(route, "resume", json!({})),
        Command::Restore { route } => post(route, "restore", json!({})),
        Command::Switch(request) => post(&request.route, "switch", switch_body(request)),
        Command::Weight { route, endpoint, weight } => {
            let body = match weight {
                Some(weight) => json!({ "endpoint": endpoint, "weight": weight }),
                None => json!({ "endpoint": endpoint, "reset": true }),
            };
            post(route, "weight", body)
        }
        Command::Drain { route, endpoint } => post(route, "drain", json!({ "endpoint": endpoint })),
        Command::Undrain { route, endpoint } => {
            post(route, "drain", json!({ "endpoint": endpoint, "undo": true }))
        }
        Command::Add { line } => json!({ "method": "POST", "path": "/routes", "body": { "route": line } }),
        Command::Remove { route } => json!({ "method": "DELETE", "path": path(route), "body": null }),
    }
}

fn path(route: &str) -> String {
    format!("/routes/{}", escaped(route))
}

fn switch_body(SwitchRequest { route: _, targets, old, trial }: &SwitchRequest) -> Value {
    let mut body = match targets {
        Some(targets) => json!({ "targets": targets }),
        None => json!({ "reset": true }),
    };
    if let Some(old) = old {
        body["old"] = old.name().into();
    }
    if let Some(Trial { timeout }) = trial {
        body["wait"] = true.into();
        if let Some(timeout) = timeout {
            body["timeout"] = format!("{}ms", timeout.as_millis()).into();
        }
    }
    body
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| BodyError::Invalid(error.to_string()))
}

/// Parses a body as that of each command, for the fuzz targets.
pub(super) fn read_any(bytes: &[u8]) {
    let _ = add(bytes);
    for verb in VERBS {
        let _ = command("r", verb, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verb: &str, body: &str) -> Result<Command, BodyError> {
        let CommandRequest { command, mode } = command("r", verb, body.as_bytes())?;
        assert_eq!(mode, Mode::Execute);
        Ok(command)
    }

    fn switched(
        targets: Option<&str>,
        old: Option<OnRemove>,
        trial: Option<Duration>,
    ) -> Result<Command, BodyError> {
        let targets = targets.map(str::to_owned);
        let trial = trial.map(|timeout| Trial { timeout: Some(timeout) });
        Ok(Command::Switch(SwitchRequest { route: "r".to_owned(), targets, old, trial }))
    }

    #[test]
    fn every_command_is_parsed() {
        let (route, endpoint) = ("r".to_owned(), "10.0.0.1:1".to_owned());
        assert_eq!(check("pause", ""), Ok(Command::Pause { route: route.clone() }));
        assert_eq!(check("resume", " {} "), Ok(Command::Resume { route: route.clone() }));
        assert_eq!(check("switch", r#"{"targets":"a:1,b:2"}"#), switched(Some("a:1,b:2"), None, None));
        assert_eq!(
            check("switch", r#"{"targets":["a:1","b:2"],"old":"cut","timeout":"30s"}"#),
            switched(Some("a:1,b:2"), Some(OnRemove::Cut), Some(Duration::from_secs(30)))
        );
        assert_eq!(
            check("switch", r#"{"reset":true,"old":"drain"}"#),
            switched(None, Some(OnRemove::Drain), None)
        );
        assert_eq!(
            check("weight", r#"{"endpoint":"10.0.0.1:1","weight":3}"#),
            Ok(Command::Weight { route: route.clone(), endpoint: endpoint.clone(), weight: Some(3) })
        );
        assert_eq!(
            check("drain", r#"{"endpoint":"10.0.0.1:1"}"#),
            Ok(Command::Drain { route: route.clone(), endpoint: endpoint.clone() })
        );
        assert_eq!(
            check("drain", r#"{"endpoint":"10.0.0.1:1","undo":true}"#),
            Ok(Command::Undrain { route, endpoint })
        );
        let request = add(br#"{"route":"80=a"}"#).unwrap();
        assert_eq!(request.command, Command::Add { line: "80=a".to_owned() });
    }

    #[test]
    fn every_command_can_be_tried() {
        for (verb, body) in [
            ("pause", r#"{"dry_run":true}"#),
            ("resume", r#"{"dry_run":true}"#),
            ("restore", r#"{"dry_run":true}"#),
            ("switch", r#"{"reset":true,"dry_run":true}"#),
            ("weight", r#"{"endpoint":"a","reset":true,"dry_run":true}"#),
            ("drain", r#"{"endpoint":"a","dry_run":true}"#),
            ("drain", r#"{"endpoint":"a","undo":true,"dry_run":true}"#),
        ] {
            let request = command("r", verb, body.as_bytes());
            assert_eq!(request.map(|request| request.mode), Ok(Mode::DryRun), "{verb} {body}");
        }
        assert_eq!(add(br#"{"route":"80=a","dry_run":true}"#).map(|request| request.mode), Ok(Mode::DryRun));
    }

    #[test]
    fn request_of_a_command_is_parsed_as_that_command() {
        let (route, endpoint) = ("53/udp a".to_owned(), "10.0.0.1:1 (redis)".to_owned());
        let switch = |targets: Option<&str>, old, trial| {
            let targets = targets.map(str::to_owned);
            Command::Switch(SwitchRequest { route: route.clone(), targets, old, trial })
        };
        let timeout = Some(Duration::from_millis(1500));
        for expected in [
            Command::Pause { route: route.clone() },
            Command::Resume { route: route.clone() },
            Command::Restore { route: route.clone() },
            switch(Some("a:1,b:2"), None, None),
            switch(None, Some(OnRemove::Cut), Some(Trial { timeout })),
            switch(None, Some(OnRemove::Drain), Some(Trial { timeout: None })),
            Command::Weight { route: route.clone(), endpoint: endpoint.clone(), weight: Some(3) },
            Command::Weight { route: route.clone(), endpoint: endpoint.clone(), weight: None },
            Command::Drain { route: route.clone(), endpoint: endpoint.clone() },
            Command::Undrain { route: route.clone(), endpoint },
        ] {
            let request = request(&expected);
            let path = request["path"].as_str().unwrap().strip_prefix("/routes/53/udp%20a/");
            let parsed = command(&route, path.unwrap(), request["body"].to_string().as_bytes());
            assert_eq!(parsed.map(|request| request.command), Ok(expected), "{request}");
        }
        let add_request = request(&Command::Add { line: "80=a".to_owned() });
        assert!(add(add_request["body"].to_string().as_bytes()).is_ok(), "{add_request}");
        assert_eq!(request(&Command::Remove { route })["path"], "/routes/53/udp%20a");
    }

    #[test]
    fn invalid_body_is_an_error_that_names_the_remedy() {
        for (verb, body, says) in [
            ("puase", "", "did you mean `pause`?"),
            ("", "", "choose one of `pause`"),
            ("pause", "[", "invalid body"),
            ("pause", r#"{"for":"ever"}"#, "unknown field"),
            ("switch", "", "either `targets`"),
            ("switch", r#"{"targets":"a","reset":true}"#, "either `targets`"),
            ("switch", r#"{"targets":"a","old":"kill"}"#, "unknown variant"),
            ("switch", r#"{"targets":"a","timeout":"30"}"#, "write `30s`"),
            ("switch", r#"{"targets":"a","timeout":"2days"}"#, "at most 1 day"),
            ("weight", r#"{"endpoint":"a","weight":-1}"#, "invalid body"),
            ("weight", r#"{"endpoint":"a"}"#, "either `weight`"),
            ("weight", r#"{"endpoint":"a","weight":1,"reset":true}"#, "either `weight`"),
            ("drain", "{}", "missing field `endpoint`"),
        ] {
            let why = check(verb, body).unwrap_err().to_string();
            assert!(why.contains(says), "{verb} {body}: {why}");
        }
    }
}
