//! The tests that meet the outside: real servers, real engines. One binary.

mod docker_source;
