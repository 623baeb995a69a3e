//! Statuses for tests.

use serde_json::json;

use crate::observe::status::{EndpointStatus, RouteStatus, Status};

pub(super) fn status(routes: Vec<RouteStatus>) -> Status {
    let value = json!({
        "version": "0.1.0", "draining": false, "routes": [], "lost": {}, "mistakes": [], "removed": [], "workers": [],
        "started_at": "2026-11-22T00:00:00Z", "sources": [],
    });
    let mut status: Status = serde_json::from_value(value).unwrap();
    status.routes = routes;
    status
}

pub(super) fn route(name: &str, change: impl FnOnce(&mut RouteStatus)) -> RouteStatus {
    let value = json!({
        "name": name, "state": "ok", "listen": "5432", "addresses": ["0.0.0.0:5432"], "targets": ["db:5432"],
        "origin": "argument 1", "balance": "p2c", "leaving": [], "active": 0, "held": 0, "bytes_up": 0,
        "bytes_down": 0, "endings": {}, "by_hand": { "paused": false, "weights": {}, "drained": [], "waiting": false },
        "endpoints": [], "problems": [], "severity": 0, "state_since": "2026-11-22T02:00:00.000Z",
        "line": "5432=db:5432", "protocol": "tcp",
    });
    let mut route = serde_json::from_value(value).unwrap();
    change(&mut route);
    route
}

pub(super) fn endpoint(description: &str, change: impl FnOnce(&mut EndpointStatus)) -> EndpointStatus {
    let value = json!({
        "address": description, "description": description, "backup": false, "tier": 0, "weight": 1, "drained": false,
        "sessions": 3, "health": "healthy",
    });
    let mut endpoint = serde_json::from_value(value).unwrap();
    change(&mut endpoint);
    endpoint
}
