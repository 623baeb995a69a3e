//! Files of endpoints, and what is published of them; changes of files are tested in `file/tests.rs`.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::discovery::dns::Resolver;
use crate::discovery::{SourceUpdate, follow};

/// Generous for a busy machine; what is measured against the promise of 300 ms has a test of its own.
const PATIENCE: Duration = Duration::from_secs(10);

struct Followed {
    directory: tempfile::TempDir,
    updates: mpsc::Receiver<SourceUpdate>,
    reload: Arc<Notify>,
    _source: AbortOnDropHandle<()>,
}

fn begin(lay: impl Fn(&Path)) -> Followed {
    let directory = tempfile::tempdir().unwrap();
    lay(directory.path());
    let hosts = directory.path().join("hosts");
    let resolver = EndpointResolver::without_peers(Resolver::with_servers(Vec::new(), Vec::new(), hosts));
    let (sender, updates) = mpsc::channel(16);
    let reload = Arc::new(Notify::new());
    let source = EndpointFile::new(directory.path().join("a"), reload.clone(), resolver);
    Followed { directory, updates, reload, _source: follow(source, sender) }
}

/// Of a file with one endpoint, until that is out.
async fn followed() -> Followed {
    let mut followed = begin(|directory| std::fs::write(directory.join("a"), "10.0.0.1:80\n").unwrap());
    followed.sees(&["10.0.0.1:80"]).await;
    followed
}

impl Followed {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    async fn next(&mut self) -> SourceUpdate {
        timeout(PATIENCE, self.updates.recv()).await.expect("an update in time").expect("a source that runs")
    }

    async fn sees(&mut self, expected: &[&str]) {
        let SourceUpdate::Snapshot(Snapshot::Target { endpoints, .. }) = self.next().await else {
            panic!("no {expected:?}")
        };
        let shown: Vec<String> = endpoints.iter().map(|spec| spec.key.addr.to_string()).collect();
        assert_eq!(shown, expected);
    }

    async fn lost(&mut self) -> String {
        match self.next().await {
            SourceUpdate::Lost { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_change_is_followed_however_it_is_made() {
    let mut followed = followed().await;
    followed.write("a", "10.0.0.2:80\n");
    followed.sees(&["10.0.0.2:80"]).await;
    followed.write("b", "10.0.0.3:80\n");
    std::fs::rename(followed.at("b"), followed.at("a")).unwrap();
    followed.sees(&["10.0.0.3:80"]).await;
    followed.write("c", "10.0.0.4:80\n");
    symlink("c", followed.at("link")).unwrap();
    std::fs::rename(followed.at("link"), followed.at("a")).unwrap();
    followed.sees(&["10.0.0.4:80"]).await;
    followed.write("c", "# none\n");
    followed.sees(&[]).await;
}

#[tokio::test]
async fn invalid_file_is_lost_until_it_is_valid_again() {
    let mut followed = followed().await;
    followed.write("a", "10.0.0.2:80\nredis\n");
    let why = followed.lost().await;
    assert!(why.contains("a:2:1: missing port in `redis`") && why.contains("as a whole"), "{why}");
    followed.write("a", "10.0.0.2:80 weight=x\n");
    followed.write("a", "10.0.0.1:80\n");
    followed.sees(&["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn missing_file_is_lost_once_and_read_when_it_appears() {
    let mut followed = begin(|_| {});
    let why = followed.lost().await;
    assert!(why.contains("cannot be read"), "{why}");
    followed.write("a", "10.0.0.1:80\n");
    followed.sees(&["10.0.0.1:80"]).await;
    std::fs::remove_file(followed.at("a")).unwrap();
    followed.lost().await;
    followed.write("a", "10.0.0.1:80\n");
    followed.sees(&["10.0.0.1:80"]).await;
}

#[tokio::test]
async fn name_is_resolved_to_its_current_addresses() {
    let mut followed = followed().await;
    followed.write("hosts", "10.0.0.8 db\n");
    followed.write("a", "10.0.0.1:80\ndb:5432\n");
    followed.sees(&["10.0.0.1:80", "10.0.0.8:5432"]).await;
    followed.write("hosts", "10.0.0.9 db\n");
    followed.sees(&["10.0.0.1:80", "10.0.0.9:5432"]).await;
}

#[tokio::test]
async fn sighup_reads_the_file() {
    let mut followed = followed().await;
    // The file has not changed, so nothing is published; later changes are.
    followed.reload.notify_waiters();
    followed.write("a", "10.0.0.2:80\n");
    followed.sees(&["10.0.0.2:80"]).await;
}

#[tokio::test]
async fn a_change_is_seen_within_300_ms() {
    let mut followed = followed().await;
    let mut best = PATIENCE;
    // The best of three: a neighbour on this machine is not our delay.
    for address in ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"] {
        let start = Instant::now();
        followed.write("a", &format!("{address}\n"));
        followed.sees(&[address]).await;
        best = best.min(start.elapsed());
    }
    eprintln!("a changed file of endpoints is published after {best:?}");
    assert!(best < Duration::from_millis(300), "{best:?}");
}
