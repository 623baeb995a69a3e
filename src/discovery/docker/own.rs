//! The container that this process runs in, as far as the kernel reports it.

use std::path::Path;

/// Returns candidates for the ID of our own container, or a prefix of it; the most reliable first. A candidate is used only if
/// the engine lists such a container: this process may run in a container of another engine.
pub(super) fn candidates() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    found(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), &read("/proc/sys/kernel/hostname"))
}

/// Extracts the candidates from the contents of these files. cgroup v1 contains the ID of the container; v2 does not (`0::/`). The
/// mounts are those of `/etc/hostname` and similar files, which Docker stores under `/var/lib/docker/containers/ID/`: with
/// `--network container:X` they are those of X, whose networks are ours too. The host name is the first twelve digits of the ID
/// unless another is configured.
pub(super) fn found(cgroup: &str, mountinfo: &str, hostname: &str) -> Vec<String> {
    let cgroups = cgroup.lines().filter_map(|line| line.rsplit(':').next()).filter_map(last_id);
    let mounts = mountinfo.lines().filter_map(mounted_from).filter_map(last_id);
    let hostname = hostname.trim();
    let hostname = (hostname.len() == 12 && is_hex(hostname)).then(|| hostname.to_owned());
    let mut candidates = Vec::new();
    for candidate in cgroups.chain(mounts).chain(hostname) {
        if !candidates.contains(&candidate) && candidates.len() < CANDIDATES_MAX {
            candidates.push(candidate);
        }
    }
    candidates
}

/// The mount table of a host may contain all of its containers; that of a container contains one.
const CANDIDATES_MAX: usize = 16;

/// Returns the source of a mount if it is one of the files that Docker mounts into each container.
fn mounted_from(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(3);
    let (root, mount_point) = (fields.next()?, fields.next()?);
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&mount_point).then_some(root)
}

/// Returns the last full ID in a path: `/docker/ID`, `/system.slice/docker-ID.scope`, `/var/lib/docker/containers/ID/hosts`.
fn last_id(path: &str) -> Option<String> {
    let mut words = path.rsplit(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| word.len() == 64 && is_hex(word)).map(str::to_owned)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1e0e0a8f0b4c43b3a5a9c9d0a6f6d1c1e2f3a4b5c6d7e8f90a1b2c3d4e5f60";

    fn check(cgroup: &str, mountinfo: &str, hostname: &str, expected: &[&str]) {
        assert_eq!(found(cgroup, mountinfo, hostname), expected);
    }

    #[test]
    fn cgroup_v1_contains_the_container() {
        check(&format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"), "", "", &[ID]);
        check(&format!("0::/system.slice/docker-{ID}.scope\n"), "", "", &[ID]);
    }

    #[test]
    fn with_cgroup_v2_the_mounts_contain_it() {
        let mountinfo = format!(
            "719 711 254:0 / / rw - overlay overlay rw\n\
             726 719 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw\n"
        );
        check("0::/\n", &mountinfo, "4f1e0e0a8f0b\n", &[ID, "4f1e0e0a8f0b"]);
    }

    #[test]
    fn files_of_another_container_mounted_elsewhere_are_ignored() {
        let mountinfo =
            format!("1 2 254:1 /var/lib/docker/containers/{ID} /mnt/logs rw - ext4 /dev/vda rw\n");
        check("0::/\n", &mountinfo, "host.example\n", &[]);
    }

    #[test]
    fn outside_a_container_there_is_no_candidate() {
        check("", "", "", &[]);
        check("no colon", "short line", "redis", &[]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted(text in "([0-9a-f]{64}|/etc/hosts|[/: \\n]|\\PC){0,40}") {
            assert!(found(&text, &text, &text).len() <= CANDIDATES_MAX);
        }
    }
}
