//! Clients and endpoints that try to eject healthy endpoints or delay their checks.
