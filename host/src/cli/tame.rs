//! What of the words of others may reach a terminal?
//!
//! Requests, plugins, artifacts and their authors choose texts that a person reads: paths, names, reasons, panics. A terminal obeys control
//! characters in them, and a line end would let one pass for a line of the host. So everything that didn't come from midair itself goes
//! through here before it is worded: control characters are shown, not obeyed, and a text of several lines stays one thing.

use serde_json::Value;

use crate::event::Event;

/// Where a text may have several lines; who words it sets the later ones below the first.
const BODIES: [&str; 6] = ["reason", "message", "error", "help", "frames", "rendered"];

/// The same event with nothing in it that a terminal obeys.
pub(super) fn event(event: &Event) -> Event {
    let told = serde_json::to_value(event).and_then(|mut value| {
        json(&mut value);
        serde_json::from_value(value)
    });
    // What was written is read: an event that isn't is told by its name.
    told.unwrap_or_else(|error| Event::Warning { message: format!("an event can't be shown: {error}; --json tells it") })
}

/// Makes all texts in it tame: those that may have several lines keep them, and no other does. A compiler's diagnostics keep their colours.
pub(super) fn json(value: &mut Value) {
    match value {
        Value::String(said) => *said = text(said),
        Value::Array(list) => list.iter_mut().for_each(json),
        Value::Object(fields) => {
            let all = std::mem::take(fields).into_iter();
            *fields = all
                .map(|(name, mut value)| {
                    match &mut value {
                        Value::String(said) if name == "rendered" => *said = with(said.trim_end(), true, true),
                        Value::String(said) if BODIES.contains(&name.as_str()) => *said = lines(said),
                        other => json(other),
                    }
                    (text(&name), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// On one line.
pub(super) fn text(said: &str) -> String {
    with(said, false, false)
}

/// With its lines, and without the end of the last one.
pub(super) fn lines(said: &str) -> String {
    with(said.trim_end(), true, false)
}

fn with(said: &str, has_lines: bool, has_colors: bool) -> String {
    let mut tame = String::with_capacity(said.len());
    let mut rest = said;
    while let Some(character) = rest.chars().next() {
        let color = if has_colors { color(rest) } else { 0 };
        let length = color.max(character.len_utf8());
        match character {
            _ if color > 0 => tame.push_str(&rest[..color]),
            '\n' if has_lines => tame.push(character),
            // A tab moves no further than its line.
            '\t' => tame.push(character),
            _ if is_obeyed(character) => tame.extend(character.escape_default()),
            _ => tame.push(character),
        }
        rest = &rest[length..];
    }
    tame
}

/// Control characters, and those that turn the direction in which a line is read.
fn is_obeyed(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the sequence that sets a colour with which this begins, in bytes; 0 if it begins with none.
fn color(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let end = parameters.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b';')).unwrap_or(parameters.len());
    if parameters.as_bytes().get(end) == Some(&b'm') { "\u{1b}[".len() + end + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::render;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_all_else_is_as_it_was() {
        for (said, shown) in [
            ("café \u{1f980}\tplain", "café \u{1f980}\tplain"),
            ("\u{1b}]0;owned\u{7}", "\\u{1b}]0;owned\\u{7}"),
            ("a\r\nb\u{9b}2J\u{7f}", "a\\r\\nb\\u{9b}2J\\u{7f}"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
        ] {
            assert_eq!(text(said), shown);
        }
        assert_eq!(lines("a\n\u{1b}[2Kb"), "a\n\\u{1b}[2Kb");
        assert_eq!(with("\u{1b}[1;31mred\u{1b}[0m \u{1b}[2J\u{1b}[", true, true), "\u{1b}[1;31mred\u{1b}[0m \\u{1b}[2J\\u{1b}[");
    }

    /// Events of each kind, with texts in every field that has one.
    fn hostile(text: &str) -> Vec<Value> {
        let t = text;
        vec![
            json!({"event": "watching", "plugins": [t], "folders": 1, "files": 1, "by": t}),
            json!({"event": "building", "plugins": [t], "trigger": t}),
            json!({"event": "diagnostic", "level": t, "message": t, "rendered": ""}),
            json!({"event": "diagnostic", "level": t, "message": t, "rendered": t}),
            json!({"event": "rejected", "attempt": 1, "code": "E_ELF", "stage": "inspect", "subject": t, "reason": t, "help": t, "serving": [t], "phases_us": {}, "trigger": t}),
            json!({"event": "published", "attempt": 1, "plugin": t, "generation": 1, "digest": t, "epoch": 1, "phases_us": {}, "trigger": t}),
            json!({"event": "configured", "attempt": 1, "plugin": t, "generation": 1, "config": t, "epoch": 1, "phases_us": {}, "trigger": t}),
            json!({"event": "committed", "plugin": t, "generation": 1, "digest": t, "requests": 3, "watched_us": 1}),
            json!({"event": "rolled_back", "attempt": 1, "plugin": t, "from": 2, "to": 1, "digest": t, "epoch": 3, "by": "hand", "reason": t, "after_us": 1}),
            json!({"event": "breached", "plugin": t, "generation": 1, "reason": t, "help": t}),
            json!({"event": "held", "plugin": t, "digest": t, "by": "crash", "reason": t}),
            json!({"event": "died", "plugin": t, "digest": t, "deaths": 1, "reason": t}),
            json!({"event": "unchanged", "attempt": 1, "plugin": t, "generation": 1, "digest": t, "trigger": t}),
            json!({"event": "superseded", "attempt": 1, "trigger": t}),
            json!({"event": "retired", "plugin": t, "generation": 1, "leases": 1}),
            json!({"event": "panicked", "plugin": t, "generation": 1, "handler": t, "message": t, "location": t, "frames": [t]}),
            json!({"event": "failed", "plugin": t, "generation": 1, "handler": t, "error": t}),
            json!({"event": "workers_busy", "handlers": [t]}),
            json!({"event": "log", "plugin": t, "generation": 1, "level": t, "target": t, "message": t, "fields": {t: t}, "spans": [{"name": t, "fields": {t: t}}]}),
            json!({"event": "warning", "message": t}),
            json!({"event": "stopping", "signal": t, "in_flight": 1}),
            json!({"event": "fatal", "code": "E_IO", "reason": t, "help": t}),
        ]
    }

    #[test]
    fn no_text_in_any_field_of_an_event_reaches_the_terminal_as_more_than_a_text() {
        // Each control character there is, alone and as a line that the host might have said.
        let controls: Vec<char> = (0..=0x9f).filter_map(char::from_u32).filter(|character| character.is_control()).collect();
        let texts = controls.iter().map(|control| format!("a{control}error: forged")).chain(["a\u{1b}]0;x\u{7}".to_owned()]);
        for text in texts {
            for told in hostile(&text) {
                let event: Event = serde_json::from_value(told).unwrap_or_else(|error| panic!("{error}"));
                let shown = render::line(&event, false).unwrap_or_default();
                let is_obeyed = |character: char| is_obeyed(character) && !matches!(character, '\n' | '\t');
                assert!(!shown.contains(is_obeyed), "{event:?}: {shown:?}");
                // A compiler's own lines are the only ones that stand alone.
                let is_alone = |line: &str| line.starts_with("error: forged");
                assert!(matches!(event, Event::Diagnostic { .. }) || !shown.lines().skip(1).any(is_alone), "{event:?}: {shown:?}");
            }
        }
    }
}
