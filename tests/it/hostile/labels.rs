//! Containers whose labels ask for more than their own ports.
