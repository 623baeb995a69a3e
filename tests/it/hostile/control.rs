//! Shutdown, reload and operator commands that interrupt each other.
