//! The command line, as clap reads it.

/// What `ambassador` itself takes, and `ambassador check`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunArgs {
    /// Routes: LISTEN=TARGET[,TARGET...][?option=value[&...]], or the two words HOST PORT
    #[arg(value_name = "ROUTE")]
    pub routes: Vec<String>,
}
pub const EXAMPLES: &str = "";
pub fn ancestor(a: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    a
}
