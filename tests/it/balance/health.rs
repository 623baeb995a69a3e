//! Health checks, with real and simulated servers.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ambassador::cluster::health::State;
use ambassador::ending::Ending;
use ambassador::observe::status::Status;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::greetings;
use crate::app::{App, PATIENCE, Service, eventually, greeting, refusing_addr};
use crate::support::{Postgres, needs, skip};

const OFTEN: &str = "health-interval=20ms&health-timeout=250ms&health-rise=2&health-fall=2";

async fn await_state(app: &App, addr: SocketAddr, state: State) {
    let is = || app.condition("r", addr).health == Some(state);
    eventually(&format!("{addr} is {}", state.name()), is).await;
}

#[tokio::test]
async fn endpoint_that_does_not_listen_gets_no_session() {
    let (dead, one) = (refusing_addr().await, Service::named("one").await);
    let app = App::start(&[&format!("127.0.0.1:0={dead},{}?name=r&health=tcp&{OFTEN}", one.addr)]).await;
    await_state(&app, dead, State::Unhealthy).await;
    await_state(&app, one.addr, State::Healthy).await;
    assert_eq!(greetings(app.addr("r"), 10).await["one"], 10);
    let status = Status::of(&app.overview.load(), false);
    let table = status.table();
    let row = table.lines().find(|line| line.trim_start().starts_with(&dead.to_string())).expect(&table);
    assert!(row.contains("  unhealthy, connection refused "), "{table}");
    let _two = Service::at(dead, "two").await;
    await_state(&app, dead, State::Healthy).await;
    assert_eq!(greetings(app.addr("r"), 10).await.len(), 2);
}

/// A server that returns one of two replies to each request.
struct FakeServer {
    addr: SocketAddr,
    is_healthy: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl FakeServer {
    async fn start(question: &'static [u8], healthy: Vec<u8>, unhealthy: Vec<u8>) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, is_healthy) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let mut tasks = JoinSet::new();
        let state = is_healthy.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut heard = vec![0; question.len()];
                if stream.read_exact(&mut heard).await.is_ok() && heard == question {
                    let answer = if state.load(Relaxed) { &healthy } else { &unhealthy };
                    let _ = stream.write_all(answer).await;
                }
            }
        });
        FakeServer { addr, is_healthy, _tasks: tasks }
    }

    /// Waits until it is detected as unhealthy, and as healthy again.
    async fn is_checked_by(&self, check: &str) {
        let app = App::start(&[&format!("127.0.0.1:0={}?name=r&health={check}&{OFTEN}", self.addr)]).await;
        for (is_healthy, state) in [(true, State::Healthy), (false, State::Unhealthy), (true, State::Healthy)]
        {
            self.is_healthy.store(is_healthy, Relaxed);
            await_state(&app, self.addr, state).await;
        }
    }
}

#[tokio::test]
async fn http_check_follows_the_status_of_the_page() {
    let (healthy, unhealthy) = (&b"HTTP/1.1 200 OK\r\n\r\nfine"[..], &b"HTTP/1.1 503 Busy\r\n\r\n"[..]);
    let server =
        FakeServer::start(b"GET /up?deep=1 HTTP/1.1\r\nHost: ", healthy.into(), unhealthy.into()).await;
    server.is_checked_by("http:/up?deep=1").await;
}

#[tokio::test]
async fn loading_redis_is_unhealthy() {
    let (healthy, unhealthy) =
        (&b"-NOAUTH Authentication required.\r\n"[..], &b"-LOADING Redis is loading\r\n"[..]);
    let server = FakeServer::start(b"*1\r\n$4\r\nPING\r\n", healthy.into(), unhealthy.into()).await;
    server.is_checked_by("redis").await;
}

#[tokio::test]
async fn starting_postgres_is_unhealthy() {
    let fields = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let unhealthy = [b"E\0\0\0", &[u8::try_from(fields.len() + 4).unwrap()][..], fields].concat();
    let server =
        FakeServer::start(b"\0\0\0\x2b\0\x03\0\0user\0", b"R\0\0\0\x08\0\0\0\x0a".to_vec(), unhealthy).await;
    server.is_checked_by("postgres").await;
}

/// Returns the reply of the server behind a route.
async fn answer(postgres: &Postgres, addr: SocketAddr, sql: &str) -> Result<String, String> {
    let output = Command::from(postgres.psql(addr)).args(["--command", sql]).output().await.expect("psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn postgres_gets_sessions_only_while_it_accepts_them() {
    let mut postgres = needs!(Postgres::new());
    let addr = postgres.addr();
    let app = App::start(&[&format!("127.0.0.1:0={addr}?name=r&health=postgres&{OFTEN}")]).await;
    await_state(&app, addr, State::Unhealthy).await;
    postgres.start_recovering();
    // Longer than it takes to become healthy.
    eventually("it lets no check in", || postgres.log().matches("is not accepting connections").count() > 9)
        .await;
    assert_eq!(app.condition("r", addr).health, Some(State::Unhealthy));
    postgres.promote();
    await_state(&app, addr, State::Healthy).await;
    let sql = "select sum(length(repeat(n::text, 100))) from generate_series(1, 100000) n";
    assert_eq!(answer(&postgres, app.addr("r"), sql).await.as_deref(), Ok("48889500"));

    postgres.stop();
    await_state(&app, addr, State::Unhealthy).await;
    postgres.start();
    await_state(&app, addr, State::Healthy).await;
    assert_eq!(answer(&postgres, app.addr("r"), "select 6 * 7").await.as_deref(), Ok("42"));
}

#[tokio::test]
async fn stopping_postgres_is_unhealthy_and_keeps_its_session() {
    let mut postgres = needs!(Postgres::new());
    postgres.start();
    let addr = postgres.addr();
    let app = App::start(&[&format!("127.0.0.1:0={addr}?name=r&health=postgres&{OFTEN}")]).await;
    await_state(&app, addr, State::Healthy).await;
    let mut psql = Command::from(postgres.psql(app.addr("r")));
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut session = psql.spawn().expect("psql");
    let (mut stdin, stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let mut lines = BufReader::new(stdout).lines();
    let mut says = async |sql: &str| {
        stdin.write_all(format!("{sql};\n").as_bytes()).await.unwrap();
        tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap()
    };
    assert_eq!(says("select 6 * 7").await.as_deref(), Some("42"));
    // Its port stays open.
    postgres.stop_when_left();
    await_state(&app, addr, State::Unhealthy).await;
    assert!(postgres.log().contains("the database system is shutting down"), "{}", postgres.log());
    assert_eq!(says("select 7 * 8").await.as_deref(), Some("56"));
}

/// A real one, on a port of its own.
async fn redis() -> Option<(Child, SocketAddr)> {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn().ok()?;
    Some((child, SocketAddr::from(([127, 0, 0, 1], port))))
}

#[tokio::test]
async fn hanging_redis_loses_its_sessions_and_gets_new_ones_after_recovery() {
    let Some((redis, addr)) = redis().await else { skip!("no redis-server here") };
    let pid = Pid::from_raw(i32::try_from(redis.id().unwrap()).unwrap()).unwrap();
    let one = Service::named("one").await;
    let route =
        format!("127.0.0.1:0={addr}?name=r&backup={}&health=redis&on-unhealthy=cut&{OFTEN}", one.addr);
    let app = App::start(&[&route]).await;
    await_state(&app, addr, State::Healthy).await;
    // The backup speaks no Redis.
    await_state(&app, one.addr, State::Unhealthy).await;
    let mut consumer = tokio::net::TcpStream::connect(app.addr("r")).await.unwrap();
    consumer.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut pong = [0; 7];
    consumer.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"+PONG\r\n");

    kill_process(pid, Signal::STOP).unwrap();
    let cut = tokio::time::timeout(PATIENCE, consumer.read_u8()).await.unwrap();
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    app.await_ended("r", Ending::Unhealthy, 1).await;

    kill_process(pid, Signal::CONT).unwrap();
    await_state(&app, addr, State::Healthy).await;
    let mut consumer = tokio::net::TcpStream::connect(app.addr("r")).await.unwrap();
    consumer.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    consumer.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
}

#[tokio::test]
async fn all_endpoints_are_tried_when_all_are_unhealthy() {
    let (one, two) = (Service::named("one").await, Service::named("two").await);
    let route = format!("127.0.0.1:0={},{}?name=r&health=redis&{OFTEN}", one.addr, two.addr);
    let app = App::start(&[&route]).await;
    await_state(&app, one.addr, State::Unhealthy).await;
    await_state(&app, two.addr, State::Unhealthy).await;
    assert_eq!(greeting(app.addr("r"), "one").await.1.len(), 3);
}
