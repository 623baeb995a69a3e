//! The pictures of the documentation, which `cargo xtask screenshots` makes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::admin::service::{greeting, service_on};
use crate::support::{needs, pause};

use super::page::Page;

fn save(page: &Page, name: &str) {
    let shot = page.browser.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
    let Value::String(data) = &shot["data"] else { panic!("{shot}") };
    fs::write(Path::new("docs/images").join(name), BASE64.decode(data.as_bytes()).unwrap()).unwrap();
}

const ROUTES: [&str; 8] = [
    "127.0.88.1:5432=127.0.88.11:5432,127.0.88.12:5432?name=postgres&hold=30s",
    "127.0.88.1:6379=127.0.88.13:6379?name=redis",
    "127.0.88.1:8080=127.0.88.14:8080,127.0.88.15:8080,127.0.88.16:8080?name=shop&health=tcp&health-interval=1s",
    "127.0.88.1:9200=127.0.88.17:9200,127.0.88.18:9200?name=search",
    "127.0.88.1:3306=127.0.88.19:3306?name=orders&backup=127.0.88.20:3306",
    "127.0.88.1:7000=127.0.88.21:7000?name=billing&hold=3s",
    "127.0.88.1:5672=127.0.88.22:5672?name=queue",
    "127.0.88.1:5300/udp=127.0.88.23:53?name=dns",
];

/// The services that run: the last parts of their addresses.
const SERVICES: [(u8, u16); 10] = [
    (11, 5432),
    (12, 5432),
    (13, 6379),
    (14, 8080),
    (15, 8080),
    (17, 9200),
    (18, 9200),
    (19, 3306),
    (20, 3306),
    (22, 5672),
];

/// Routes with clients: the port, and the milliseconds between two sessions and of one session.
const CLIENTS: [(u16, u64, u64); 7] = [
    (5432, 400, 6000),
    (6379, 120, 700),
    (8080, 90, 250),
    (9200, 300, 900),
    (3306, 900, 9000),
    (7000, 2500, 100),
    (5672, 1500, 9000),
];

/// So long that the pictures of the last 10 minutes are full.
const RUN: Duration = Duration::from_secs(560);

/// Opens sessions to a route until the test's process ends, sometimes more and sometimes fewer.
fn clients(port: u16, between_ms: u64, length_ms: u64) {
    std::thread::spawn(move || {
        for n in 0_u32.. {
            let wave =
                1.0 + 0.6 * (f64::from(n) * between_ms as f64 / (5_000.0 + 3.0 * f64::from(port))).sin();
            pause(Duration::from_secs_f64(between_ms as f64 * wave / 1000.0));
            std::thread::spawn(move || {
                let Ok((mut session, _)) = greeting(([127, 0, 88, 1], port).into()) else { return };
                let _ = session.write_all(&vec![b'x'; 1_000 + 37 * (n as usize % 50)]);
                pause(Duration::from_millis(length_ms * u64::from(1 + n % 3) / 2));
            });
        }
    });
}

#[test]
#[ignore = "writes docs/images: `cargo xtask screenshots`"]
fn pictures_of_the_documentation() {
    for (host, port) in SERVICES {
        service_on(([127, 0, 88, host], port).into(), "one");
    }
    let page = needs!(Page::open(&ROUTES.join(" ")));
    for (port, between_ms, length_ms) in CLIENTS {
        clients(port, between_ms, length_ms);
    }
    page.browser.devtools("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
    pause(RUN);
    page.post("/routes/search/weight", &json!({ "endpoint": "127.0.88.17:9200", "weight": 3 }));
    page.browser.sees("need attention");
    for scheme in ["light", "dark"] {
        page.browser.prefer(scheme);
        for (width, height, view) in [(1600, 1000, "/"), (1024, 900, "/route/shop"), (390, 844, "/")] {
            page.browser.resize(width, height);
            page.show(view);
            // The charts are loaded when the details are opened.
            pause(Duration::from_secs(3));
            save(&page, &format!("web-{width}-{scheme}.png"));
        }
    }
}
