//! What sources tell, taken in.

use std::time::SystemTime;

use super::Reconciler;
use super::view::Refused;
use crate::discovery::{Snapshot, SourceUpdate};
use crate::events::EventKind;

impl Reconciler {
    /// What else is told in this moment is applied with it; and where the last round has taken long, in a moment as long
    /// as that. So ten thousand names that answer one after the other are not ten thousand rounds of ten thousand routes.
    pub(super) async fn handle_pending_updates(&mut self) {
        loop {
            while let Ok(news) = self.inbox.try_recv() {
                self.handle_update(news);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.rested.into()) => return,
                Some(news) = self.inbox.recv() => self.handle_update(news),
            }
        }
    }

    pub(super) fn handle_update(&mut self, news: SourceUpdate) {
        match news {
            SourceUpdate::Snapshot(snapshot) => {
                self.found(&self.source_of(&snapshot));
                self.apply_snapshot(snapshot);
            }
            SourceUpdate::FileRefused { why } => {
                if let Some(file) = &mut self.file {
                    file.refused = Some(Refused { why, at: SystemTime::now() });
                }
            }
            SourceUpdate::Lost { source, why } => {
                self.events.emit(EventKind::SourceLost { source: source.clone(), why: why.clone() });
                self.lost.insert(source, why);
            }
            SourceUpdate::Panicked { source, why } => {
                *self.panics.entry(source.clone()).or_default() += 1;
                self.handle_update(SourceUpdate::Lost { source, why });
            }
            SourceUpdate::Expired(snapshot) => {
                self.events.emit(EventKind::SourceExpired { source: snapshot.source() });
                self.apply_snapshot(snapshot);
            }
        }
    }

    fn apply_snapshot(&mut self, snapshot: Snapshot) {
        if let Snapshot::Docker(containers) = &snapshot
            && self.discovery.docker.is_none()
        {
            let (source, why) = (snapshot.source(), containers.summary());
            self.events.emit(EventKind::SourceAnswered { source, why });
        }
        match (&snapshot, &mut self.file) {
            (Snapshot::Docker(_), _) => self.closing.finish_containers(),
            (Snapshot::File(_), Some(file)) => (file.loaded_at, file.refused) = (SystemTime::now(), None),
            _ => {}
        }
        self.discovery.apply(snapshot);
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
            self.events.emit(EventKind::SourceBack { source: source.to_owned() });
        }
    }
}
