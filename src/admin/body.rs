//! The bodies of orders: JSON from whoever can reach the socket, read strictly. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::grammar::options;
use crate::config::suggest::suggest;
use crate::reconcile::command::{Command, Switch, Trial};
use crate::route::OnRemove;

/// What can be posted to a route.
const VERBS: [&str; 5] = ["pause", "resume", "switch", "weight", "drain"];

/// A trial longer than this is not watched by anybody.
const TRIAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// No body at all is `{}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    route: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchBody {
    /// A comma list, or a list.
    #[serde(default)]
    targets: Option<Targets>,
    #[serde(default)]
    reset: bool,
    /// `drain` or `cut`.
    #[serde(default)]
    old: Option<Old>,
    /// A duration: take it back when it has not settled in this time.
    #[serde(default)]
    timeout: Option<String>,
    /// Use the new endpoints once each has answered. Implied by `timeout`.
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
    /// Back to the weight that its source gives it.
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

/// Of `POST /routes`.
pub(super) fn add(bytes: &[u8]) -> Result<Command, String> {
    let AddBody { route } = read(bytes)?;
    Ok(Command::Add { line: route })
}

/// Of `POST /routes/NAME/VERB`.
pub(super) fn order(name: &str, verb: &str, bytes: &[u8]) -> Result<Command, String> {
    let route = name.to_owned();
    match verb {
        "pause" => read(bytes).map(|Nothing {}| Command::Pause { route }),
        "resume" => read(bytes).map(|Nothing {}| Command::Resume { route }),
        "switch" => switch(route, read(bytes)?).map(Command::Switch),
        "weight" => match read(bytes)? {
            WeightBody { endpoint, weight, reset } if weight.is_some() != reset => {
                Ok(Command::Weight { route, endpoint, weight })
            }
            WeightBody { .. } => Err("give either `weight` or `reset: true`".to_owned()),
        },
        "drain" => match read(bytes)? {
            DrainBody { endpoint, undo: false } => Ok(Command::Drain { route, endpoint }),
            DrainBody { endpoint, undo: true } => Ok(Command::Undrain { route, endpoint }),
        },
        _ => Err(format!("`{verb}` is no command: {}", suggest(verb, &VERBS))),
    }
}

fn switch(route: String, body: SwitchBody) -> Result<Switch, String> {
    let SwitchBody { targets, reset, old, timeout, wait } = body;
    let targets = match (targets, reset) {
        (Some(Targets::Text(text)), false) => Some(text),
        (Some(Targets::List(list)), false) => Some(list.join(",")),
        (None, true) => None,
        (Some(_), true) | (None, false) => return Err("give either `targets` or `reset: true`".to_owned()),
    };
    let old = old.map(|old| match old {
        Old::Drain => OnRemove::Drain,
        Old::Cut => OnRemove::Cut,
    });
    let timeout = timeout.map(|text| trial_time(&text)).transpose()?;
    let trial = (wait || timeout.is_some()).then_some(Trial { timeout });
    Ok(Switch { route, targets, old, trial })
}

fn trial_time(text: &str) -> Result<Duration, String> {
    let trial = options::duration(text).map_err(|mistake| match mistake.help {
        Some(help) => format!("{}: {help}", mistake.message),
        None => mistake.message,
    })?;
    if trial > TRIAL_MAX { Err(format!("`{text}` is more than a day")) } else { Ok(trial) }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| format!("the body cannot be read: {error}"))
}

/// What the fuzz targets feed: any order's body.
pub(super) fn read_any(bytes: &[u8]) {
    let _ = add(bytes);
    for verb in VERBS {
        let _ = order("r", verb, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verb: &str, body: &str) -> Result<Command, String> {
        order("r", verb, body.as_bytes())
    }

    fn switched(
        targets: Option<&str>,
        old: Option<OnRemove>,
        trial: Option<Duration>,
    ) -> Result<Command, String> {
        let targets = targets.map(str::to_owned);
        let trial = trial.map(|timeout| Trial { timeout: Some(timeout) });
        Ok(Command::Switch(Switch { route: "r".to_owned(), targets, old, trial }))
    }

    #[test]
    fn every_order_is_read() {
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
    fn whatever_else_comes_is_answered_with_the_way_out() {
        for (verb, body, says) in [
            ("puase", "", "did you mean `pause`?"),
            ("", "", "choose one of `pause`"),
            ("pause", "[", "cannot be read"),
            ("pause", r#"{"for":"ever"}"#, "unknown field"),
            ("switch", "", "either `targets`"),
            ("switch", r#"{"targets":"a","reset":true}"#, "either `targets`"),
            ("switch", r#"{"targets":"a","old":"kill"}"#, "unknown variant"),
            ("switch", r#"{"targets":"a","timeout":"30"}"#, "write `30s`"),
            ("switch", r#"{"targets":"a","timeout":"2days"}"#, "more than a day"),
            ("weight", r#"{"endpoint":"a","weight":-1}"#, "cannot be read"),
            ("weight", r#"{"endpoint":"a"}"#, "either `weight`"),
            ("weight", r#"{"endpoint":"a","weight":1,"reset":true}"#, "either `weight`"),
            ("drain", "{}", "missing field `endpoint`"),
        ] {
            let why = check(verb, body).unwrap_err();
            assert!(why.contains(says), "{verb} {body}: {why}");
        }
    }
}
