//! Commands from the page: each shows its effects first, and can be undone.

use serde_json::Value;

use crate::admin::service::{greeting, service};
use crate::support::{eventually, needs};

use super::page::{ESCAPE, Page};

/// Waits until the status of the route `r` is so.
fn route_is(page: &Page, what: &str, is: impl Fn(&Value) -> bool) {
    eventually(what, || {
        let route = page.route("r");
        if is(&route) { Ok(()) } else { Err(route.to_string()) }
    });
}

fn targets(route: &Value) -> &Value {
    &route["targets"][0]
}

#[test]
fn route_is_paused_by_keys_and_resumed_by_undo() {
    let page = needs!(Page::open(&format!("127.0.0.1:0={}?name=r", service("one"))));
    page.browser.sees("The route is healthy");
    page.browser.press("j");
    page.until("the focus on the route", "return document.activeElement.textContent === 'r'");
    page.browser.press("p");
    page.browser.sees("new sessions are held");
    page.browser.press(ESCAPE);
    page.until("no dialog", "return !document.querySelector('dialog')");
    assert_eq!(page.route("r")["by_hand"]["paused"], false, "nothing is done before it is confirmed");
    page.browser.press("p");
    page.click_button("dialog", "Pause");
    page.browser.sees("paused");
    route_is(&page, "a pause", |route| route["by_hand"]["paused"] == true);
    page.click_button(".results", "Undo");
    route_is(&page, "the end of the pause", |route| route["by_hand"]["paused"] == false);
}

#[test]
fn switch_on_trial_shows_its_progress_and_is_rolled_back() {
    let (one, two) = (service("one"), service("two"));
    let page = needs!(Page::open(&format!("127.0.0.1:0={one}?name=r")));
    page.show("/route/r");
    page.browser.press("s");
    page.browser.type_into("#targets", "127.0.0.1:1");
    page.browser.sees("What this does");
    page.click_button("dialog", "Switch");
    page.browser.sees("Switch on trial");
    page.browser.sees("127.0.0.1:1: connection refused");
    assert_eq!(greeting(page.ambassador.addr("r")).unwrap().1, "one", "the previous endpoint stays in use");
    page.click_button(".trialstate", "Roll back");
    page.click_button("dialog", "Restore");
    route_is(&page, "the targets of before", |route| *targets(route) == one.to_string());
    page.until("the end of the trial", "return !document.querySelector('.trialstate')");
    page.browser.press("s");
    page.browser.type_into("#targets", &two.to_string());
    page.click_button("dialog", "Switch");
    route_is(&page, "the new targets", |route| {
        *targets(route) == two.to_string() && route["by_hand"]["switch"]["state"] == "kept"
    });
    assert_eq!(greeting(page.ambassador.addr("r")).unwrap().1, "two");
    page.browser.sees(&format!("Switched to {two} instead of {one}"));
}

#[test]
fn invalid_targets_stay_in_the_field_with_the_error() {
    let page = needs!(Page::open(&format!("127.0.0.1:0={}?name=r", service("one"))));
    page.show("/route/r");
    page.browser.press("s");
    page.browser.type_into("#targets", "db2:70000");
    page.browser.sees("write a number from 1 to 65535");
    let field = page
        .browser
        .script("const f = document.querySelector('#targets'); return [f.value, f.ariaInvalid]", &[]);
    assert_eq!(field, serde_json::json!(["db2:70000", "true"]));
    let is_disabled =
        page.browser.script("return document.querySelector('dialog [type=submit]').disabled", &[]);
    assert_eq!(is_disabled, true);
}

#[test]
fn weight_is_set_by_the_slider_and_endpoint_is_drained() {
    let (one, two) = (service("one"), service("two"));
    let page = needs!(Page::open(&format!("127.0.0.1:0={one},{two}?name=r")));
    page.show("/route/r");
    page.click_button(".endpoints", "weight 1");
    page.browser.type_into("dialog [type=range]", "\u{e014}\u{e014}");
    page.browser.sees("75 %");
    page.click_button("dialog", "Set weight");
    route_is(&page, "the weight", |route| route["endpoints"][0]["weight"] == 3);
    page.click_button(".endpoints", "drain");
    page.browser.sees("takes no new sessions");
    page.click_button("dialog", "Drain");
    route_is(&page, "the drain", |route| route["endpoints"][0]["drained"] == true);
    page.until("the result", "return !document.querySelector('dialog')");
    page.browser.press("u");
    route_is(&page, "the end of the drain", |route| route["endpoints"][0]["drained"] == false);
    page.browser.sees("Weight 3");
}

#[test]
fn route_is_removed_and_added_again() {
    let page = needs!(Page::open(&format!("127.0.0.1:0={}?name=r", service("one"))));
    page.show("/route/r");
    page.click_button(".detail", "Remove");
    page.browser.sees("What this does");
    page.click_button("dialog", "Remove");
    page.browser.sees("This route does not exist");
    page.click_button(".results", "Undo");
    route_is(&page, "the route", |route| route["state"] == "ok");
}
