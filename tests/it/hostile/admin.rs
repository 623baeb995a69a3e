//! The admin API, unix socket paths and process 1 under attack: other programs' files, other users' sockets, web pages.

mod init;
mod page;
mod paths;
mod socket_names;
mod web;
