//! Substitutes for the images that the examples name, built from programs of this machine without a registry.

use std::path::Path;

use anyhow::Result;

use crate::host::Host;
use crate::hosts::Hosts;
use crate::image;
use crate::rootfs::Rootfs;

/// The ambassador's name and those of its ancestors, so that commands in their documentation run as written.
const AMBASSADORS: &[&str] =
    &["ambassador", "svendowideit/ambassador", "dokku/ambassador", "cpuguy83/docker-grand-ambassador"];

/// An image: its names, its content, and how it runs.
struct Image {
    names: &'static [&'static str],
    needs: &'static [&'static str],
    fill: fn(&mut Rootfs) -> Result<()>,
    changes: &'static [&'static str],
}

/// `--save ""`: a server that is killed restarts empty and at once.
const IMAGES: &[Image] = &[
    Image { names: &["busybox"], needs: &["busybox"], fill: no_files, changes: &[r#"CMD ["sh"]"#] },
    Image {
        names: &["crosbymichael/redis", "redis"],
        needs: &["busybox", "redis-server", "redis-cli"],
        fill: redis,
        changes: &[
            "EXPOSE 6379",
            r#"CMD ["redis-server", "--protected-mode", "no", "--save", "", "--bind", "0.0.0.0"]"#,
        ],
    },
    Image {
        names: &["relateiq/redis-cli"],
        needs: &["busybox", "redis-cli"],
        fill: redis_cli,
        changes: &[r#"ENTRYPOINT ["/bin/connect"]"#],
    },
    Image {
        names: &["carinamarina/hello-world-app"],
        needs: &["busybox"],
        fill: hello_app,
        changes: &["EXPOSE 5000", HTTPD],
    },
    Image {
        names: &["carinamarina/hello-world-web"],
        needs: &["busybox"],
        fill: hello_web,
        changes: &["EXPOSE 5000", HTTPD],
    },
];

const HTTPD: &str = r#"ENTRYPOINT ["/bin/httpd", "-f", "-p", "5000", "-h", "/www"]"#;

fn no_files(_: &mut Rootfs) -> Result<()> {
    Ok(())
}

fn redis(rootfs: &mut Rootfs) -> Result<()> {
    rootfs.program("redis-server")?.program("redis-cli")?.directory("data")?;
    Ok(())
}

/// Finds its server as the image of that name does: by the link's variables, or by its alias if there are none.
fn redis_cli(rootfs: &mut Rootfs) -> Result<()> {
    let connect = concat!(
        "#!/bin/sh\n",
        "exec redis-cli -h \"${REDIS_PORT_6379_TCP_ADDR:-redis}\" -p \"${REDIS_PORT_6379_TCP_PORT:-6379}\" \"$@\"\n",
    );
    rootfs.program("redis-cli")?.text("bin/connect", connect)?;
    Ok(())
}

fn hello_app(rootfs: &mut Rootfs) -> Result<()> {
    rootfs.text("www/index.html", include_str!("../../examples/hello-world/app/index.html"))?;
    Ok(())
}

fn hello_web(rootfs: &mut Rootfs) -> Result<()> {
    rootfs.text("www/cgi-bin/index.cgi", include_str!("../../examples/hello-world/web/index.cgi"))?;
    Ok(())
}

/// Loads the ambassador and every substitute whose programs are installed on every host.
pub(crate) fn load_all(hosts: &Hosts, binary: &Path, missing: &[String]) -> Result<()> {
    println!("images: loading");
    for host in hosts.each() {
        load_ambassador(host, binary)?;
    }
    load_substitutes(hosts, missing)
}

/// Loads every substitute whose programs are installed on every host.
pub(crate) fn load_substitutes(hosts: &Hosts, missing: &[String]) -> Result<()> {
    let lacks = |program: &&str| missing.iter().any(|text| text.split(' ').next() == Some(*program));
    for image in IMAGES.iter().filter(|image| !image.needs.iter().any(&lacks)) {
        let tar = pack(image)?;
        for host in hosts.each() {
            load(host, image, &tar)?;
        }
    }
    Ok(())
}

fn load_ambassador(host: &Host, binary: &Path) -> Result<()> {
    image::load(|| host.docker(), binary, AMBASSADORS[0])?;
    AMBASSADORS[1..].iter().try_for_each(|name| image::tag(&mut host.docker(), AMBASSADORS[0], name))
}

fn pack(image: &Image) -> Result<Vec<u8>> {
    let mut rootfs = Rootfs::new();
    rootfs.busybox()?;
    (image.fill)(&mut rootfs)?;
    rootfs.directory("tmp")?;
    rootfs.into_tar()
}

fn load(host: &Host, image: &Image, tar: &[u8]) -> Result<()> {
    image::import(&mut host.docker(), tar.to_vec(), image.changes, image.names[0])?;
    image.names[1..].iter().try_for_each(|name| image::tag(&mut host.docker(), image.names[0], name))
}
