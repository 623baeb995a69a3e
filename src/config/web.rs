//! The settings of the web page (`--web`, `--web-token-file`). Pure.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, Mistake, Place};

/// Where the web page is served, and who may open it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSettings {
    /// `None` if the page is not served.
    pub listen: Option<SocketAddr>,
    /// The file of the token that requests must present. Required unless `listen` is a loopback address.
    pub token_file: Option<PathBuf>,
}

impl WebSettings {
    /// Returns the mistakes in the combination of the settings. `place` returns where a setting was written.
    pub(super) fn mistakes(&self, place: impl Fn(&str) -> Place) -> Vec<Diagnostic> {
        let mistake = match self {
            WebSettings { listen: Some(addr), token_file: None } if !addr.ip().is_loopback() => {
                let message = format!("other hosts can reach `{addr}`, so the web page needs a token");
                let help = "write one into a file (`openssl rand -hex 32`) and give it with `web-token-file`, or listen on \
                            127.0.0.1";
                Mistake::new(message).help(help).at(&place("web"))
            }
            WebSettings { listen: None, token_file: Some(_) } => {
                let help = "add `web`, the address of the page";
                Mistake::new("`web-token-file` has no effect without `web`")
                    .help(help)
                    .at(&place("web-token-file"))
            }
            _ => return Vec::new(),
        };
        vec![mistake]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(listen: Option<&str>, token_file: Option<&str>) -> String {
        let listen = listen.map(|addr| addr.parse().unwrap());
        let settings = WebSettings { listen, token_file: token_file.map(PathBuf::from) };
        let mistakes = settings.mistakes(|name| Place::Flag(name.to_owned()));
        mistakes.iter().map(Diagnostic::one_line).collect()
    }

    #[test]
    fn page_that_other_hosts_can_reach_needs_a_token() {
        for listen in ["0.0.0.0:9700", "[::]:9700", "10.0.0.1:9700"] {
            assert!(mistakes(Some(listen), None).starts_with("--web: other hosts can reach"), "{listen}");
            assert_eq!(mistakes(Some(listen), Some("/t")), "");
        }
        for listen in ["127.0.0.1:9700", "127.1.2.3:0", "[::1]:9700"] {
            assert_eq!(mistakes(Some(listen), None), "");
        }
        assert_eq!(mistakes(None, None), "");
        assert!(mistakes(None, Some("/t")).starts_with("--web-token-file: `web-token-file` has no effect"));
    }
}
