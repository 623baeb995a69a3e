//! Selection of the ambassador by a command if several run, and if another user has taken a name.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{needs, within};

const LIMIT: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_ambassador");

/// A network namespace with a read-only `/run`: an ambassador without a writable directory.
struct Sandbox {
    holder: Child,
    dir: tempfile::TempDir,
}

/// A process in the sandbox, killed when dropped.
struct SandboxProcess(Child);

impl Drop for SandboxProcess {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

impl Sandbox {
    fn new() -> Result<Sandbox, &'static str> {
        if !rustix::process::geteuid().is_root() {
            return Err("namespaces take root");
        }
        let dir = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o ro none /run && ip link set lo up && : >\"$0\" && exec sleep 1000";
        let ready = dir.path().join("ready");
        let holder = Command::new("/usr/bin/unshare")
            .args(["--net", "--mount", "/bin/sh", "-c", script])
            .arg(&ready)
            .spawn()
            .unwrap();
        within(LIMIT, "a home", || if ready.exists() { Ok(()) } else { Err("not yet") });
        Ok(Sandbox { holder, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds a command in the sandbox with only these variables.
    fn command(&self, words: &[&str], vars: &[(&str, &Path)]) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string()]);
        command.args(words).env_clear().envs(vars.iter().copied()).stdin(Stdio::null());
        command
    }

    fn verb(&self, words: &str) -> CommandOutput {
        let words: Vec<&str> = std::iter::once(PROGRAM).chain(words.split_whitespace()).collect();
        CommandOutput::of(&self.command(&words, &[]).output().unwrap())
    }

    /// Starts an ambassador and waits until it listens at the path of this name.
    fn ambassador(
        &self,
        wrapped: &[&str],
        listen: &str,
        vars: &[(&str, &Path)],
        flags: &[&str],
    ) -> SandboxProcess {
        let listen = self.path(listen);
        let route = format!("{}=127.0.0.1:1", listen.display());
        let words = [wrapped, &[PROGRAM], flags, &[&route]].concat();
        let inhabitant = SandboxProcess(self.command(&words, vars).stderr(Stdio::null()).spawn().unwrap());
        within(LIMIT, "its listener", || if listen.exists() { Ok(()) } else { Err("not yet") });
        inhabitant
    }
}

#[derive(Debug)]
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

impl CommandOutput {
    fn of(output: &Output) -> CommandOutput {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CommandOutput { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Returns the admin addresses listed in an error.
    fn addresses(&self) -> Vec<String> {
        let words = self.err.split_whitespace().filter(|word| word.starts_with('@'));
        words.map(str::to_owned).collect()
    }
}

/// A program that replies "ready" to all clients, at a name of an earlier version and at one of the current format.
const SQUATTER: &str = r#"
use Socket;
my ($bits, @listeners) = ("");
for my $name ("ambassador/admin", "ambassador/admin/1") {
    socket(my $listener, PF_UNIX, SOCK_STREAM, 0) or die;
    bind($listener, pack_sockaddr_un("\0$name")) or die $!;
    listen($listener, 5) or die;
    vec($bits, fileno($listener), 1) = 1;
    push @listeners, $listener;
}
open(my $file, ">", $ARGV[0]);
while (select(my $read = $bits, undef, undef, undef)) {
    for my $listener (grep { vec($read, fileno($_), 1) } @listeners) {
        accept(my $client, $listener);
        sysread($client, my $request, 4096);
        syswrite($client, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n");
        close($client);
    }
}
"#;

#[test]
fn socket_name_of_another_user_is_rejected() {
    let sandbox = needs!(Sandbox::new());
    let ready = sandbox.path("squatted");
    std::fs::set_permissions(sandbox.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let words = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let words = [&words[..], &["/usr/bin/perl", "-e", SQUATTER, ready.to_str().unwrap()]].concat();
    let _squatter = SandboxProcess(sandbox.command(&words, &[]).spawn().unwrap());
    within(LIMIT, "a squatter", || if ready.exists() { Ok(()) } else { Err("not yet") });

    let said = sandbox.verb("health");
    assert_eq!(said.code, Some(69), "{said:?}");
    assert!(said.err.contains("@ambassador/admin/1") && said.err.contains("uid 65534"), "{said:?}");
    assert_eq!(sandbox.verb("health --admin @ambassador/admin/1").code, Some(69));

    let _ours = sandbox.ambassador(&[], "ours.sock", &[], &[]);
    within(LIMIT, "our own", || {
        let said = sandbox.verb("health");
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    assert!(sandbox.verb("status").out.contains("ours.sock"));
}

#[test]
fn ambassadors_of_one_user_have_distinct_names() {
    let sandbox = needs!(Sandbox::new());
    let one = sandbox.ambassador(&[], "one.sock", &[], &[]);
    let two = sandbox.ambassador(&[], "two.sock", &[], &[]);
    let several = within(LIMIT, "both", || {
        let said = sandbox.verb("status");
        if said.addresses().len() == 2 { Ok(said) } else { Err(format!("{said:?}")) }
    });
    assert_eq!(several.code, Some(64), "{several:?}");
    assert!(several.err.contains("--admin"), "{several:?}");
    let mut routes: Vec<String> = several
        .addresses()
        .iter()
        .map(|address| sandbox.verb(&format!("status --admin {address}")).out)
        .map(|table| if table.contains("one.sock") { "one" } else { "two" }.to_owned())
        .collect();
    routes.sort();
    assert_eq!(routes, ["one", "two"]);
    drop(one);
    assert!(sandbox.verb("status").out.contains("two.sock"), "the only one that is left");
    drop(two);
    assert_eq!(sandbox.verb("status").code, Some(69));
}

/// Containers with `--network host` share abstract names; each has its own processes.
#[test]
fn command_in_a_container_reaches_the_ambassador_of_that_container() {
    let sandbox = needs!(Sandbox::new());
    let container = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child"];
    let containers = ["one.sock", "two.sock"].map(|name| sandbox.ambassador(&container, name, &[], &[]));
    within(LIMIT, "both", || {
        let said = sandbox.verb("status");
        if said.addresses().len() == 2 { Ok(()) } else { Err(format!("{said:?}")) }
    });
    for (container, name) in containers.iter().zip(["one.sock", "two.sock"]) {
        let unshare = container.0.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        let inside = ["/usr/bin/nsenter", "--pid", "--target", children.trim(), PROGRAM, "status"];
        let said = CommandOutput::of(&sandbox.command(&inside, &[]).output().unwrap());
        assert!(said.out.contains(name), "{name}: {said:?}");
    }
}

#[test]
fn admin_on_tcp_keeps_the_unix_socket_that_health_uses() {
    let sandbox = needs!(Sandbox::new());
    let runtime_dir = sandbox.path("shm");
    std::fs::create_dir(&runtime_dir).unwrap();
    let vars = [("XDG_RUNTIME_DIR", runtime_dir.as_path())];
    let _ambassador = sandbox.ambassador(&[], "one.sock", &vars, &["--admin", "127.0.0.1:9600"]);
    within(LIMIT, "health by the default address", || {
        let said = CommandOutput::of(&sandbox.command(&[PROGRAM, "health"], &vars).output().unwrap());
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
    assert!(runtime_dir.join("ambassador/admin.sock").exists());
    let said = sandbox.verb("status --admin 127.0.0.1:9600");
    assert!(said.out.contains("one.sock"), "{said:?}");
}
