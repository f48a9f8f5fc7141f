//! How do an event's values become something that can cross?
//!
//! They are gathered in room that the caller has on its stack, so that the usual event allocates nothing. `Debug` and `Display` of the
//! plugin's types run here, before the border: what they panic with unwinds as it would without a host, and what they log comes first.

use std::error::Error;
use std::fmt::{self, Debug, Write};

use midair_abi::logs::{Value, Values};
use midair_abi::{Many, Span};
use tracing_core::Field;
use tracing_core::field::Visit;

/// Room for values and for bytes of text before any is allocated.
const FEW: usize = 8;
const SHORT: usize = 256;

/// How many causes of an error are told.
const CAUSES: usize = 16;

/// Values as they are gathered.
pub(super) struct Gathered {
    values: [Value; FEW],
    text: [u8; SHORT],
    held: (usize, usize),
    /// All of them, once there are too many.
    more: Option<Vec<Value>>,
    /// All of it, once it is too long.
    longer: Option<Vec<u8>>,
}

impl Gathered {
    pub(super) fn new() -> Self {
        let none = Value { field: 0, kind: 0, bits: 0, len: 0 };
        Self { values: [none; FEW], text: [0; SHORT], held: (0, 0), more: None, longer: None }
    }

    /// What crosses; it borrows from `self`.
    pub(super) fn wire(&self) -> Values {
        let (values, text) = (&self.values[..self.held.0], &self.text[..self.held.1]);
        Values { values: Many::of(self.more.as_deref().unwrap_or(values)), text: Span::of(self.longer.as_deref().unwrap_or(text)) }
    }

    fn put(&mut self, field: u32, kind: u32, bits: u64, len: usize) {
        let value = Value { field, kind, bits, len: len as u64 };
        match (&mut self.more, self.values.get_mut(self.held.0)) {
            (Some(more), _) => more.push(value),
            (None, Some(place)) => {
                *place = value;
                self.held.0 += 1;
            }
            (more @ None, None) => more.insert(self.values.to_vec()).push(value),
        }
    }

    fn end(&self) -> usize {
        self.longer.as_ref().map_or(self.held.1, Vec::len)
    }

    /// A value that is text. What its `Display` refuses to say is missing.
    pub(super) fn say(&mut self, field: u32, kind: u32, text: fmt::Arguments<'_>) {
        let start = self.end();
        let _ = self.write_fmt(text);
        self.put(field, kind, start as u64, self.end() - start);
    }

    fn say_str(&mut self, field: u32, kind: u32, text: &str) {
        let start = self.end();
        let _ = self.write_str(text);
        self.put(field, kind, start as u64, text.len());
    }
}

impl Write for Gathered {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let start = self.held.1;
        match (&mut self.longer, self.text.get_mut(start..start + more.len())) {
            (Some(longer), _) => longer.extend_from_slice(more.as_bytes()),
            (None, Some(place)) => {
                place.copy_from_slice(more.as_bytes());
                self.held.1 += more.len();
            }
            (longer @ None, None) => {
                let mut all = Vec::with_capacity(2 * (start + more.len()));
                all.extend_from_slice(&self.text[..start]);
                all.extend_from_slice(more.as_bytes());
                *longer = Some(all);
            }
        }
        Ok(())
    }
}

fn place(field: &Field) -> u32 {
    field.index() as u32
}

impl Visit for Gathered {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(place(field), Value::SIGNED, value.cast_unsigned(), 0);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(place(field), Value::UNSIGNED, value, 0);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(place(field), Value::FLOAT, value.to_bits(), 0);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(place(field), Value::BOOL, value.into(), 0);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.say_str(place(field), Value::STRING, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.say(place(field), Value::ERROR, format_args!("{value}"));
        let mut below = value.source();
        for _ in 0..CAUSES {
            let Some(cause) = below else { break };
            self.say(place(field), Value::CAUSE, format_args!("{cause}"));
            below = cause.source();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.say(place(field), Value::TEXT, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_the_stack_is_whole_all_the_same() {
        let mut gathered = Gathered::new();
        let mut expected = String::new();
        for field in 0..40_u32 {
            let text = "x".repeat(field as usize);
            gathered.say(field, Value::TEXT, format_args!("{field}{text}"));
            expected.push_str(&format!("{field}{text}"));
        }
        let wire = gathered.wire();
        // SAFETY: `gathered` is alive.
        let values = unsafe { wire.values.items() };
        // SAFETY: as above.
        let text = unsafe { wire.text.text() };
        assert_eq!((values.len(), text), (40, expected.as_str()));
        let last = values[39];
        assert_eq!((last.field, last.kind, &text[last.bits as usize..]), (39, Value::TEXT, &*format!("39{}", "x".repeat(39))));
    }
}
