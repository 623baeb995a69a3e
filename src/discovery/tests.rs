//! Supervision of sources, and what is published.

use tokio::sync::mpsc;

use super::*;
use crate::route::Layer;

/// Publishes and panics in the first two runs, fails in the third, and runs for ever in the fourth.
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
async fn source_that_panics_is_run_again_and_each_panic_is_reported() {
    let (sender, mut updates) = mpsc::channel(16);
    let _task = follow_by(Fragile(0), sender, |pause| pause);
    let mut received = Vec::new();
    for _ in 0..5 {
        received.push(match updates.recv().await.unwrap() {
            SourceUpdate::Snapshot(_) => "snapshot".to_owned(),
            SourceUpdate::Panicked { source, why } => format!("{source} {why}"),
            other => format!("{other:?}"),
        });
    }
    let panicked = |n| format!("fragile the source panicked, which is a defect of this program: run {n}");
    // The failure of the third run is not reported: the source is lost already.
    let expected = ["snapshot", &panicked(1), "snapshot", &panicked(2), "snapshot"];
    assert_eq!(received, expected);
}

#[tokio::test]
async fn snapshot_is_published_when_it_changed_or_after_a_failure() {
    let snapshot = |n: usize| {
        let spec = |n| {
            let addr = crate::address::EndpointAddr::Unix(format!("/{n}").into());
            EndpointSpec::new(addr, crate::address::Identity::Literal)
        };
        Snapshot::Target {
            target: Target::Unix("/x".into()),
            endpoints: (0..n).map(spec).collect(),
            problem: None,
        }
    };
    let (sender, mut updates) = mpsc::channel(16);
    let mut publisher = Publisher::new("x", sender);
    let mut received = || match updates.try_recv() {
        Ok(SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. })) => format!("{}", endpoints.len()),
        Ok(SourceUpdate::Expired(Snapshot::Target { endpoints, .. })) => {
            format!("expired {}", endpoints.len())
        }
        Ok(SourceUpdate::Lost { .. }) => "lost".to_owned(),
        other => format!("{other:?}"),
    };
    publisher.expire(snapshot(0)).await.unwrap();
    assert_eq!(received(), "Err(Empty)", "there is nothing to expire");
    publisher.publish_changed(snapshot(0)).await.unwrap();
    assert_eq!(received(), "0", "the first");
    for (n, expected) in [(2, "2"), (2, "Err(Empty)"), (1, "1"), (1, "Err(Empty)")] {
        publisher.publish_changed(snapshot(n)).await.unwrap();
        assert_eq!(received(), expected);
    }
    publisher.lost("x".to_owned()).await.unwrap();
    publisher.lost("y".to_owned()).await.unwrap();
    publisher.expire(snapshot(1)).await.unwrap();
    assert_eq!((received().as_str(), received().as_str()), ("lost", "Err(Empty)"));
    publisher.expire(snapshot(0)).await.unwrap();
    publisher.publish_changed(snapshot(0)).await.unwrap();
    assert_eq!((received().as_str(), received().as_str()), ("expired 0", "0"), "it is available again");
    publisher.published = false;
    publisher.publish_changed(snapshot(0)).await.unwrap();
    assert_eq!((received().as_str(), received().as_str()), ("0", "Err(Empty)"), "the first of a run");
}
