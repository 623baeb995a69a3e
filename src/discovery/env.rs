//! Link variables: `REDIS_PORT_6379_TCP=tcp://172.17.0.2:6379`, as the ancestor's `sed` reads them. Pure.

use crate::config::vars::Vars;
use crate::diagnostic::Diagnostic;
use crate::route::Route;

/// The routes that link variables ask for, one per listener port and protocol.
pub fn links(_vars: &Vars) -> (Vec<Route>, Vec<Diagnostic>) {
    (Vec::new(), Vec::new())
}
