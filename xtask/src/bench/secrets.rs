//! The credentials of encrypted pairs: a CA, a certificate for each end, a certificate of a stranger, and keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::subject::{Kind, Subject};
use crate::process::output;

pub(super) const SPIPED_KEY: &str = "spiped.key";
/// A certificate that the CA did not issue.
pub(super) const STRANGER: &str = "stranger.pem";

/// Creates the directory, certificates with P-256 keys for a day, and a key for spiped.
pub(super) fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    certificate(dir, "ca", &[])?;
    for end in ["near", "far"] {
        let name = format!("subjectAltName=DNS:{end}");
        let issued =
            ["-CA", "ca.pem", "-CAkey", "ca.pem", "-addext", &name, "-addext", "basicConstraints=CA:FALSE"];
        certificate(dir, end, &issued)?;
    }
    certificate(dir, "stranger", &[])?;
    output(Command::new("openssl").args(["rand", "-out", SPIPED_KEY, "32"]).current_dir(dir)).map(drop)
}

/// Writes `NAME.pem` with a certificate and its key; self-signed without options.
fn certificate(dir: &Path, name: &str, options: &[&str]) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]);
    openssl.args(["-days", "1", "-subj", &format!("/CN={name}"), "-keyout", "key.pem"]).args(options);
    let certificate = output(openssl.current_dir(dir)).context("openssl cannot create a certificate")?;
    let key = fs::read_to_string(dir.join("key.pem"))?;
    Ok(fs::write(dir.join(format!("{name}.pem")), format!("{certificate}\n{key}"))?)
}

/// Lets the ambassador create the secret of its pair.
pub(super) fn create_secret(dir: &Path, subject: &Subject) -> Result<()> {
    if let Kind::Ambassador(_) = subject.kind {
        let secret = output(Command::new(&subject.program).args(["peer", "secret"]));
        // The error would be a help text of several lines.
        let secret = secret.ok().context("this ambassador has no encrypted peers: `peer secret` fails")?;
        let path = dir.join(subject.secret_name());
        fs::write(&path, secret + "\n")?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}
