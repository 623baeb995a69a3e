//! Which container we are in, as far as the kernel lets us see.

use std::path::Path;

/// What may be our own container's ID, or the beginning of it; the surest first. It counts only once the engine that
/// we ask lists such a container: we may run in a container of another engine.
pub(super) fn candidates() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    found(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"), &read("/proc/sys/kernel/hostname"))
}

/// cgroup v1 names the container itself; v2 hides it (`0::/`). The mounts are those of `/etc/hostname` and its kin,
/// which Docker keeps under `/var/lib/docker/containers/ID/`: with `--network container:X` they are X's, whose
/// networks are ours too. The host's name is the ID's first twelve digits unless it was given another.
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

/// A host's mount table may name every container it has; ours names one.
const CANDIDATES_MAX: usize = 16;

/// Where a line's mount comes from, if it is one of the files that Docker mounts into each container.
fn mounted_from(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(3);
    let (root, mount_point) = (fields.next()?, fields.next()?);
    ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&mount_point).then_some(root)
}

/// The last whole ID in a path: `/docker/ID`, `/system.slice/docker-ID.scope`, `/var/lib/docker/containers/ID/hosts`.
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
    fn the_first_cgroup_version_names_the_container() {
        check(&format!("12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"), "", "", &[ID]);
        check(&format!("0::/system.slice/docker-{ID}.scope\n"), "", "", &[ID]);
    }

    #[test]
    fn the_second_hides_it_and_the_mounts_show_it() {
        let mountinfo = format!(
            "719 711 254:0 / / rw - overlay overlay rw\n\
             726 719 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw\n"
        );
        check("0::/\n", &mountinfo, "4f1e0e0a8f0b\n", &[ID, "4f1e0e0a8f0b"]);
    }

    #[test]
    fn another_containers_files_mounted_elsewhere_are_not_ours() {
        let mountinfo =
            format!("1 2 254:1 /var/lib/docker/containers/{ID} /mnt/logs rw - ext4 /dev/vda rw\n");
        check("0::/\n", &mountinfo, "host.example\n", &[]);
    }

    #[test]
    fn nothing_to_see_is_nobody() {
        check("", "", "", &[]);
        check("no colon", "short line", "redis", &[]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_kernel_says_is_read(text in "([0-9a-f]{64}|/etc/hosts|[/: \\n]|\\PC){0,40}") {
            assert!(found(&text, &text, &text).len() <= CANDIDATES_MAX);
        }
    }
}
