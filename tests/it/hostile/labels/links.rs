//! A link of the ambassador's own container and its variables.

use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use super::{Engine, endpoints, has_endpoints, port, status};
use crate::support::{Ambassador, Service, eventually};

const OWN: &str = "0a0b0c0d0e0f";

fn id(beginning: &str) -> String {
    format!("{beginning:0<64}")
}

/// Returns a container on the default bridge that exposes this port.
fn container(beginning: &str, name: &str, ip: &str, exposed: u16, links: &[&str]) -> Value {
    json!({
        "Id": id(beginning), "Name": format!("/{name}"), "Image": "", "State": { "Running": true },
        "HostConfig": { "NetworkMode": "default", "Links": links },
        "Config": { "ExposedPorts": { format!("{exposed}/tcp"): {} } },
        "NetworkSettings": { "Networks": { "bridge": { "NetworkID": "bridge-id", "IPAddress": ip } } },
    })
}

#[test]
fn link_of_a_removed_container_holds_clients_and_ignores_its_variable() {
    let (engine, stranger) = (Engine::new(), Service::new("bad"));
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    engine.start("amb", container(OWN, "amb", "198.51.100.9", 1, &["/redis:/amb/redis"]));
    engine.start("redis", container("a", "redis", "198.51.100.1", listen, &[]));
    // The address in the variable now belongs to another container.
    let value = format!("tcp://127.0.0.1:{}", port(&stranger));
    let ambassador = Ambassador::with("--docker")
        .var("DOCKER_HOST", &engine.docker_host())
        .var(&format!("REDIS_PORT_{listen}_TCP"), &value)
        .on_host(OWN)
        .start();
    let route = listen.to_string();
    has_endpoints(&ambassador, &route, &[&id("a")]);

    engine.remove("redis");
    engine.start("amb", container(OWN, "amb", "198.51.100.9", 1, &[]));
    has_endpoints(&ambassador, &route, &[]);
    let client = TcpStream::connect(("127.0.0.1", listen)).unwrap();
    eventually("the client is held", || {
        let status = status(&ambassador);
        let route = status["routes"].as_array().unwrap().iter().find(|found| found["name"] == route);
        if route.is_some_and(|route| route["held"] == 1) { Ok(()) } else { Err(status) }
    });
    assert_eq!(endpoints(&ambassador, &route), Some(Vec::new()));
    drop(client);

    engine.start("redis", container("b", "redis", "198.51.100.2", listen, &[]));
    has_endpoints(&ambassador, &route, &[&id("b")]);
}
