//! Carina's tutorial, "Connect containers by using the ambassador pattern", by the files of the example.

use crate::support::{Host, Secret, eventually, hosts, http_get, needs};

const PAGE: &str = r#"The linked container says ... "Hello World!""#;

#[test]
fn web_page_of_the_tutorial_shows_the_reply_of_the_app_on_the_other_host() {
    let hosts = needs!(hosts());
    let (clustera, clusterb) = (&hosts.a, &hosts.b);
    let _names = (clustera.documents_names(), clusterb.documents_names());
    let _app = clustera.named(["app", "app-ambassador"]);
    let _web = clusterb.named(["app-ambassador", "web"]);

    let printed = run(clustera, "clustera.sh", &[]);
    assert!(printed.contains("map[5000/tcp:{}]"), "{printed}");
    assert_eq!(published_port(&printed), 5000);

    let source_ambassador = clustera.address(5000).to_string();
    let port = published_port(&run(clusterb, "clusterb.sh", &[&source_ambassador]));
    let web = clusterb.address(port);
    let page = clustera.namespace.run(|| eventually("the web's page", || http_get(web)));
    assert_eq!(page, PAGE);
}

#[test]
fn web_page_of_the_tutorial_is_served_through_an_encrypted_tunnel() {
    let hosts = needs!(hosts());
    let (clustera, clusterb) = (&hosts.a, &hosts.b);
    let _names = (clustera.documents_names(), clusterb.documents_names());
    let _app = clustera.named(["app", "app-ambassador"]);
    let _web = clusterb.named(["app-ambassador", "web"]);
    let secret = Secret::new();
    let secret_file = secret.path().display().to_string();

    run(clustera, "clustera-encrypted.sh", &[&secret_file]);
    let first = clustera.ip.expect("an address").to_string();
    let port = published_port(&run(clusterb, "clusterb-encrypted.sh", &[&first, &secret_file]));
    let web = clusterb.address(port);
    let page = clustera.namespace.run(|| eventually("the web's page", || http_get(web)));
    assert_eq!(page, PAGE);
}

fn run(host: &Host, file: &str, args: &[&str]) -> String {
    host.example(&format!("hello-world/{file}"), args).unwrap_or_else(|why| panic!("{why}"))
}

/// Parses a line like `5000/tcp -> 0.0.0.0:32770`.
fn published_port(printed: &str) -> u16 {
    let line = printed.lines().find(|line| line.starts_with("5000/tcp -> ")).expect("a published port");
    line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a number")
}
