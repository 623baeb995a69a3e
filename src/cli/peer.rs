//! `ambassador peer`: commands for both ends of a tunnel between two ambassadors.

use clap::Subcommand;

use super::peer_check::{self, CheckArgs};
use super::{fail, out};
use crate::config::vars::Vars;
use crate::credentials::secret;
use crate::exit::Exit;

const SECRET_EXAMPLES: &str = "\
Examples:
  Create a secret, and copy it to the other host:
    ambassador peer secret > secret
    scp -p secret host2:
  Replace it without an interruption: accept the new one on every host, then use it, then remove the old one:
    ambassador peer secret >> secret";

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Print a new secret, for --peer-secret-file of every host
    ///
    /// The secret is 256 random bits in hexadecimal. If standard output is a file, only its owner can read it afterwards (mode
    /// 0600). The first line of the file is the secret in use; the secrets in further lines are accepted as well.
    #[command(after_help = SECRET_EXAMPLES)]
    Secret,
    /// Check a peer step by step: DNS, TCP, TLS, identity, export and endpoint
    ///
    /// Exits with 1 if a step fails, and prints what to do. A session with the export is opened and reset at once: the service sees a
    /// connection without data.
    #[command(after_help = peer_check::EXAMPLES)]
    Check(CheckArgs),
}

pub(super) fn run(command: &PeerCommand, vars: &Vars) -> Exit {
    match command {
        PeerCommand::Check(args) => peer_check::check(args, vars),
        PeerCommand::Secret => match secret::generate() {
            Ok(secret) => {
                make_private();
                out(&format!("{secret}\n"));
                Exit::Done
            }
            Err(error) => fail(&format!("no random bytes: {error}")),
        },
    }
}

/// Restricts the file that a shell has opened as standard output, before the secret is in it.
fn make_private() {
    use rustix::fs::{FileType, Mode, fchmod, fstat};
    let stdout = std::io::stdout();
    let is_file =
        fstat(&stdout).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if is_file {
        // The file may belong to another user. The ambassador warns of files that every user can read.
        let _ = fchmod(&stdout, Mode::RUSR | Mode::WUSR);
    }
}
