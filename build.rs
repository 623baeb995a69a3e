//! Has the linker put together what runs when the program starts.
//!
//! With each page of the program that is needed the kernel maps those around it, 64 KB of them. Functions in the order of their
//! crates are needed here and there, so that nearly all of 5 MB was mapped; in this order it is 1.6.
//!
//! `AMBASSADOR_LINK_ORDER=off` leaves it out, for a linker that knows no scripts. GNU ld and LLD do.
#![expect(clippy::disallowed_methods, reason = "a build script is told by its environment")]

use std::env::{self, VarError};

fn main() -> Result<(), VarError> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link-order.ld");
    println!("cargo::rerun-if-env-changed=AMBASSADOR_LINK_ORDER");
    let is_off = env::var("AMBASSADOR_LINK_ORDER").is_ok_and(|order| order == "off");
    if env::var("PROFILE")? == "release" && !is_off {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/link-order.ld", env::var("CARGO_MANIFEST_DIR")?);
    }
    Ok(())
}
