//! In which words does a person read what happened?
//!
//! From an event to its lines and nothing else: no clock, no terminal, no state. So the same words come from the host itself and from
//! `midair events` elsewhere.

use std::error::Error as _;
use std::fmt::Write as _;

use owo_colors::{OwoColorize, Style};
use serde_json::{Map, Value};

use super::tame;
use crate::HoldReason;
use crate::error::{Error, Stage};
use crate::event::{Event, Kind, Left, Line, Phases};

/// How many of a panic's functions are shown, the innermost first; the event has all of them.
const SHOWN: usize = 6;

/// Whether to use colours on something that is a terminal, or isn't: see no-color.org.
#[must_use]
pub fn color_wanted(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The lines for `event`, without the last line end. `None` where a person has nothing to learn.
#[must_use]
pub fn line(event: &Event, color: bool) -> Option<String> {
    let paint = Paint { color };
    Some(match &tame::event(event) {
        Event::Listening { http, admin, pid, .. } => {
            let admin = admin.as_ref().map_or_else(|| "off".to_owned(), |admin| format!("http://{admin}"));
            format!("{} http://{http} (admin {admin}, pid {pid})", paint.good("listening on"))
        }
        Event::Watching { plugins, folders, files, by } => {
            let what = if plugins.is_empty() { String::new() } else { format!(" for {}", plugins.join(", ")) };
            format!("watching {} in {}{what} (by {by})", count(*files, "file"), count(*folders, "folder"))
        }
        Event::Building { plugins, trigger } => format!("{trigger}: building {}", plugins.join(", ")),
        Event::Diagnostic { level, message, rendered } if rendered.is_empty() => format!("{level}: {}", indented(message)),
        Event::Diagnostic { rendered, .. } => rendered.trim_end().to_owned(),
        Event::Rejected { code, stage, subject, reason, help, serving, .. } => {
            let what = if *stage == Stage::Rollback { "rollback refused" } else { "swap rejected" };
            let head = format!("{} {what} [{code}], {}", paint.bad("error:"), keeps_serving(serving));
            let step = if subject.is_empty() { stage.to_string() } else { format!("{stage} of {subject}") };
            story(&head, &[&step, reason], help.as_deref())
        }
        Event::Published { plugin, generation, phases_us, .. } => {
            format!("{} {}", paint.good(&format!("{plugin} {generation} live")), took(phases_us))
        }
        Event::Configured { plugin, generation, phases_us, .. } => {
            format!("{} {}", paint.good(&format!("{plugin} {generation} has its new config")), took(phases_us))
        }
        Event::Committed { plugin, generation, requests, .. } if *requests > 0 => {
            format!("{plugin} {generation} committed after {}", count(usize::try_from(*requests).unwrap_or(usize::MAX), "answer"))
        }
        Event::RolledBack { plugin, from, to, reason, after_us, by, .. } => {
            let head = format!("{plugin} {to} is back in place of {from}, after {} ms", millis(*after_us));
            let mark = if *by == HoldReason::Hand { paint.good(&head) } else { paint.alert(&head) };
            let help = "the bytes of what was replaced are held; `midair reload --force` takes them again";
            story(&mark, &[reason], Some(help))
        }
        Event::Comparing { plugin, generation, with } => story(
            &format!("{plugin} {generation} answers slower than {plugin} {with} did: is it the code, or the machine?"),
            &[&format!("until that is known, {plugin} {with} answers half of the requests")],
            None,
        ),
        Event::Compared { plugin, generation, reason } => {
            format!(
                "{plugin} {generation} isn't slower than the generation before was in the same time, and answers all again: {reason}"
            )
        }
        Event::Breached { plugin, generation, reason, help } => story(
            &format!("{} {plugin} {generation} does worse than before, and serves on", paint.alert("warning:")),
            &[reason],
            Some(help),
        ),
        Event::Held { plugin, digest, reason, .. } => {
            let digest: String = digest.chars().take(12).collect();
            format!("{plugin}: the bytes {digest} are passed over, {}", indented(reason))
        }
        Event::Died { reason, deaths, .. } => {
            format!(
                "{} {} ({} in a row)",
                paint.alert("warning:"),
                indented(reason),
                count(usize::try_from(*deaths).unwrap_or(usize::MAX), "death")
            )
        }
        Event::Unchanged { plugin, generation, trigger, .. } => {
            format!("{trigger}: unchanged, {plugin} {generation} keeps serving")
        }
        Event::Superseded { trigger, .. } => format!("{trigger}: superseded by a newer change"),
        Event::Retired { plugin, generation, leases } if *leases > 0 => {
            format!("{plugin} {generation} retired, {} still on it", count(*leases, "request"))
        }
        Event::Panicked { plugin, generation, handler, kind, message, location, frames } => {
            let what = if handler.is_empty() {
                format!("{plugin} {generation} panicked outside of a request")
            } else {
                format!("{handler} of {plugin} {generation} panicked{}", met(*kind, "a 500"))
            };
            let mut place = format!("panic at {location}");
            for frame in frames.iter().take(SHOWN) {
                let _ = write!(place, "\nin {frame}");
            }
            if frames.len() > SHOWN {
                let _ = write!(place, "\nand {} more", count(frames.len() - SHOWN, "function"));
            }
            story(&format!("{} {what}", paint.bad("error:")), &[message, &place], None)
        }
        Event::Failed { plugin, generation, handler, kind, error } => {
            let head = format!("{} {handler} of {plugin} {generation} failed{}", paint.bad("error:"), met(*kind, "an error"));
            story(&head, &[error], None)
        }
        Event::Log(said) => logged(said, &paint),
        Event::WorkersBusy { handlers } => {
            format!("{} every worker is inside a handler, new requests wait: {}", paint.alert("warning:"), handlers.join(", "))
        }
        Event::WorkersFree => "a worker is free again".to_owned(),
        Event::Warning { message } => format!("{} {}", paint.alert("warning:"), indented(message)),
        Event::Stopping { signal, in_flight } => {
            format!("{signal}: stopping, {} to finish; a second signal ends at once", count(*in_flight, "request"))
        }
        Event::Stopped(left) => stopped(left),
        Event::Fatal { reason, help, .. } => story(&format!("{} {}", paint.bad("error:"), indented(reason)), &[], help.as_deref()),
        // The times of a build are told when it is live, and that old requests are over when they were said to go on; both only add noise.
        Event::Built { .. } | Event::Retired { .. } | Event::Drained { .. } | Event::Committed { .. } => return None,
    })
}

/// The last word, with what was left.
fn stopped(left: &Left) -> String {
    let beats = usize::try_from(left.beats).unwrap_or(usize::MAX);
    let all = [(left.requests, "request"), (left.tasks, "task"), (beats, "beat"), (left.messages, "message")];
    let left: Vec<String> = all.iter().filter(|(number, _)| *number > 0).map(|(number, thing)| count(*number, thing)).collect();
    if left.is_empty() { "stopped".to_owned() } else { format!("stopped, {} abandoned at the deadline", left.join(", ")) }
}

/// Whom a failure met: a request that got this, or what else called the code.
fn met(kind: Kind, got: &str) -> String {
    match kind {
        Kind::Request => return format!(", its request got {got}"),
        Kind::Beat => " in a beat of this job",
        Kind::Message => " in a message of this topic",
        Kind::Socket => " in an event of a WebSocket",
        Kind::Task => " in a task",
        Kind::Outside => " outside of a request",
    }
    .to_owned()
}

/// A line of a plugin's: whose, in which spans, the words, the fields. The target is told where it isn't the plugin's own.
fn logged(said: &Line, paint: &Paint) -> String {
    let Line { plugin, generation, level, target, message, fields, spans, .. } = said;
    let mut head = format!("{plugin} {generation} {}", level.to_lowercase());
    let own = plugin.replace('-', "_");
    if !target.is_empty() && target.split("::").next() != Some(&own) {
        let _ = write!(head, " {}", indented(target));
    }
    for span in spans {
        let _ = write!(head, " {}{}", indented(&span.name), shown(&span.fields, "{", "}"));
    }
    let mut text = indented(message);
    text.push_str(&shown(fields, if message.is_empty() { "" } else { " " }, ""));
    format!("{} {text}", paint.faint(&format!("{head}:")))
}

fn shown(fields: &Map<String, Value>, before: &str, after: &str) -> String {
    if fields.is_empty() {
        return String::new();
    }
    let all: Vec<_> = fields.iter().map(|(name, value)| format!("{}={}", indented(name), indented(&value.to_string()))).collect();
    format!("{before}{}{after}", all.join(" "))
}

/// A fatal error with its causes and the way out, as main prints it.
#[must_use]
pub fn failure(error: &Error) -> String {
    let mut causes = Vec::new();
    let mut below = error.source();
    while let Some(cause) = below {
        causes.push(cause.to_string());
        below = cause.source();
    }
    let causes: Vec<_> = causes.iter().map(|cause| tame::lines(cause)).collect();
    let causes: Vec<_> = causes.iter().map(String::as_str).collect();
    let head = tame::lines(&error.to_string());
    story(&format!("error: {}", indented(&head)), &causes, error.help_text().map(tame::lines).as_deref()) + "\n"
}

fn story(head: &str, causes: &[&str], help: Option<&str>) -> String {
    let mut text = head.to_owned();
    let labelled = causes.iter().map(|cause| ("caused by", *cause)).chain(help.map(|help| ("help", help)));
    for (label, body) in labelled {
        let _ = write!(text, "\n  {label}: {}", indented(body));
    }
    text
}

/// Later lines stand below the first, so that none passes for a line of the host.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

fn keeps_serving(serving: &[String]) -> String {
    match serving {
        [] => "nothing serves yet".to_owned(),
        [one] => {
            let generation = one.rsplit_once('=').map_or(one.as_str(), |(_, generation)| generation);
            format!("generation {generation} keeps serving")
        }
        several => format!("{} keep serving", several.join(", ").replace('=', " ")),
    }
}

fn took(phases_us: &Phases) -> String {
    let total = phases_us.values().sum::<u64>();
    // What took less than a tenth of a millisecond isn't worth a word.
    let told: Vec<_> =
        phases_us.iter().filter(|(_, us)| **us >= 100).map(|(stage, us)| format!("{stage} {}", millis(*us))).collect();
    let of = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
    format!("after {} ms{of}", millis(total))
}

/// Microseconds as milliseconds, with a digit after the point where it matters.
fn millis(us: u64) -> String {
    let tenths = us.saturating_add(50) / 100;
    if tenths < 100 { format!("{}.{}", tenths / 10, tenths % 10) } else { (us.saturating_add(500) / 1000).to_string() }
}

pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

struct Paint {
    color: bool,
}

impl Paint {
    fn good(&self, text: &str) -> String {
        self.with(Style::new().green().bold(), text)
    }

    fn bad(&self, text: &str) -> String {
        self.with(Style::new().red().bold(), text)
    }

    fn alert(&self, text: &str) -> String {
        self.with(Style::new().yellow().bold(), text)
    }

    fn faint(&self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    fn with(&self, style: Style, text: &str) -> String {
        if self.color { text.style(style).to_string() } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::error::Code;

    /// Reads the event from its JSON, as a client does, and shows it.
    fn check(event: &str, expected: &Expect) {
        let event: Event = serde_json::from_str(event).expect("an event");
        expected.assert_eq(&line(&event, false).unwrap_or_else(|| "(nothing)".to_owned()));
    }

    #[test]
    fn a_rejection_says_what_keeps_serving_and_what_to_do() {
        check(
            r#"{"event":"rejected","attempt":3,"code":"E_LAYOUT","stage":"check","subject":"libshop.so","reason":"`Cart.total` is u32 in the plugin, u64 in the host","help":"rebuild the host","serving":["shop=7"],"phases_us":{},"trigger":"saved src/lib.rs"}"#,
            &expect![[r#"
                error: swap rejected [E_LAYOUT], generation 7 keeps serving
                  caused by: check of libshop.so
                  caused by: `Cart.total` is u32 in the plugin, u64 in the host
                  help: rebuild the host"#]],
        );
        check(
            r#"{"event":"rejected","attempt":3,"code":"E_BUILD","stage":"build","subject":"","reason":"see above\nand below","serving":["shop=7","cart=2"],"phases_us":{},"trigger":"t"}"#,
            &expect![[r#"
                error: swap rejected [E_BUILD], shop 7, cart 2 keep serving
                  caused by: build
                  caused by: see above
                    and below"#]],
        );
        check(
            r#"{"event":"rejected","attempt":1,"code":"E_ELF","stage":"inspect","subject":"a.so","reason":"no library","serving":[],"phases_us":{},"trigger":"t"}"#,
            &expect![[r#"
                error: swap rejected [E_ELF], nothing serves yet
                  caused by: inspect of a.so
                  caused by: no library"#]],
        );
    }

    #[test]
    fn what_is_live_says_how_long_it_took_and_where_the_time_went() {
        check(
            r#"{"event":"published","attempt":1,"plugin":"shop","generation":7,"digest":"d","epoch":9,"phases_us":{"init":99,"load":1249,"build":398400,"stage":9960},"trigger":"t"}"#,
            &expect!["shop 7 live after 410 ms (build 398, stage 10, load 1.2)"],
        );
        check(
            r#"{"event":"published","attempt":1,"plugin":"shop","generation":1,"digest":"d","epoch":1,"phases_us":{},"trigger":"t"}"#,
            &expect!["shop 1 live after 0.0 ms"],
        );
    }

    #[test]
    fn the_rest_of_a_day() {
        for (event, expected) in [
            (
                r#"{"event":"listening","http":"127.0.0.1:3000","admin":"127.0.0.1:3001","pid":7,"run":"r"}"#,
                expect!["listening on http://127.0.0.1:3000 (admin http://127.0.0.1:3001, pid 7)"],
            ),
            (
                r#"{"event":"listening","http":"127.0.0.1:3000","admin":null,"pid":7,"run":"r"}"#,
                expect!["listening on http://127.0.0.1:3000 (admin off, pid 7)"],
            ),
            (
                r#"{"event":"watching","plugins":["shop"],"folders":3,"files":12,"by":"inotify"}"#,
                expect!["watching 12 files in 3 folders for shop (by inotify)"],
            ),
            (
                r#"{"event":"building","plugins":["shop","cart"],"trigger":"saved src/lib.rs"}"#,
                expect!["saved src/lib.rs: building shop, cart"],
            ),
            (r#"{"event":"built","plugins":["shop"],"build_us":3}"#, expect!["(nothing)"]),
            (
                r#"{"event":"diagnostic","level":"error","message":"m","rendered":"error: m\n --> src/lib.rs\n\n"}"#,
                expect![[r#"
                error: m
                 --> src/lib.rs"#]],
            ),
            (
                r#"{"event":"unchanged","attempt":2,"plugin":"shop","generation":7,"digest":"d","trigger":"saved a"}"#,
                expect!["saved a: unchanged, shop 7 keeps serving"],
            ),
            (r#"{"event":"superseded","attempt":2,"trigger":"saved a"}"#, expect!["saved a: superseded by a newer change"]),
            (r#"{"event":"retired","plugin":"shop","generation":6,"leases":1}"#, expect!["shop 6 retired, 1 request still on it"]),
            (r#"{"event":"retired","plugin":"shop","generation":6,"leases":0}"#, expect!["(nothing)"]),
            (
                r#"{"event":"panicked","plugin":"shop","generation":7,"handler":"GET /","message":"boom","location":"src/lib.rs:3:5"}"#,
                expect![[r#"
                    error: GET / of shop 7 panicked, its request got a 500
                      caused by: boom
                      caused by: panic at src/lib.rs:3:5"#]],
            ),
            (
                r#"{"event":"panicked","plugin":"shop","generation":7,"handler":"","message":"boom","location":"src/lib.rs:3:5","frames":["shop::a (src/lib.rs:3)","b","c","d","e","f","g","h"]}"#,
                expect![[r#"
                    error: shop 7 panicked outside of a request
                      caused by: boom
                      caused by: panic at src/lib.rs:3:5
                        in shop::a (src/lib.rs:3)
                        in b
                        in c
                        in d
                        in e
                        in f
                        and 2 functions more"#]],
            ),
            (
                r#"{"event":"failed","plugin":"shop","generation":7,"handler":"GET /","error":"no such cart"}"#,
                expect![[r#"
                    error: GET / of shop 7 failed, its request got an error
                      caused by: no such cart"#]],
            ),
            (
                r#"{"event":"panicked","plugin":"shop","generation":7,"handler":"rank","kind":"beat","message":"boom","location":"src/lib.rs:3:5"}"#,
                expect![[r#"
                    error: rank of shop 7 panicked in a beat of this job
                      caused by: boom
                      caused by: panic at src/lib.rs:3:5"#]],
            ),
            (
                r#"{"event":"panicked","plugin":"shop","generation":7,"handler":"src/lib.rs:9","kind":"task","message":"boom","location":"src/lib.rs:3:5"}"#,
                expect![[r#"
                    error: src/lib.rs:9 of shop 7 panicked in a task
                      caused by: boom
                      caused by: panic at src/lib.rs:3:5"#]],
            ),
            (
                r#"{"event":"failed","plugin":"shop","generation":7,"handler":"paid","kind":"message","error":"no such cart"}"#,
                expect![[r#"
                    error: paid of shop 7 failed in a message of this topic
                      caused by: no such cart"#]],
            ),
            (
                r#"{"event":"failed","plugin":"shop","generation":7,"handler":"shop::said","kind":"socket","error":"no such cart"}"#,
                expect![[r#"
                    error: shop::said of shop 7 failed in an event of a WebSocket
                      caused by: no such cart"#]],
            ),
            (r#"{"event":"log","plugin":"shop","generation":7,"level":"INFO","message":"hello"}"#, expect!["shop 7 info: hello"]),
            (
                r#"{"event":"log","plugin":"my-shop","generation":7,"level":"debug","target":"my_shop::cart","message":"sold","fields":{"id":7,"to":"a b"},"spans":[{"name":"request","fields":{"path":"/"}},{"name":"pay"}],"pid":1,"swaps":2}"#,
                expect![[r#"my-shop 7 debug request{path="/"} pay: sold id=7 to="a b""#]],
            ),
            (
                r#"{"event":"log","plugin":"shop","generation":7,"level":"info","target":"hyper::proto","message":"","fields":{"id":7}}"#,
                expect!["shop 7 info hyper::proto: id=7"],
            ),
            (r#"{"event":"warning","message":"look"}"#, expect!["warning: look"]),
            (
                r#"{"event":"stopping","signal":"SIGINT","in_flight":2}"#,
                expect!["SIGINT: stopping, 2 requests to finish; a second signal ends at once"],
            ),
            (r#"{"event":"stopped","abandoned":0}"#, expect!["stopped"]),
            (r#"{"event":"stopped","abandoned":1}"#, expect!["stopped, 1 request abandoned at the deadline"]),
            (
                r#"{"event":"stopped","abandoned":0,"tasks":2,"beats":1,"messages":3}"#,
                expect!["stopped, 2 tasks, 1 beat, 3 messages abandoned at the deadline"],
            ),
            (
                r#"{"event":"fatal","code":"E_IO","reason":"it broke","help":"mend it"}"#,
                expect![[r#"
                error: it broke
                  help: mend it"#]],
            ),
        ] {
            check(event, &expected);
        }
    }

    #[test]
    fn what_a_plugin_says_can_neither_forge_a_line_nor_steer_the_terminal() {
        check(
            r#"{"event":"log","plugin":"shop","generation":7,"level":"INFO","message":"a\nerror: b\u001b[2Jc\r\n"}"#,
            &expect![[r#"
                shop 7 info: a
                    error: b\u{1b}[2Jc"#]],
        );
    }

    #[test]
    fn a_fatal_error_tells_each_cause_once() {
        let below = std::io::Error::other("address in use");
        let error = Error::fatal(Code::Io, "127.0.0.1:3000", "it can't listen").caused_by(below).help("one\ntwo");
        expect![[r#"
            error: 127.0.0.1:3000: it can't listen
              caused by: address in use
              help: one
                two
        "#]]
        .assert_eq(&failure(&error));
    }

    #[test]
    fn colours_are_there_when_wanted() {
        let event = Event::Warning { message: "look".to_owned() };
        expect![[r#"Some("\u{1b}[33;1mwarning:\u{1b}[0m look")"#]].assert_eq(&format!("{:?}", line(&event, true)));
    }
}
