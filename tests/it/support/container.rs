//! A container; removed when dropped.

use std::net::{IpAddr, SocketAddr};

use super::{Host, Namespace, eventually};

pub(crate) struct Container {
    host: Host,
    name: String,
}

impl Container {
    pub(crate) fn new(host: &Host, name: String) -> Container {
        Container { host: host.clone(), name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns its address on its only network.
    pub(crate) fn ip(&self) -> IpAddr {
        let ip = self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        ip.parse().unwrap_or_else(|_| panic!("no address of {}: {ip:?}\n{}", self.name, self.logs()))
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    pub(crate) fn inspect(&self, format: &str) -> String {
        self.host.shell(&format!("docker inspect --format '{format}' {}", self.name))
    }

    /// Returns its network namespace while it runs. Docker reports its pid in the host's process namespace.
    pub(crate) fn namespace(&self) -> Namespace {
        let (holder, pid) = (self.host.pid_in("holder.pid"), self.inspect("{{.State.Pid}}"));
        Namespace::new(format!("/proc/{holder}/root/proc/{pid}/ns/net"))
    }

    /// Returns its output.
    pub(crate) fn logs(&self) -> String {
        self.host.shell(&format!("docker logs {} 2>&1", self.name))
    }

    pub(crate) fn docker(&self, verb: &str) -> String {
        self.host.docker(&format!("{verb} {}", self.name))
    }

    /// Waits for its end and returns its exit code.
    pub(crate) fn exit_code(&self) -> i32 {
        self.docker("wait").parse().expect("a code")
    }

    /// Waits until its health check passes.
    pub(crate) fn becomes_healthy(&self) {
        eventually("healthy", || match self.inspect("{{.State.Health.Status}}").as_str() {
            "healthy" => Ok(()),
            other => Err(format!("{other}\n{}", self.logs())),
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.host.try_docker(&format!("rm -f -v {}", self.name)).ok();
    }
}
