//! Labels that look like the ambassador's and are not. Pure.

use super::{PREFIX, abbreviated, place};
use crate::config::suggest::nearest;
use crate::diagnostic::Diagnostic;
use crate::discovery::docker::model::Container;

/// The prefix of all labels of the ambassador.
const NAMESPACE: &str = "ambassador.";
const LISTEN: &str = "listen";
/// Read by `ambassador register`.
const REGISTER: &str = "register";

/// Reports the first unknown label of a container in the ambassador's namespace, with the one that was probably meant.
pub(super) fn first_unknown(container: &Container) -> Option<Diagnostic> {
    let mut ours =
        container.labels.range(NAMESPACE.to_owned()..).take_while(|(label, _)| label.starts_with(NAMESPACE));
    let (label, _) = ours.find(|(label, _)| !container.is_oneoff() && is_unknown(label))?;
    Some(Diagnostic::new(place(container, label), "unknown label: it is ignored").help(help(label)))
}

fn is_unknown(label: &str) -> bool {
    let register = label.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix(REGISTER));
    !label.starts_with(PREFIX) && !register.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn help(label: &str) -> String {
    let rest = label.strip_prefix(NAMESPACE).unwrap_or_default();
    let (word, tail) = rest.split_once('.').unwrap_or((rest, ""));
    let meant = match nearest(word, &[LISTEN, REGISTER]) {
        Some(near) if !tail.is_empty() => format!("{NAMESPACE}{near}.{tail}"),
        Some(LISTEN) => return format!("write the listener after it: {PREFIX}6379"),
        Some(near) => format!("{NAMESPACE}{near}"),
        None if rest.starts_with(|first: char| first.is_ascii_digit() || first == '[') => {
            format!("{PREFIX}{rest}")
        }
        None => return format!("known labels start with `{PREFIX}` or `{NAMESPACE}{REGISTER}`"),
    };
    format!("did you mean `{}`?", abbreviated(&meant))
}
