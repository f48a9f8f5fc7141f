//! Does the example's live page keep moving while its code is edited?

use midair_tests::browser::Browser;
use midair_tests::host::Launch;
use midair_tests::project::Project;
use serde_json::Value;

use crate::inside::until;
use crate::load::show;

#[test]
fn the_examples_live_statistics_keep_moving_on_one_connection_while_its_code_is_edited() {
    let project = Project::example("live-example");
    // While the edit is built, nobody here reads, or answers pings.
    let mut midair = Launch::dev(&[project.root()]).arg("--socket-silence").arg("600").start();
    midair.published();
    let page = midair.get("/live");
    assert!(page.status == 200 && page.body.contains("WebSocket"), "{}", page.body);
    let mut socket = midair.http().socket("/live");
    let mut told = || -> Value { serde_json::from_str(&socket.text()).expect("JSON") };
    assert_eq!(told()["links"], 0);
    let made = midair.http().post("/links", &serde_json::json!({ "url": "https://example.org", "slug": "home" }));
    assert_eq!(made.status, 201);
    until("a link", || told()["links"] == 1);
    project.edit("plugin/src/lib.rs", "json!({ \"links\": links.len(), ", "json!({ \"links\": links.len(), \"new\": \"code\", ");
    midair.published();
    until("what the new code tells", || told()["new"] == "code");
    assert_eq!(midair.get("/home").status, 307);
    until("a click", || told()["clicks"] == 1);
}

/// Needs Chromium; without it there is nothing to see.
#[test]
fn the_live_page_moves_in_a_browser_while_its_code_is_edited_and_is_never_loaded_again() {
    let project = Project::example("live-in-a-browser");
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    let Some(mut browser) = Browser::open(&format!("http://{}/live", midair.http().0)) else {
        return show("left out: there is no Chromium here");
    };
    let shows = |browser: &mut Browser, text: &str| {
        browser.until(&format!("document.querySelector('pre')?.textContent.includes({})", Value::from(text)));
    };
    shows(&mut browser, "\"links\": 0");
    browser.eval("window.same = true");
    let made = midair.http().post("/links", &serde_json::json!({ "url": "https://example.org", "slug": "home" }));
    assert_eq!(made.status, 201);
    shows(&mut browser, "\"links\": 1");
    project.edit("plugin/src/lib.rs", "json!({ \"links\": links.len(), ", "json!({ \"links\": links.len(), \"new\": \"code\", ");
    midair.published();
    shows(&mut browser, "\"new\": \"code\"");
    assert_eq!(midair.get("/home").status, 307);
    shows(&mut browser, "\"clicks\": 1");
    assert_eq!(browser.eval("window.same"), true, "still the page that was loaded first");
}
