//! Engines for tests: the one of the environment, shared with other tests, and one that may be killed.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::support::{DaemonHost, daemon_host, hosts, record};

const IMAGE: &str = "ambassador-test/busybox";

/// The engine of `AMBASSADOR_TEST_DOCKER_A`. Objects named with [`Engine::name`] are removed when this is dropped.
pub(super) struct Engine {
    pub(super) socket: PathBuf,
    prefix: String,
}

impl Engine {
    /// Returns `None`, and records the skip, if there is no engine.
    pub(super) fn shared(test: &str) -> Option<Engine> {
        let host = match hosts() {
            Ok(hosts) => hosts.a,
            Err(why) => return skipped(test, &why),
        };
        let socket = host.dir().join("docker.sock");
        let prefix = format!("it-{}-{}", std::process::id(), &test[..test.len().min(12)]);
        let engine = Engine { socket, prefix };
        engine.import_image();
        Some(engine)
    }

    pub(super) fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Starts a container that waits to be stopped, and returns its ID.
    pub(super) async fn run(&self, arguments: &[&str]) -> String {
        let mut all = vec!["run", "-d"];
        all.extend(arguments);
        all.push(IMAGE);
        self.docker(&all).await
    }

    pub(super) async fn docker(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).args(arguments);
        let output = command.stdin(Stdio::null()).output().await.expect("docker runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Creates an image with a single file, so that no registry is needed.
    fn import_image(&self) {
        let script = format!(
            "set -e; d=$(mktemp -d); mkdir $d/bin; cp /bin/busybox $d/bin/; ln -s busybox $d/bin/sleep; \
             tar -C $d -c . | docker -H unix://{} import -c 'EXPOSE 6379' -c 'CMD [\"/bin/sleep\",\"100000\"]' - {IMAGE}; \
             rm -r $d",
            self.socket.display()
        );
        assert!(shell(&script), "cannot make the test's image: busybox-static and docker are needed");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let docker = format!("docker -H unix://{}", self.socket.display());
        let prefix = &self.prefix;
        shell(&format!(
            "{docker} ps -aq --filter name=^/{prefix} | xargs -r {docker} rm -f; \
             {docker} network ls -q --filter name=^{prefix} | xargs -r {docker} network rm"
        ));
    }
}

/// An engine that no other test uses at the same time.
pub(super) struct Private {
    pub(super) socket: PathBuf,
    host: DaemonHost,
}

impl Private {
    pub(super) fn start(test: &str) -> Option<Private> {
        match daemon_host() {
            Ok(host) => Some(Private { socket: host.dir().join("docker.sock"), host }),
            Err(why) => skipped(test, &why),
        }
    }

    /// Kills the engine without cleanup, as a crash does.
    pub(super) fn kill(&self) {
        self.host.kill_daemon();
    }

    pub(super) fn start_again(&self) {
        self.host.start_daemon();
    }
}

fn shell(script: &str) -> bool {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Records a skip; in CI it is a failure.
fn skipped<T>(test: &str, why: &str) -> Option<T> {
    record(&format!("docker_source::{test}"), why);
    None
}
