//! Screens as text, in `golden/`. A file that is missing is written: look at it, then run the test again.

use std::path::Path;
use std::time::{Duration, Instant};

use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;
use serde_json::{Value, json};

use super::super::action::Outcome;
use super::super::fixtures::{endpoint, route, status};
use super::super::model::{Fetched, Input, Key};
use super::*;

fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-22T02:14:05Z").unwrap()
}

/// Returns a model that has read two statuses, of which the second has 10 more sessions of each route.
fn model(change: impl Fn(&mut Status)) -> Model {
    let mut model = Model::new(Duration::from_secs(1));
    let start = Instant::now();
    for second in 0..40u32 {
        let mut status = status(vec![
            route("pg", |route| {
                route.endpoints = vec![
                    endpoint("10.0.0.1:5432 (container db1 0123456789ab)", |_| {}),
                    endpoint("10.0.0.2:5432 (container db2 ba9876543210)", |_| {}),
                ];
                (route.active, route.bytes_up) = (14, 5_000 * u64::from(second));
            }),
            route("redis", |route| {
                route.addresses = vec!["0.0.0.0:6379".to_owned()];
                route.targets = vec!["redis:6379".to_owned()];
                route.endpoints = vec![endpoint("10.0.0.3:6379", |_| {})];
                route.active = 3;
            }),
        ]);
        for (n, route) in (1..).zip(&mut status.routes) {
            route.sessions_total = u64::from(second * second / 4) * n;
        }
        change(&mut status);
        let at = start + Duration::from_secs(second.into());
        let events = if second == 0 { events() } else { vec![] };
        let fetched = Fetched { status, events, history: None, at };
        model.update(Input::Fetched(Box::new(fetched)), now());
    }
    model
}

fn events() -> Vec<Value> {
    let event = |seq: u64, event: &str, message: &str, endpoint: &str| {
        let time = format!("2026-11-22T02:10:0{seq}.000Z");
        json!({ "seq": seq, "time": time, "event": event, "message": message, "route": "pg", "endpoint": endpoint })
    };
    vec![
        event(1, "endpoint-added", "endpoint added", "10.0.0.1:5432 (container db1 0123456789ab)"),
        event(2, "endpoint-unreachable", "endpoint unreachable", "10.0.0.2:5432"),
        event(3, "endpoint-reachable", "endpoint reachable again", "10.0.0.2:5432"),
    ]
}

fn failing(status: &mut Status) {
    let [pg, redis] = &mut status.routes[..] else { panic!() };
    pg.endpoints[1].health = Some("unhealthy".to_owned());
    (pg.severity, pg.state_since) = (1, "2026-11-22T02:10:00.000Z".to_owned());
    (redis.state, redis.severity, redis.held) = ("held".to_owned(), 6, 3);
    redis.state_since = "2026-11-22T02:13:00.000Z".to_owned();
    redis.failed_total = redis.sessions_total / 3;
    let endpoint = &mut redis.endpoints[0];
    (endpoint.failing, endpoint.last_error) = (true, Some("connection refused".to_owned()));
    status.lost.insert("docker".to_owned(), "connection refused".to_owned());
}

fn paused(status: &mut Status) {
    let route = &mut status.routes[0];
    (route.state, route.severity, route.by_hand.paused, route.held) = ("paused".to_owned(), 3, true, 14);
    route.state_since = "2026-11-22T02:14:00.000Z".to_owned();
}

fn many(status: &mut Status) {
    status.routes = (0..1_000)
        .map(|n| {
            route(&format!("route-{n:04} with a long \u{1b}[31mname"), |route| {
                (route.active, route.severity) = (n, u8::from(n == 500) * 7);
                if n == 500 {
                    route.state = "no endpoint".to_owned();
                } else {
                    route.endpoints = vec![endpoint("10.0.0.1:1", |_| {})];
                }
            })
        })
        .collect();
}

fn screen(model: &Model, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(model, frame.area(), frame.buffer_mut(), Palette::Colour, now())).unwrap();
    text(terminal.backend().buffer())
}

fn check(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cli/top/golden/{name}.txt"));
    if !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, shown).unwrap();
        panic!("{} is new:\n{shown}", path.display());
    }
    assert_eq!(shown, std::fs::read_to_string(&path).unwrap(), "{name} differs:\n{shown}");
}

fn check_both(name: &str, model: &Model) {
    let sizes = [(80, 24), (120, 40)];
    let shown = sizes.map(|size| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            check(&format!("{name}-{}x{}", size.0, size.1), &screen(model, size));
        }))
    });
    assert!(shown.iter().all(Result::is_ok));
}

#[test]
fn screens() {
    let mut lost = model(|_| {});
    let why = "no ambassador answers at unix:/run/ambassador/admin.sock (connection refused): is one running?\nhelp";
    lost.update(Input::Lost(why.to_owned()), now() - Duration::from_secs(12));
    check_both("lost", &lost);
    check_both("all-well", &model(|_| {}));
    check_both("failing", &model(failing));
    check_both("paused", &model(paused));
    check_both("thousand-routes", &model(many));
    check_both("empty", &model(|status| status.routes.clear()));
}

#[test]
fn dialogs() {
    let press = |model: &mut Model, keys: &[Key]| {
        for key in keys {
            model.update(Input::Key(*key), now());
        }
    };
    let mut confirm = model(|_| {});
    press(&mut confirm, &[Key::Char('p')]);
    let outcome = Outcome {
        effects: vec![
            "14 open sessions continue".to_owned(),
            "new sessions wait until `resume`, without a limit on the time; at most 10000 sessions of all routes".to_owned(),
        ],
        ..Outcome::default()
    };
    confirm.update(Input::Answered { dry_run: true, result: Ok(outcome) }, now());
    check("confirm-80x24", &screen(&confirm, (80, 24)));
    let mut prompt = model(|_| {});
    press(&mut prompt, &[Key::Char('x'), Key::Char('d'), Key::Char('b'), Key::Char('2')]);
    check("switch-80x24", &screen(&prompt, (80, 24)));
    let mut help = model(|_| {});
    press(&mut help, &[Key::Char('?')]);
    check("help-80x24", &screen(&help, (80, 24)));
    let mut details = model(failing);
    press(&mut details, &[Key::Enter]);
    check("details-80x24", &screen(&details, (80, 24)));
}

#[test]
fn snapshot_has_all_routes() {
    check("once-120", &snapshot(&model(failing), 120, now()));
    let all = snapshot(&model(many), 80, now());
    assert!(all.contains("route-0999") && !all.contains('\u{1b}'), "{all}");
}

#[test]
fn small_screen_is_explained_and_no_size_panics() {
    let model = model(failing);
    assert!(screen(&model, (59, 24)).contains("too small: at least 60x16"));
    for width in [0, 1, 2, 60, 61, 99, 100, 500] {
        for height in [0, 1, 2, 15, 16, 17, 300] {
            screen(&model, (width, height));
        }
    }
}
