//! Sources that end in every way there is.

use tokio::sync::mpsc;

use super::*;
use crate::route::Layer;

/// Publishes, and then panics; the third time it fails, and from then on it stays.
struct Fragile(usize);

impl Source for Fragile {
    fn name(&self) -> String {
        "fragile".to_owned()
    }

    async fn run(&mut self, publisher: &mut Publisher) -> SourceError {
        self.0 += 1;
        match self.0 {
            1 | 2 => {
                publisher.publish(Snapshot::File(Layer::default().routes)).await.unwrap();
                panic!("run {}", self.0);
            }
            3 => SourceError::Failed("away".to_owned()),
            _ => {
                publisher.publish(Snapshot::File(Vec::new())).await.unwrap();
                std::future::pending().await
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_run_again_and_each_panic_is_told() {
    let (sender, mut news) = mpsc::channel(16);
    let _task = follow_by(Fragile(0), sender, |pause| pause);
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(match news.recv().await.unwrap() {
            SourceUpdate::Snapshot(_) => "snapshot".to_owned(),
            SourceUpdate::Panicked { source, why } => format!("{source} {why}"),
            other => format!("{other:?}"),
        });
    }
    let panicked = |n| format!("fragile it panicked, which is a mistake in this program: run {n}");
    // That it is lost is known by then.
    let expected = ["snapshot", &panicked(1), "snapshot", &panicked(2), "snapshot"];
    assert_eq!(told, expected);
}
