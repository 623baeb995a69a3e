//! `ambassador ca`: the certificates of peers.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{err, out, out_escaped};
use crate::credentials::authority::{self, Authority, IssueRequest, Issued, IssuedCertificate};
use crate::credentials::{CredentialsError, name};
use crate::diagnostic::Mistake;
use crate::exit::Exit;
use crate::observe::table::aligned;

pub(super) const EXAMPLES: &str = "\
Examples:
  Create a CA, and a certificate for each host:
    ambassador ca init
    ambassador ca issue host1
    ambassador ca issue host2 --dns host2.example.com
  On host1, with ca.pem, crl.pem and host1.pem copied to it:
    ambassador --peer-cert host1.pem --peer-ca ca.pem --peer-crl crl.pem ...
  Exclude a host, and copy crl.pem to the others:
    ambassador ca revoke host2";

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Create a CA: a P-256 key, valid for 10 years
    ///
    /// Never replaces an existing CA. Keep a backup of the directory: without ca.key no certificate can be issued or revoked.
    Init {
        #[command(flatten)]
        dir: Directory,
        /// A name for people, in the subject of the CA
        #[arg(long, value_name = "NAME", default_value = "peers", value_parser = ca_name)]
        name: String,
    },
    /// Issue a certificate with a new key, in one PEM file for --peer-cert
    ///
    /// The certificate is for both ends of a tunnel. Its names are the SPIFFE ID `spiffe://ambassador/NAME`, the DNS name NAME, and
    /// those of --dns. An existing file is replaced; the previous certificate stays valid until it expires or is revoked.
    Issue(IssueArgs),
    /// Revoke a certificate, or all certificates of a name
    ///
    /// Writes crl.pem, for --peer-crl of every host. A revocation takes effect where this file is: within a second after it was copied.
    Revoke {
        /// The name of a host, or a serial number in hexadecimal
        #[arg(value_name = "NAME|SERIAL")]
        name_or_serial: String,
        #[command(flatten)]
        dir: Directory,
    },
    /// List the certificates that were issued, with their expiry and revocation
    List {
        #[command(flatten)]
        dir: Directory,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace the key of the CA in steps, without an interruption
    ///
    /// Writes the new certificate and the previous one to ca.pem, so that hosts trust both. New certificates are issued with the new key.
    /// When every host has one, `--finish` removes the previous key. Prints each step.
    Rotate {
        #[command(flatten)]
        dir: Directory,
        /// Remove the previous key; refused while a host has a certificate only from that
        #[arg(long)]
        finish: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Directory {
    /// Directory of the CA
    #[arg(long = "dir", value_name = "DIR", default_value = "ambassador-ca")]
    path: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// The identity, usually the name of the host: letters, digits, `-`, `_` and `.`
    #[arg(value_parser = peer_name)]
    name: String,
    /// How long the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    days: u32,
    /// Use the public key of this certificate signing request, and nothing else of it
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// A further name of the host, by which peers dial it: a DNS name or an IP address; repeatable
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// File to write [default: NAME.pem]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    dir: Directory,
}

pub(super) fn run(command: &CaCommand) -> Exit {
    let now = SystemTime::now();
    let done = match command {
        CaCommand::Init { dir, name } => init(&dir.path, name, now),
        CaCommand::Issue(args) => issue(args, now),
        CaCommand::Revoke { name_or_serial, dir } => revoke(&dir.path, name_or_serial, now),
        CaCommand::List { dir, json } => list(&dir.path, *json, now),
        CaCommand::Rotate { dir, finish: false } => rotate(&dir.path, now),
        CaCommand::Rotate { dir, finish: true } => finish(&dir.path, now),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            err(&format!("error: {error}"));
            Exit::Failed
        }
    }
}

fn init(dir: &Path, name: &str, now: SystemTime) -> Result<(), CredentialsError> {
    Authority::create(dir, name, now)?;
    let dir = dir.display();
    out_escaped(&format!(
        "created a CA in {dir}\n\
         \u{20} {dir}/ca.pem   copy it to every host, for --peer-ca\n\
         \u{20} {dir}/crl.pem  copy it to every host, for --peer-crl; it revokes nothing yet\n\
         \u{20} {dir}/ca.key   keep it secret, and keep a backup: it can issue any certificate\n\
         next: `ambassador ca issue NAME` for each host\n"
    ));
    Ok(())
}

fn issue(args: &IssueArgs, now: SystemTime) -> Result<(), CredentialsError> {
    let IssueArgs { name, days, csr, dns, out, dir } = args;
    let request = IssueRequest {
        name: name.clone(),
        days: *days,
        csr: csr.clone(),
        alternative_names: dns.clone(),
        out: out.clone(),
    };
    let Issued { certificate, path } = Authority::open(&dir.path)?.issue(&request, now)?;
    let IssuedCertificate { name, serial, not_after, .. } = certificate;
    let path = path.display();
    let next = match csr {
        None => format!("next: copy {path} to {name} alone, mode 0600, for --peer-cert"),
        Some(_) => format!(
            "next: on {name}, `cat {path} KEY > FILE` with its private key, mode 0600, for --peer-cert"
        ),
    };
    out_escaped(&format!("issued {name}, serial number {serial}, valid until {not_after}: {path}\n{next}\n"));
    Ok(())
}

fn revoke(dir: &Path, name_or_serial: &str, now: SystemTime) -> Result<(), CredentialsError> {
    let mut authority = Authority::open(dir)?;
    let mut text = String::new();
    for IssuedCertificate { name, serial, .. } in authority.revoke(name_or_serial, now)? {
        text.push_str(&format!("revoked {name}, serial number {serial}\n"));
    }
    let path = authority.revocations_path();
    out_escaped(&format!("{text}next: copy {} to every host, for --peer-crl\n", path.display()));
    Ok(())
}

fn list(dir: &Path, is_json: bool, now: SystemTime) -> Result<(), CredentialsError> {
    let authority = Authority::open(dir)?;
    let (cas, certificates) = (authority.certificates(), authority.issued());
    if is_json {
        out(&format!("{:#}\n", json!({ "ca": cas, "certificates": certificates })));
        return Ok(());
    }
    let mut rows = vec![["NAME", "SERIAL", "VALID UNTIL", "STATE", "CA"].map(str::to_owned)];
    rows.extend(certificates.iter().map(|certificate| row(certificate, now)));
    let mut text = aligned(&rows);
    for ca in cas {
        let state = if ca.in_use { "in use" } else { "previous" };
        text.push_str(&format!("CA `{}`, {state}, valid until {}\n", ca.name, ca.not_after));
    }
    out_escaped(&text);
    Ok(())
}

fn row(certificate: &IssuedCertificate, now: SystemTime) -> [String; 5] {
    let IssuedCertificate { name, serial, ca, not_after, revoked, .. } = certificate;
    let state = match revoked {
        Some(at) => format!("revoked {at}"),
        None if certificate.is_valid(now) => "valid".to_owned(),
        None => "expired".to_owned(),
    };
    [name.clone(), serial.clone(), not_after.to_string(), state, ca.clone()]
}

fn rotate(dir: &Path, now: SystemTime) -> Result<(), CredentialsError> {
    let mut authority = Authority::open(dir)?;
    authority.rotate(now)?;
    let (bundle, lists) = (authority.bundle_path(), authority.revocations_path());
    let (bundle, lists) = (bundle.display(), lists.display());
    out_escaped(&format!(
        "created a new key; {bundle} has its certificate and the previous one\n\
         next:\n\
         \u{20} 1. copy {bundle} and {lists} to every host, over the files of --peer-ca and --peer-crl\n\
         \u{20} 2. then issue each host a new certificate with `ambassador ca issue NAME`, and copy it over that of --peer-cert\n\
         \u{20} 3. then `ambassador ca rotate --finish`, and copy {bundle} and {lists} to every host again\n"
    ));
    Ok(())
}

fn finish(dir: &Path, now: SystemTime) -> Result<(), CredentialsError> {
    let mut authority = Authority::open(dir)?;
    authority.finish_rotation(now)?;
    let (bundle, lists) = (authority.bundle_path(), authority.revocations_path());
    let (bundle, lists) = (bundle.display(), lists.display());
    out_escaped(&format!("removed the previous key\nnext: copy {bundle} and {lists} to every host\n"));
    Ok(())
}

fn peer_name(text: &str) -> Result<String, String> {
    checked(text, name::check(text))
}

fn ca_name(text: &str) -> Result<String, String> {
    checked(text, authority::check_name(text))
}

fn checked(text: &str, check: Result<(), Mistake>) -> Result<String, String> {
    match check {
        Ok(()) => Ok(text.to_owned()),
        Err(Mistake { message, help }) => Err(help.unwrap_or(message)),
    }
}
