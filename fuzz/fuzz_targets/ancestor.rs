//! The ancestors' command lines, a word a line: none panics.
#![no_main]

use std::ffi::OsString;

use ambassador::config::ancestor::ancestor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = ancestor(text.lines().map(OsString::from).collect());
});
