//! Routes that compete for file descriptors.
