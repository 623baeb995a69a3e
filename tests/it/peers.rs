//! Sessions through peers: real ambassadors with tunnels between them, strangers, hostile peers and foreign ones.

mod bytes;
mod credentials;
mod envoy;
mod hostile_clients;
mod hostile_servers;
mod network;
mod options;
mod outages;
mod raw;
mod reverse;
mod stops;
mod strangers;
