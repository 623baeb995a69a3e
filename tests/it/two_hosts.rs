//! The two-host example of Docker's "Link via an ambassador container".

use crate::support::{
    Capture, Compose, Host, Hosts, Project, Secret, compose_1, compose_5, eventually, hosts, needs, unique,
};

/// The commands of the documentation for the server's host.
const BIG_SERVER: &str = "192.168.1.52";

/// Replaces the address in the commands of the documentation.
#[test]
fn two_host_example_of_docker_documentation_works_as_written() {
    let hosts = needs!(hosts());
    let (big_server, client_server) = (&hosts.a, &hosts.b);
    let _names = (big_server.documents_names(), client_server.documents_names());
    let _big = big_server.named(["redis", "redis_ambassador"]);
    let _client = client_server.named(["redis_ambassador"]);

    big_server.shell("docker run -d --name redis crosbymichael/redis");
    big_server.shell(
        "docker run -d --link redis:redis --name redis_ambassador -p 6379:6379 svendowideit/ambassador",
    );
    client_server.shell(&with_address_of(
        big_server,
        "docker run -d --name redis_ambassador --expose 6379 \
         -e REDIS_PORT_6379_TCP=tcp://192.168.1.52:6379 svendowideit/ambassador",
    ));
    let redis_cli =
        client_server.terminal("docker run -i -t --rm --link redis_ambassador:redis relateiq/redis-cli");
    redis_cli.shows("6379> ");
    redis_cli.type_line("ping");
    redis_cli.shows("PONG");
    redis_cli.type_line("quit");
}

fn with_address_of(host: &Host, line: &str) -> String {
    line.replace(BIG_SERVER, &host.ip.expect("an address").to_string())
}

#[test]
fn two_host_example_files_work_with_links_and_networks() {
    let hosts = needs!(hosts());
    let (big_server, client_server) = (&hosts.a, &hosts.b);
    let address = big_server.ip.expect("an address").to_string();
    let _names = (big_server.documents_names(), client_server.documents_names());
    let _cleaned = [CleanupGuard(big_server), CleanupGuard(client_server)];

    let capture = needs!(Capture::start(&hosts));

    run(big_server, "big-server.sh", &[]);
    run(client_server, "client-server.sh", &[&address]);
    assert_eq!(run(client_server, "ping.sh", &[]), "PONG");
    assert!(capture.has_seen(&stored_value(client_server)), "without encryption");
    let today = run(client_server, "today.sh", &[&address]);
    assert!(today.ends_with("PONG"), "{today}");
}

#[test]
fn encrypted_example_sends_no_plain_byte_between_the_hosts() {
    let hosts = needs!(hosts());
    let (big_server, client_server) = (&hosts.a, &hosts.b);
    let address = big_server.ip.expect("an address").to_string();
    let _names = (big_server.documents_names(), client_server.documents_names());
    let _cleaned = [CleanupGuard(big_server), CleanupGuard(client_server)];
    let capture = needs!(Capture::start(&hosts));
    let secret = Secret::new();
    let secret_file = secret.path().display().to_string();

    run(big_server, "encrypted-server.sh", &[&secret_file]);
    run(client_server, "encrypted-client.sh", &[&address, &secret_file]);
    assert_eq!(run(client_server, "ping.sh", &[]), "PONG");
    let stored = stored_value(client_server);
    assert!(!capture.has_seen(&stored), "{stored} was sent in plain");
    assert!(!capture.has_seen(&secret.line()), "the secret was sent");
}

#[test]
fn encrypted_example_works_with_compose_1() {
    serves_the_other_host(needs!(hosts()), needs!(compose_1()));
}

#[test]
fn encrypted_example_works_with_compose_v5() {
    serves_the_other_host(needs!(hosts()), needs!(compose_5()));
}

/// Offers Redis by the Compose file, which reads the secret beside it.
fn serves_the_other_host(Hosts { a: big_server, b: client_server }: Hosts, compose: Compose) {
    let _names = (big_server.documents_names(), client_server.documents_names());
    let _cleaned = CleanupGuard(&client_server);
    let secret = Secret::new();
    let file = secret.path().with_file_name("compose.yaml");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/two-host-redis/compose.yaml");
    std::fs::copy(example, &file).expect("a directory of our own");
    let file = file.display().to_string();
    let project = Project { compose, host: &big_server, name: "encrypted", file: &file, image: "ambassador" };
    project.compose("up -d");

    let address = big_server.ip.expect("an address").to_string();
    run(&client_server, "encrypted-client.sh", &[&address, &secret.path().display().to_string()]);
    assert_eq!(run(&client_server, "ping.sh", &[]), "PONG");
}

/// Stores a value through the ambassador of the client's host, reads it, and returns it.
fn stored_value(client_server: &Host) -> String {
    let value = unique("stored-value");
    let redis_cli = "run -i --rm --link redis_ambassador:redis redis redis-cli -h redis";
    assert_eq!(client_server.docker(&format!("{redis_cli} set greeting {value}")), "OK");
    assert_eq!(client_server.docker(&format!("{redis_cli} get greeting")), value);
    value
}

fn run(host: &Host, file: &str, args: &[&str]) -> String {
    host.example(&format!("two-host-redis/{file}"), args).unwrap_or_else(|why| panic!("{why}"))
}

/// Runs the script of the example.
struct CleanupGuard<'a>(&'a Host);

impl Drop for CleanupGuard<'_> {
    fn drop(&mut self) {
        self.0.example("two-host-redis/clean.sh", &[]).ok();
    }
}

/// A link sets no variables on a user-defined network, and with Docker 29 on no network.
#[test]
fn link_without_variables_is_read_from_the_docker_socket() {
    let hosts = needs!(hosts());
    let network = hosts.a.network("links", "");
    let redis = hosts.a.start("redis", &format!("--network {} crosbymichael/redis", network.name));
    let ambassador = hosts.a.start(
        "ambassador",
        &format!(
            "--network {} --link {}:redis -v /var/run/docker.sock:/var/run/docker.sock:ro svendowideit/ambassador",
            network.name,
            redis.name()
        ),
    );
    let addr = ambassador.address(6379);
    let answer = hosts.a.namespace.run(|| eventually("an answer", || crate::support::redis_ping(addr)));
    assert_eq!(answer, "PONG");
}
