//! UDP flows.
