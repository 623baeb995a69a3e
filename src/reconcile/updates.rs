//! Updates from the sources: recorded, and applied to the desired state.

use std::time::SystemTime;

use super::Reconciler;
use super::overview::Refused;
use crate::discovery::{Snapshot, SourceUpdate};
use crate::events::EventKind;

impl Reconciler {
    /// Handles all pending updates, and those that arrive until the rest after the last round has ended. Ten thousand names
    /// that resolve one after another do not cause ten thousand rounds over ten thousand routes.
    pub(super) async fn handle_pending_updates(&mut self) {
        loop {
            while let Ok(update) = self.pending_updates.try_recv() {
                self.handle_update(update);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.rest_until.into()) => return,
                Some(update) = self.pending_updates.recv() => self.handle_update(update),
            }
        }
    }

    pub(super) fn handle_update(&mut self, update: SourceUpdate) {
        match update {
            SourceUpdate::Snapshot(snapshot) => {
                self.remove_lost(&snapshot);
                self.apply_snapshot(snapshot);
            }
            SourceUpdate::FileRefused { why } => {
                if let Some(file) = &mut self.sources.file {
                    file.refused = Some(Refused { why, at: SystemTime::now() });
                }
            }
            SourceUpdate::Lost { source, why } => {
                self.events.emit(EventKind::SourceLost { source: source.clone(), why: why.clone() });
                self.sources.lost.insert(source, why);
            }
            SourceUpdate::Panicked { source, why } => {
                *self.sources.panics.entry(source.clone()).or_default() += 1;
                self.handle_update(SourceUpdate::Lost { source, why });
            }
            SourceUpdate::Expired(snapshot) => {
                self.events.emit(EventKind::SourceExpired { source: snapshot.source() });
                self.apply_snapshot(snapshot);
            }
        }
    }

    fn apply_snapshot(&mut self, snapshot: Snapshot) {
        match (&snapshot, &mut self.sources.file) {
            (Snapshot::Docker(containers), _) => {
                if self.desired.containers().is_none() {
                    let (source, why) = (snapshot.source(), containers.summary());
                    self.events.emit(EventKind::SourceAnswered { source, why });
                }
                self.routes.finish_closed_containers();
            }
            (Snapshot::File(_), Some(file)) => file.load(),
            _ => {}
        }
        self.desired.apply(snapshot);
    }

    /// Records that the source of the snapshot is available.
    fn remove_lost(&mut self, snapshot: &Snapshot) {
        let source = match (snapshot, &self.sources.file) {
            (Snapshot::File(_), Some(file)) => file.source(),
            _ => snapshot.source(),
        };
        if self.sources.lost.remove(&source).is_some() {
            self.events.emit(EventKind::SourceBack { source });
        }
    }
}
