//! `ambassador register`, from the command line to the exit code.

use super::serve::start_log;
use super::{block_on, err, fail};
use crate::config::vars::Vars;
use crate::exit::Exit;
use crate::observe;
use crate::register::args::RegisterArgs;

pub(super) fn register(args: &RegisterArgs, vars: &Vars) -> Exit {
    let plan = match args.plan(vars) {
        Ok(plan) => plan,
        Err(mistakes) => {
            err(&observe::config::mistakes(&mistakes, false));
            return Exit::Usage;
        }
    };
    let _log = match start_log(plan.log, vars) {
        Ok(log) => log,
        Err(exit) => return exit,
    };
    match block_on(crate::register::run(plan)) {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(error)) | Err(error) => fail(&format!("cannot start: {error}")),
    }
}
