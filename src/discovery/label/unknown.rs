//! Labels that look like ours and are not read. Pure.

use super::{PREFIX, place, shown};
use crate::config::suggest::nearest;
use crate::diagnostic::Diagnostic;
use crate::discovery::containers::Container;

/// What all of ours begin with.
const OURS: &str = "ambassador.";
const LISTEN: &str = "listen";
/// Read by `ambassador register`.
const REGISTER: &str = "register";

/// The first of a container's labels that begins like ours and is none, with the one that was probably meant.
pub(super) fn label(container: &Container) -> Option<Diagnostic> {
    let mut ours = container.labels.range(OURS.to_owned()..).take_while(|(label, _)| label.starts_with(OURS));
    let (label, _) = ours.find(|(label, _)| !container.is_oneoff() && is_unknown(label))?;
    Some(Diagnostic::new(place(container, label), "unknown label: it is not read").help(help(label)))
}

fn is_unknown(label: &str) -> bool {
    let registers = label.strip_prefix(OURS).and_then(|rest| rest.strip_prefix(REGISTER));
    !label.starts_with(PREFIX) && !registers.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn help(label: &str) -> String {
    let rest = label.strip_prefix(OURS).unwrap_or_default();
    let (word, tail) = rest.split_once('.').unwrap_or((rest, ""));
    let meant = match nearest(word, &[LISTEN, REGISTER]) {
        Some(near) if !tail.is_empty() => format!("{OURS}{near}.{tail}"),
        Some(LISTEN) => return format!("write the listener after it: {PREFIX}6379"),
        Some(near) => format!("{OURS}{near}"),
        None if rest.starts_with(|first: char| first.is_ascii_digit() || first == '[') => {
            format!("{PREFIX}{rest}")
        }
        None => return format!("labels that are read begin with `{PREFIX}` or `{OURS}{REGISTER}`"),
    };
    format!("did you mean `{}`?", shown(&meant))
}
