//! The admin API: paths, guards, and isolation of clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::http::{get, post, request, send};
use super::service::{greeting, service};
use super::{done, start, status};
use crate::support::Ambassador;

#[test]
fn commands_and_responses_are_json() {
    let (one, two) = (service("one"), service("two"));
    let ambassador = start(one, "");
    let admin = ambassador.admin();
    let paused = post(&admin, "/routes/r/pause", "").json();
    assert_eq!(paused["route"]["by_hand"]["paused"], true);
    assert!(paused["message"].as_str().unwrap().contains("is paused"));
    assert_eq!(post(&admin, "/routes/r/resume", "{}").json()["route"]["by_hand"]["paused"], false);
    let body = format!("{{\"targets\":[\"{two}\"],\"old\":\"cut\"}}");
    assert_eq!(post(&admin, "/routes/r/switch", &body).json()["route"]["targets"][0], two.to_string());
    assert_eq!(post(&admin, "/routes/r/switch", "{\"reset\":true}").status, 200);
    let body = format!("{{\"endpoint\":\"{one}\",\"weight\":3}}");
    assert_eq!(post(&admin, "/routes/r/weight", &body).json()["route"]["endpoints"][0]["weight"], 3);
    let body = format!("{{\"endpoint\":\"{one}\"}}");
    assert_eq!(post(&admin, "/routes/r/drain", &body).json()["route"]["endpoints"][0]["drained"], true);
    let body = format!("{{\"route\":\"127.0.0.3:0={two}?name=53%/udp\"}}").replace('%', "");
    assert_eq!(post(&admin, "/routes", &body).status, 200);
    assert_eq!(get(&admin, "/routes/53/udp").json()["name"], "53/udp");
    assert_eq!(get(&admin, "/routes/53%2Fudp").json()["name"], "53/udp");
    assert_eq!(post(&admin, "/routes/53/udp/pause", "").status, 200);
    assert_eq!(request(&admin, "DELETE /routes/53/udp", "", "").status, 200);
    assert_eq!(get(&admin, "/routes").json()["routes"].as_array().unwrap().len(), 1);
}

#[test]
fn errors_are_json_with_a_help_text() {
    let ambassador = start(service("one"), "");
    let admin = ambassador.admin();
    let long = format!("{{\"route\":\"{}\"}}", "x".repeat(70_000));
    for (line, body, status, says) in [
        ("POST /routes/pg/pause", "", 404, "unknown route `pg`"),
        ("GET /routes/pg", "", 404, "unknown route `pg`"),
        ("GET /sessions?route=pg", "", 404, "unknown route `pg`"),
        ("GET /sessions?limit=many", "", 400, "limit"),
        ("GET /sessions?rout=r", "", 400, "rout"),
        ("GET /events?since=-1", "", 400, "since"),
        ("POST /routes/r/puase", "", 400, "did you mean `pause`"),
        ("POST /routes/r/pause", "{", 400, "invalid body"),
        ("POST /routes/r/switch", "{}", 400, "targets"),
        ("POST /routes/r/switch", "{\"targets\":\"a:0\"}", 400, "from 1 to 65535"),
        ("POST /routes", "{\"route\":\"80\"}", 400, "6379=redis:6379"),
        ("POST /routes", "{\"route\":\"1=a:1?name=r\"}", 409, "this name"),
        ("POST /status", "", 405, "GET"),
        ("GET /nothing", "", 404, "/metrics"),
    ] {
        let reply = request(&admin, line, "content-type: application/json\n", body);
        assert_eq!(reply.status, status, "{line}: {}", reply.body);
        assert!(reply.json()["error"].as_str().unwrap().contains(says), "{line}: {}", reply.body);
    }
    assert_eq!(post(&admin, "/routes", &long).status, 413);
    assert_eq!(post(&admin, "/routes/pg/pause", "").json()["known"][0], "r");
    assert_eq!(status(&ambassador, "r")["by_hand"]["paused"], false);
}

#[test]
fn web_page_cannot_send_commands() {
    let ambassador = start(service("one"), "");
    let admin = ambassador.admin();
    let json = "content-type: application/json\n";
    for (line, headers, status) in [
        ("POST /routes/r/pause", "content-type: text/plain\n".to_owned(), 415),
        ("POST /routes/r/pause", String::new(), 415),
        ("POST /routes/r/pause", format!("{json}origin: http://evil.example\n"), 403),
        ("DELETE /routes/r", "origin: null\n".to_owned(), 403),
        ("GET /config", "origin: http://evil.example\n".to_owned(), 403),
        ("POST /routes/r/pause", "content-type: Application/JSON; charset=utf-8\n".to_owned(), 200),
    ] {
        assert_eq!(request(&admin, line, &headers, "").status, status, "{line} {headers}");
    }
}

#[test]
fn slow_clients_do_not_delay_others() {
    let ambassador = start(service("one"), "");
    let admin = ambassador.admin();
    let mut slow: Vec<UnixStream> = Vec::new();
    for n in 0..200 {
        let mut stream = UnixStream::connect(&admin).unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /status HTTP/1.1\r\n").unwrap();
        }
        slow.push(stream);
    }
    // Some follow the events and do not read.
    slow.extend((0..100).map(|_| send(&admin, "GET /events", "", "")));
    for _ in 0..5 {
        let began = Instant::now();
        done(&ambassador, "health");
        done(&ambassador, "pause r");
        done(&ambassador, "resume r");
        assert_eq!(get(&admin, "/metrics").status, 200);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    assert_eq!(greeting(ambassador.addr("r")).unwrap().1, "one");
    drop(slow);
}

#[test]
fn api_on_tcp_equals_the_api_on_unix_sockets() {
    // The port is free briefly before it is bound again; no other test uses this address.
    let free = TcpListener::bind("127.0.0.91:0").unwrap().local_addr().unwrap();
    let routes = format!("--admin {free} 127.0.0.1:0={}?name=r", service("one"));
    let ambassador = Ambassador::with(&routes).spawn();
    let pause = format!("pause r --admin {free}");
    crate::support::eventually("an answer on TCP", || {
        let output = ambassador.verb(&pause);
        if output.status.success() { Ok(()) } else { Err(ambassador.log()) }
    });
    let mut stream = TcpStream::connect(free).unwrap();
    stream.write_all(b"GET /routes/r HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"paused\":true"), "{answer}");
}
