//! Engines for tests: the one that the environment names, shared with other tests, and one that may be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::support::{record, variable};

const IMAGE: &str = "ambassador-test/busybox";

/// The engine of `AMBASSADOR_TEST_DOCKER_A`. What a test names with [`Engine::name`] is removed when this is dropped.
pub(super) struct Engine {
    pub(super) socket: PathBuf,
    prefix: String,
}

impl Engine {
    /// `None`, and a line that says so, where there is no engine to test with.
    pub(super) fn shared(test: &str) -> Option<Engine> {
        let Some(socket) = variable("AMBASSADOR_TEST_DOCKER_A") else {
            return skipped(test, "AMBASSADOR_TEST_DOCKER_A is not set");
        };
        let socket = PathBuf::from(socket.strip_prefix("unix://").expect("unix:///path"));
        let prefix = format!("it-{}-{}", std::process::id(), &test[..test.len().min(12)]);
        let engine = Engine { socket, prefix };
        engine.import_image();
        Some(engine)
    }

    pub(super) fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// A container that waits to be stopped; its ID.
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

    /// One file in an image: no registry is needed.
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

/// An engine of the test's own, in a network namespace of its own.
pub(super) struct Private {
    pub(super) socket: PathBuf,
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Private {
    pub(super) async fn start(test: &str) -> Option<Private> {
        if variable("AMBASSADOR_TEST_DOCKER_A").is_none() {
            return skipped(test, "AMBASSADOR_TEST_DOCKER_A is not set, so engines are not to be started");
        }
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let daemon = daemon(directory.path(), &socket);
        let mut engine = Private { socket, directory, daemon };
        engine.ready().await;
        Some(engine)
    }

    /// As a crash would: nothing is tidied up.
    pub(super) async fn kill(&mut self) {
        self.daemon.kill().await.unwrap();
    }

    pub(super) async fn start_again(&mut self) {
        // Its containerd died with it, but may not be buried yet: the daemon would take it for alive.
        std::fs::remove_file(self.directory.path().join("exec/containerd/containerd.pid")).unwrap();
        self.daemon = daemon(self.directory.path(), &self.socket);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let script = format!("docker -H unix://{} version >/dev/null 2>&1", self.socket.display());
        let begun = Instant::now();
        while !shell(&script) {
            assert!(self.daemon.try_wait().unwrap().is_none(), "dockerd ended: {}", self.log());
            assert!(begun.elapsed() < Duration::from_secs(60), "dockerd does not answer: {}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Private {
    /// Asked politely, it takes its containerd and its mounts with it, but for the one over its own directory.
    fn drop(&mut self) {
        let pid = self.daemon.id().unwrap_or_default();
        if pid != 0 && shell(&format!("kill {pid}")) {
            while matches!(self.daemon.try_wait(), Ok(None)) && shell("sleep 0.1") {}
        }
        let directory = self.directory.path().display();
        shell(&format!("umount {directory}/exec/netns/* {directory}/data 2>/dev/null"));
    }
}

fn daemon(directory: &Path, socket: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "dockerd", "--data-root"]).arg(directory.join("data"));
    command.arg("--exec-root").arg(directory.join("exec")).arg("--pidfile").arg(directory.join("pid"));
    command.arg("-H").arg(format!("unix://{}", socket.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().expect("unshare and dockerd are here")
}

fn shell(script: &str) -> bool {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Recorded, never silent: where everything must run, this is a failure.
fn skipped<T>(test: &str, why: &str) -> Option<T> {
    record(test, why);
    None
}
