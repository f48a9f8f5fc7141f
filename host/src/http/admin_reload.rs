//! How does whoever asks for a reload learn what came of it?
//!
//! With `wait` the answer is a stream of the events from its begin to its end, as `/events` tells them, and last an object with what came of
//! all of it: that one is made from the records, so it holds whatever else happens meanwhile. A stream without it is that of a host that ended.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream::{self, Stream};
use http::{StatusCode, Uri};
use serde_json::json;
use tokio::sync::mpsc;

use super::admin_context::{Room, message, refuse};
use crate::report::attempt::{Asker, Ending};
use crate::report::error::Stage;
use crate::report::event::{Bus, Event};

/// Events that a slow reader may fall behind before it is let go.
const QUEUE: usize = 1024;

pub(super) async fn reload(State(room): State<Room>, uri: Uri) -> Response {
    let (mut force, mut wait) = (false, false);
    for part in uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let asked = match name {
            "force" => &mut force,
            "wait" => &mut wait,
            _ => return refuse(StatusCode::BAD_REQUEST, UNKNOWN),
        };
        *asked = match value {
            "" | "true" => true,
            "false" => false,
            _ => return refuse(StatusCode::BAD_REQUEST, UNKNOWN),
        };
    }
    let (told, hears) = mpsc::channel(QUEUE);
    let bus = room.host.events().clone();
    let asker = wait.then(|| Box::new(Waiting { bus, told, is_over: false }) as Box<dyn Asker>);
    if !(room.reload)(force, asker) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping, or lost the loop that looks for changes");
    }
    if wait {
        return Sse::new(story(hears)).keep_alive(KeepAlive::default()).into_response();
    }
    (StatusCode::ACCEPTED, Json(json!({ "accepted": true }))).into_response()
}

const UNKNOWN: &str = "the only things to ask for are `force` and `wait`";

/// What whoever waits is told.
enum Told {
    Event(Arc<Event>),
    Outcome(Ending),
    /// Nobody looks any more.
    Gone,
}

struct Waiting {
    bus: Bus,
    told: mpsc::Sender<Told>,
    is_over: bool,
}

impl Asker for Waiting {
    fn begins(&mut self) {
        let told = self.told.clone();
        // It runs on the loop's own thread, as all that it says from now on.
        self.bus.listen_from_now(move |event| !is_of_a_reload(event) || told.try_send(Told::Event(Arc::clone(event))).is_ok());
    }

    fn ends(mut self: Box<Self>, ending: Ending) {
        self.is_over = true;
        // Who fell so far behind is let go.
        let _ = self.told.try_send(Told::Outcome(ending));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_over {
            // Whoever went away doesn't miss it.
            let _ = self.told.try_send(Told::Gone);
        }
    }
}

/// Whether an event between begin and end of a reload is likely to be of it.
fn is_of_a_reload(event: &Event) -> bool {
    match event {
        // One by hand.
        Event::Rejected { stage, .. } => *stage != Stage::Rollback,
        Event::Building { .. }
        | Event::Built { .. }
        | Event::Diagnostic { .. }
        | Event::Published { .. }
        | Event::Configured { .. }
        | Event::Unchanged { .. }
        | Event::Superseded { .. }
        | Event::Held { .. }
        | Event::Warning { .. } => true,
        _ => false,
    }
}

fn story(hears: mpsc::Receiver<Told>) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    stream::unfold(Some(hears), async |hears| {
        let mut hears = hears?;
        match hears.recv().await? {
            Told::Event(event) => Some((Ok(message(&event)), Some(hears))),
            Told::Outcome(ending) => {
                let mut told = json!(ending);
                told["event"] = json!("outcome");
                Some((Ok(sse::Event::default().event("outcome").data(told.to_string())), None))
            }
            Told::Gone => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::report::attempt::Outcome;
    use crate::report::error::Code;
    use crate::swap::{self, Host};

    /// Asks for a reload that goes as `goes` has it, and answers the status and the names of what was told.
    fn check(query: &str, goes: impl Fn(&Bus, Option<Box<dyn Asker>>) + Send + Sync + 'static) -> (u16, Vec<String>) {
        let data = tempfile::tempdir().expect("a folder");
        let host = Host::new(swap::Options::new(data.path())).expect("a host");
        let bus = host.events().clone();
        let reload = Arc::new(move |_, asker| {
            goes(&bus, asker);
            true
        });
        let uri = format!("/reload{query}").parse().expect("a page");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let answer = super::reload(State(Room { host, reload }), uri).await;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            (status, text.lines().filter_map(|line| Some(line.strip_prefix("event: ")?.to_owned())).collect())
        })
    }

    fn said(text: &str) -> Event {
        Event::Warning { message: text.to_owned() }
    }

    fn ending() -> Ending {
        Ending { outcome: Outcome::Rejected, code: Some(Code::Elf), attempts: vec![1] }
    }

    #[test]
    fn who_waits_is_told_what_is_said_from_begin_to_end_and_what_came_of_it() {
        let (status, told) = check("?wait&force=true", |bus, asker| {
            let mut asker = asker.expect("somebody waits");
            bus.say(said("before"));
            asker.begins();
            bus.say(Event::Built { plugins: Vec::new(), build_us: 1 });
            bus.say(Event::WorkersFree);
            asker.ends(ending());
            bus.say(said("after"));
        });
        assert_eq!((status, told), (200, vec!["built".to_owned(), "outcome".to_owned()]));
    }

    #[test]
    fn a_loop_that_ends_lets_those_go_who_wait() {
        assert_eq!(check("?wait", |_, asker| drop(asker)), (200, Vec::new()));
        let (status, told) = check("?wait", |_, asker| asker.expect("somebody waits").begins());
        assert_eq!((status, told), (200, Vec::new()));
    }

    #[test]
    fn who_does_not_wait_is_answered_at_once_and_other_questions_are_refused() {
        for (query, status) in [("", 202), ("?force", 202), ("?wait=false&force=", 202), ("?fast", 400), ("?wait=5", 400)] {
            assert_eq!(check(query, |_, asker| assert!(asker.is_none())).0, status, "{query}");
        }
    }
}
