//! Keys and responses in, effects out.

use serde_json::json;

use super::super::fixtures::{endpoint, route, status};
use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn model(routes: Vec<RouteStatus>) -> Model {
    let mut model = Model::new(Duration::from_secs(1));
    fetched(&mut model, routes, vec![]);
    model
}

fn fetched(model: &mut Model, routes: Vec<RouteStatus>, events: Vec<Value>) {
    let fetched = Fetched { status: status(routes), events, history: None, at: Instant::now() };
    assert_eq!(model.update(Input::Fetched(Box::new(fetched)), NOW), None);
}

fn press(model: &mut Model, keys: &str) -> Option<Effect> {
    keys.chars().fold(None, |_, key| {
        let key = match key {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\t' => Key::Tab,
            '\u{8}' => Key::Backspace,
            key => Key::Char(key),
        };
        model.update(Input::Key(key), NOW)
    })
}

fn names(model: &Model) -> Vec<&str> {
    model.routes().iter().map(|route| route.name.as_str()).collect()
}

fn three() -> Vec<RouteStatus> {
    vec![
        route("a", |route| route.active = 5),
        route("c", |route| (route.severity, route.active) = (1, 1)),
        route("b", |route| {
            (route.severity, route.state) = (7, "no endpoint".to_owned());
            route.endpoints = vec![
                endpoint("10.0.0.1:1", |_| {}),
                endpoint("10.0.0.2:1", |endpoint| endpoint.drained = true),
            ];
        }),
    ]
}

fn request(effect: Option<Effect>) -> (String, Value, bool) {
    let Some(Effect::Send { action, dry_run }) = effect else { panic!("{effect:?}") };
    let request = action.request(dry_run);
    (request.path, serde_json::from_str(&request.body).unwrap(), dry_run)
}

fn answer(model: &mut Model, dry_run: bool, outcome: Value) -> Option<Effect> {
    let result = Ok(serde_json::from_value(outcome).unwrap());
    model.update(Input::Answered { dry_run, result }, NOW)
}

#[test]
fn worst_route_is_first_and_the_selection_follows_its_name() {
    let mut model = model(three());
    assert_eq!(names(&model), ["b", "c", "a"]);
    press(&mut model, "j");
    assert_eq!(model.route().unwrap().name, "c");
    let mut later = three();
    later[0].severity = 8;
    fetched(&mut model, later, vec![]);
    assert_eq!((names(&model), model.route().unwrap().name.as_str()), (vec!["a", "b", "c"], "c"));
    press(&mut model, "jjjjG");
    assert_eq!(model.route().unwrap().name, "c");
    press(&mut model, "g");
    assert_eq!(model.route().unwrap().name, "a");
    fetched(&mut model, vec![], vec![]);
    assert!(model.route().is_none());
}

#[test]
fn routes_are_sorted_and_filtered() {
    let mut model = model(three());
    press(&mut model, "s");
    assert_eq!(names(&model), ["a", "b", "c"]);
    press(&mut model, "s");
    assert_eq!(names(&model), ["a", "c", "b"]);
    press(&mut model, "/10.0.0.2");
    assert_eq!((names(&model), &model.mode), (vec!["b"], &Mode::Filter));
    press(&mut model, "x\n");
    assert_eq!(names(&model), [""; 0]);
    assert_eq!(press(&mut model, "p"), None, "no route is selected");
    press(&mut model, "\u{1b}");
    assert_eq!(names(&model).len(), 3);
}

#[test]
fn command_is_sent_after_its_effects_were_confirmed_and_can_be_undone() {
    let mut model = model(three());
    let dry_run = request(press(&mut model, "p"));
    assert_eq!(dry_run, ("/routes/b/pause".to_owned(), json!({ "dry_run": true }), true));
    assert_eq!(press(&mut model, "\n"), None, "the effects are not known yet");
    answer(&mut model, true, json!({ "message": "would pause", "effects": ["new sessions wait"] }));
    let Mode::Confirm(confirm) = &model.mode else { panic!("{:?}", model.mode) };
    assert_eq!(confirm.step, Step::Ready(vec!["new sessions wait".to_owned()]));
    assert_eq!(request(press(&mut model, "\n")), ("/routes/b/pause".to_owned(), json!({}), false));
    assert_eq!(press(&mut model, "\n"), None, "it is sent once");
    let undo = json!({ "method": "POST", "path": "/routes/b/resume", "body": {} });
    let refresh = answer(&mut model, false, json!({ "message": "b is paused", "effects": [], "undo": undo }));
    assert_eq!((refresh, &model.mode), (Some(Effect::Refresh), &Mode::Browse));
    assert_eq!(model.result, Some(Ok("b is paused".to_owned())));
    assert_eq!(request(press(&mut model, "u")).0, "/routes/b/resume");
}

#[test]
fn cancelled_command_is_not_sent() {
    for cancel in ["\u{1b}", "n", "q"] {
        let mut model = model(three());
        press(&mut model, "r");
        assert_eq!(press(&mut model, cancel), None);
        assert_eq!(answer(&mut model, true, json!({ "message": "", "effects": ["x"] })), None);
        assert_eq!(model.mode, Mode::Browse, "a late response opens nothing");
        assert_eq!(press(&mut model, "u"), None, "there is nothing to undo");
    }
}

#[test]
fn failed_command_is_explained() {
    let mut model = model(three());
    press(&mut model, "p");
    model.update(Input::Answered { dry_run: true, result: Err("unknown route `b`".to_owned()) }, NOW);
    let Mode::Confirm(confirm) = &model.mode else { panic!() };
    assert_eq!(confirm.step, Step::Failed("unknown route `b`".to_owned()));
    assert_eq!((press(&mut model, "\n"), &model.mode), (None, &Mode::Browse));
}

#[test]
fn earlier_version_without_dry_runs_is_confirmed_without_effects() {
    let mut model = model(three());
    press(&mut model, "p");
    let error = "invalid body: unknown field `dry_run`".to_owned();
    model.update(Input::Answered { dry_run: true, result: Err(error) }, NOW);
    assert!(!request(press(&mut model, "y")).2);
}

#[test]
fn commands_for_endpoints_use_the_selected_one() {
    let mut model = model(three());
    let drain = request(press(&mut model, "d"));
    assert_eq!(drain.1, json!({ "endpoint": "10.0.0.1:1", "undo": false, "dry_run": true }));
    press(&mut model, "\u{1b}\tj");
    assert_eq!(request(press(&mut model, "d")).1["undo"], true, "it is drained");
    press(&mut model, "\u{1b}w-1\n");
    let Mode::Prompt(prompt) = &model.mode else { panic!() };
    assert!(prompt.error.is_some());
    assert_eq!(request(press(&mut model, "\u{8}\u{8}30\u{8}\n")).1["weight"], 3);
    press(&mut model, "\u{1b}");
    assert_eq!(request(press(&mut model, "wreset\n")).1["reset"], true);
}

#[test]
fn targets_of_a_switch_are_typed() {
    let mut model = model(three());
    assert_eq!(press(&mut model, "x\n"), None, "nothing was typed");
    let switch = request(press(&mut model, "db2:5432\n"));
    assert_eq!(
        switch,
        ("/routes/b/switch".to_owned(), json!({ "targets": "db2:5432", "dry_run": true }), true)
    );
    press(&mut model, "\u{1b}");
    assert_eq!(request(press(&mut model, "xreset\n")).1["reset"], true);
}

#[test]
fn events_are_newest_first_and_those_of_a_restarted_process_replace_them() {
    let mut model = model(vec![]);
    let event = |seq: u64| json!({ "seq": seq, "event": "route-up" });
    fetched(&mut model, vec![], (1..=250).map(event).collect());
    assert_eq!((model.last_event(), model.events.len()), (250, EVENTS_MAX));
    fetched(&mut model, vec![], vec![event(251)]);
    assert_eq!(model.last_event(), 251);
    fetched(&mut model, vec![], vec![event(1), event(2)]);
    assert_eq!((model.last_event(), model.events.len()), (2, 2));
}

#[test]
fn lost_connection_is_dated_and_ends_with_the_next_status() {
    let mut model = model(three());
    model.update(Input::Lost("refused".to_owned()), NOW);
    model.update(Input::Lost("refused again".to_owned()), NOW + Duration::from_secs(5));
    assert_eq!(model.lost, Some(("refused again".to_owned(), NOW)));
    fetched(&mut model, three(), vec![]);
    assert_eq!(model.lost, None);
}

#[test]
fn quits_by_q_or_an_interrupt_and_details_close_first() {
    let mut model = model(three());
    assert_eq!(press(&mut model, "\nq"), None);
    assert_eq!(press(&mut model, "?q"), None, "any key closes the help");
    assert_eq!(press(&mut model, "q"), Some(Effect::Quit));
    press(&mut model, "p");
    assert_eq!(model.update(Input::Key(Key::Interrupt), NOW), Some(Effect::Quit));
}
