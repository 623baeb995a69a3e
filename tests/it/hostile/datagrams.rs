//! Floods of UDP datagrams, and UDP listeners whose options change.
