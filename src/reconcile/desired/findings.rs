//! Mistakes and notices that exist now, each logged once. Pure.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::events::EventKind;
use crate::ordered::CollectOrdered;

/// Messages that are remembered as logged. When there are more, all are forgotten.
const LOGGED_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Findings {
    mistakes: BTreeSet<String>,
    notices: Vec<String>,
    /// Messages that were logged. At most [`LOGGED_MAX`].
    logged: BTreeSet<String>,
}

impl Findings {
    /// Replaces the findings. Returns those to log.
    pub(super) fn update(&mut self, mistakes: &[Diagnostic], notices: Vec<String>) -> Vec<EventKind> {
        self.mistakes = mistakes.iter().map(Diagnostic::one_line).collect_ordered();
        self.notices = notices;
        let notices = self.unlogged(&self.notices);
        notices.iter().for_each(|why| self.remember(why));
        let mistakes = self.unlogged(&self.mistakes);
        mistakes.iter().for_each(|why| self.remember(why));
        let notices = notices.into_iter().map(|why| EventKind::Notice { why });
        notices.chain(mistakes.into_iter().map(|why| EventKind::Mistake { why })).collect()
    }

    pub(super) fn mistakes(&self) -> impl Iterator<Item = &String> {
        self.mistakes.iter()
    }

    pub(super) fn notices(&self) -> &[String] {
        &self.notices
    }

    fn unlogged<'m>(&self, messages: impl IntoIterator<Item = &'m String>) -> Vec<String> {
        messages.into_iter().filter(|why| !self.logged.contains(*why)).cloned().collect()
    }

    fn remember(&mut self, why: &str) {
        if self.logged.len() >= LOGGED_MAX {
            self.logged.clear();
        }
        self.logged.insert(why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Place;

    #[test]
    fn each_finding_is_logged_once_and_listed_while_it_exists() {
        let mut findings = Findings::default();
        let mistake = [Diagnostic::new(Place::Built, "invalid label")];
        let logged = findings.update(&mistake, vec!["no container".to_owned()]);
        assert!(
            matches!(logged.as_slice(), [EventKind::Notice { .. }, EventKind::Mistake { .. }]),
            "{logged:?}"
        );
        assert_eq!((findings.mistakes().count(), findings.notices().len()), (1, 1));
        assert_eq!(findings.update(&[], Vec::new()).len(), 0);
        assert_eq!((findings.mistakes().count(), findings.notices().len()), (0, 0));
        assert_eq!(findings.update(&mistake, Vec::new()).len(), 0);
    }
}
