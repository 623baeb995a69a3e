//! demo

use crate::cli::Exit;
use crate::config::vars::Vars;

pub fn run(_once: bool, _vars: &Vars) -> Exit {
    Exit::Failed
}
