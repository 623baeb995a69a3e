//! The `ambassador` program. The library documents it.

use std::process::ExitCode;

use ambassador::cli;
use ambassador::config::vars::Vars;
use tikv_jemallocator::Jemalloc;

/// Returns the memory of ended sessions to the kernel. glibc's allocator keeps a heap while its last page is in use: after 5,000
/// concurrent sessions, 8 of 10 MB remained.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let arguments = std::env::args_os().collect();
    cli::run(arguments, &Vars::from_process()).into()
}
