//! The bodies of commands: JSON from any client that can reach the socket, parsed strictly. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::grammar::options;
use crate::config::suggest::suggest;
use crate::reconcile::command::{Command, SwitchRequest, Trial};
use crate::route::OnRemove;

/// The commands that can be posted to a route.
const VERBS: [&str; 5] = ["pause", "resume", "switch", "weight", "drain"];

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
    #[error("{0}")]
    Timeout(String),
}

/// An empty body counts as `{}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    route: String,
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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    endpoint: String,
    #[serde(default)]
    undo: bool,
}

/// Parses the body of `POST /routes`.
pub(super) fn add(bytes: &[u8]) -> Result<Command, BodyError> {
    let AddBody { route } = read(bytes)?;
    Ok(Command::Add { line: route })
}

/// Parses the body of `POST /routes/NAME/VERB`.
pub(super) fn command(name: &str, verb: &str, bytes: &[u8]) -> Result<Command, BodyError> {
    let route = name.to_owned();
    match verb {
        "pause" => read(bytes).map(|EmptyBody {}| Command::Pause { route }),
        "resume" => read(bytes).map(|EmptyBody {}| Command::Resume { route }),
        "switch" => switch(route, read(bytes)?).map(Command::Switch),
        "weight" => match read(bytes)? {
            WeightBody { endpoint, weight, reset } if weight.is_some() != reset => {
                Ok(Command::Weight { route, endpoint, weight })
            }
            WeightBody { .. } => Err(BodyError::WeightOrReset),
        },
        "drain" => match read(bytes)? {
            DrainBody { endpoint, undo: false } => Ok(Command::Drain { route, endpoint }),
            DrainBody { endpoint, undo: true } => Ok(Command::Undrain { route, endpoint }),
        },
        _ => Err(BodyError::UnknownVerb { verb: verb.to_owned(), help: suggest(verb, &VERBS) }),
    }
}

fn switch(route: String, body: SwitchBody) -> Result<SwitchRequest, BodyError> {
    let SwitchBody { targets, reset, old, timeout, wait } = body;
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
    Ok(SwitchRequest { route, targets, old, trial })
}

fn trial_timeout(text: &str) -> Result<Duration, BodyError> {
    let timeout = options::duration(text).map_err(|mistake| match mistake.help {
        Some(help) => BodyError::Timeout(format!("{}: {help}", mistake.message)),
        None => BodyError::Timeout(mistake.message),
    })?;
    if timeout > TRIAL_MAX {
        return Err(BodyError::Timeout(format!("invalid timeout `{text}`: must be at most 1 day")));
    }
    Ok(timeout)
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
        command("r", verb, body.as_bytes())
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
        assert_eq!(add(br#"{"route":"80=a"}"#), Ok(Command::Add { line: "80=a".to_owned() }));
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
