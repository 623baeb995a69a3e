//! The web page in a real browser.

mod accessible;
mod commands;
mod hostile;
mod many;
mod page;
mod screenshots;
mod sources;
mod states;
mod tabs;
