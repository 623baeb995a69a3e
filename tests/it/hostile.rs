//! Behaviour under attack: a hostile client, container, registry, name server and neighbour, and exhausted descriptors.

mod admin;
mod bytes;
mod control;
mod datagrams;
mod descriptors;
mod discovery;
mod health;
mod labels;
mod loops;
mod registries;
