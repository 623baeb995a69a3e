//! What sources tell, taken in.

use std::time::SystemTime;

use super::Reconciler;
use super::view::Refused;
use crate::discovery::{News, Snapshot};
use crate::observe::events::Happened;

impl Reconciler {
    /// What else is told in this moment is applied with it; and where the last round has taken long, in a moment as long
    /// as that. So ten thousand names that answer one after the other are not ten thousand rounds of ten thousand routes.
    pub(super) async fn hear_others(&mut self) {
        loop {
            while let Ok(news) = self.inbox.try_recv() {
                self.hear(news);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.rested.into()) => return,
                Some(news) = self.inbox.recv() => self.hear(news),
            }
        }
    }

    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Snapshot(snapshot) => {
                self.found(&self.source_of(&snapshot));
                self.learn(snapshot);
            }
            News::FileRefused { why } => {
                if let Some(file) = &mut self.file {
                    file.refused = Some(Refused { why, at: SystemTime::now() });
                }
            }
            News::Lost { source, why } => {
                self.events.note(Happened::SourceLost { source: source.clone(), why: why.clone() });
                self.lost.insert(source, why);
            }
            News::Panicked { source, why } => {
                *self.panics.entry(source.clone()).or_default() += 1;
                self.hear(News::Lost { source, why });
            }
            News::Expired(snapshot) => {
                self.events.note(Happened::SourceExpired { source: snapshot.source() });
                self.learn(snapshot);
            }
        }
    }

    fn learn(&mut self, snapshot: Snapshot) {
        if let Snapshot::Docker(containers) = &snapshot
            && self.knowledge.docker.is_none()
        {
            let (source, why) = (snapshot.source(), containers.summary());
            self.events.note(Happened::SourceAnswered { source, why });
        }
        match (&snapshot, &mut self.file) {
            (Snapshot::Docker(_), _) => self.closing.finish_containers(),
            (Snapshot::File(_), Some(file)) => (file.loaded_at, file.refused) = (SystemTime::now(), None),
            _ => {}
        }
        self.knowledge.learn(snapshot);
    }

    /// The name of the source that published it, as [`Reconciler::sources`] has it.
    fn source_of(&self, snapshot: &Snapshot) -> String {
        match (snapshot, &self.file) {
            (Snapshot::File(_), Some(file)) => file.source(),
            _ => snapshot.source(),
        }
    }

    fn found(&mut self, source: &str) {
        if self.lost.remove(source).is_some() {
            self.events.note(Happened::SourceBack { source: source.to_owned() });
        }
    }
}
