//! Why credentials cannot be used. Pure.

use std::io;
use std::path::Path;

use tokio_rustls::rustls;

use crate::diagnostic::{Diagnostic, Mistake, Place};

/// Why credentials cannot be used. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A file, or the choice of files.
    #[error("{0}")]
    Files(Box<Diagnostic>),
    /// The host of a target cannot be in a certificate.
    #[error("`{0}` is neither a DNS name nor an IP address: no certificate can name it")]
    Host(String),
    /// A configuration that the TLS library refuses.
    #[error("TLS: {0}")]
    Tls(String),
}

impl CredentialsError {
    /// Returns the error on one line, for logs.
    pub fn one_line(&self) -> String {
        match self {
            CredentialsError::Files(diagnostic) => diagnostic.one_line(),
            CredentialsError::Host(_) | CredentialsError::Tls(_) => self.to_string(),
        }
    }

    pub(super) fn in_file(path: &Path, mistake: Mistake) -> CredentialsError {
        CredentialsError::Files(Box::new(mistake.at(&Place::Path(path.to_owned()))))
    }

    pub(super) fn in_flag(flag: &str, mistake: Mistake) -> CredentialsError {
        CredentialsError::Files(Box::new(mistake.at(&Place::Flag(flag.to_owned()))))
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> CredentialsError {
        let help = match error.kind() {
            io::ErrorKind::IsADirectory => {
                "Docker creates a directory in place of a mounted file that does not exist on the host: check the host's path"
            }
            io::ErrorKind::NotFound => "check the path; in a container the file must be mounted",
            io::ErrorKind::PermissionDenied => {
                "make it readable for the ambassador's user: it should belong to that user and have mode 0600"
            }
            _ => "it must be a regular file",
        };
        CredentialsError::in_file(path, Mistake::new(format!("cannot be read: {error}")).help(help))
    }
}

impl From<CredentialsError> for Diagnostic {
    fn from(error: CredentialsError) -> Diagnostic {
        match error {
            CredentialsError::Files(diagnostic) => *diagnostic,
            other => Mistake::new(other.to_string()).at(&Place::Built),
        }
    }
}

impl From<rustls::Error> for CredentialsError {
    fn from(error: rustls::Error) -> CredentialsError {
        CredentialsError::Tls(error.to_string())
    }
}

impl From<rcgen::Error> for CredentialsError {
    fn from(error: rcgen::Error) -> CredentialsError {
        CredentialsError::Tls(error.to_string())
    }
}

impl From<ring::error::Unspecified> for CredentialsError {
    fn from(error: ring::error::Unspecified) -> CredentialsError {
        CredentialsError::Tls(error.to_string())
    }
}
