//! The credentials of encrypted pairs: a CA, a certificate for each end, a certificate of a stranger, and a secret.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::output;

/// Random text: the secret of spiped and of the ambassador.
pub(super) const SECRET: &str = "secret";
/// A certificate that the CA did not issue.
pub(super) const STRANGER: &str = "stranger.pem";

/// Creates the directory, certificates with P-256 keys for a day, and a secret.
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
    let secret = output(Command::new("openssl").args(["rand", "-hex", "32"]))?;
    fs::write(dir.join(SECRET), secret)?;
    Ok(fs::set_permissions(dir.join(SECRET), Permissions::from_mode(0o600))?)
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
