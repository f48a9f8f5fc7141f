//! How do values that crossed reach a subscriber?
//!
//! They are read where they lie and handed on as what they were; the subscriber copies what it keeps. Numbers and places that make no sense
//! are passed over: they come from another library.

use std::error::Error;
use std::fmt::{self, Debug, Display};

use midair_abi::logs::Value;
use smallvec::SmallVec;
use tracing::field::{self, DebugValue, ValueSet};

use super::sites::Site;

/// How many bytes of a text are kept.
const LONGEST: usize = 64 << 10;
/// Room for values before any is allocated.
const FEW: usize = 8;

/// Values, lent for a call.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) values: &'a [Value],
    pub(super) text: &'a str,
}

/// Values that stay.
pub(super) struct Kept {
    values: Vec<Value>,
    text: String,
}

impl Kept {
    pub(super) fn lend(&self) -> Values<'_> {
        Values { values: &self.values, text: &self.text }
    }
}

/// One value, ready to be visited.
enum Read<'a> {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Str(&'a str),
    Text(DebugValue<Text<'a>>),
    Error(Box<dyn Error + 'static>),
}

/// Text that was made by a `Debug` on the other side.
pub(super) struct Text<'a>(&'a str);

impl Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// An error with its causes, in its own words.
struct Failure {
    text: String,
    cause: Option<Box<Failure>>,
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl<'a> Values<'a> {
    /// A copy.
    pub(super) fn keep(self) -> Kept {
        Kept { values: self.values.to_vec(), text: self.text.to_owned() }
    }

    fn text(self, value: &Value) -> &'a str {
        let start = usize::try_from(value.bits).unwrap_or(usize::MAX);
        let len = usize::try_from(value.len).unwrap_or(usize::MAX);
        let text = self.text.get(start..start.saturating_add(len)).unwrap_or_default();
        &text[..text.floor_char_boundary(LONGEST)]
    }

    /// The values in words, with the names of the fields if those are kept.
    pub(super) fn words(self, site: &Site) -> String {
        let one = |value: &Value| {
            let said = match value.kind {
                Value::SIGNED => value.bits.cast_signed().to_string(),
                Value::UNSIGNED => value.bits.to_string(),
                Value::FLOAT => f64::from_bits(value.bits).to_string(),
                Value::BOOL => (value.bits != 0).to_string(),
                _ => self.text(value).to_owned(),
            };
            let field = site.metadata().fields().iter().nth(value.field as usize);
            match field {
                Some(field) if !site.is_overflow && field.name() != "message" => format!("{}={said}", field.name()),
                _ => said,
            }
        };
        self.values.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[inline]
    fn read(self, at: usize) -> Option<Read<'a>> {
        let value = &self.values[at];
        Some(match value.kind {
            Value::SIGNED => Read::Signed(value.bits.cast_signed()),
            Value::UNSIGNED => Read::Unsigned(value.bits),
            Value::FLOAT => Read::Float(f64::from_bits(value.bits)),
            Value::BOOL => Read::Bool(value.bits != 0),
            Value::STRING => Read::Str(self.text(value)),
            Value::TEXT => Read::Text(field::debug(Text(self.text(value)))),
            Value::ERROR => {
                let causes = self.values[at + 1..].iter().take_while(|value| value.kind == Value::CAUSE);
                let texts: Vec<&str> = std::iter::once(value).chain(causes).map(|value| self.text(value)).collect();
                let failure = texts
                    .into_iter()
                    .rev()
                    .fold(None, |cause, text| Some(Failure { text: text.to_owned(), cause: cause.map(Box::new) }));
                Read::Error(Box::new(failure?))
            }
            _ => return None,
        })
    }

    /// Calls `with` with the values as those of the site's fields, and with whose they are, which is missing for more values of a span that
    /// has them already.
    pub(super) fn lend(self, site: &'static Site, whose: Option<&str>, with: impl FnOnce(&ValueSet<'_>)) {
        let fields = site.metadata().fields();
        let words;
        let whose = whose.map(|whose| field::debug(Text(whose)));
        let mut read: SmallVec<[(usize, Read<'_>); FEW]> = SmallVec::new();
        if site.is_overflow {
            words = format!("(of more callsites than are kept) {}", self.words(site));
            read.push((0, Read::Text(field::debug(Text(&words)))));
        } else {
            for (at, value) in self.values.iter().enumerate().filter(|(_, value)| (value.field as usize) < site.own()) {
                if let Some(one) = self.read(at) {
                    read.push((value.field as usize, one));
                }
            }
        }
        let mut all: SmallVec<[Option<&dyn tracing::Value>; FEW + 1]> = SmallVec::from_elem(None, fields.len());
        for (field, value) in &read {
            all[*field] = Some(match value {
                Read::Signed(value) => value as &dyn tracing::Value,
                Read::Unsigned(value) => value,
                Read::Float(value) => value,
                Read::Bool(value) => value,
                Read::Str(value) => value,
                Read::Text(value) => value,
                Read::Error(value) => value,
            });
        }
        if let Some(whose) = &whose {
            all[site.own()] = Some(whose);
        }
        with(&fields.value_set_all(&all));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sites::{self, Said};
    use super::*;

    #[derive(Default)]
    struct Shown(Vec<String>);

    impl field::Visit for Shown {
        fn record_error(&mut self, field: &field::Field, value: &(dyn Error + 'static)) {
            self.0.push(format!("{field}: {value} <- {:?}", value.source()));
        }

        fn record_debug(&mut self, field: &field::Field, value: &dyn Debug) {
            self.0.push(format!("{field}={value:?}"));
        }
    }

    fn shown(fields: &[&str], values: &[(u32, u32, u64, u64)], text: &str) -> Vec<String> {
        let (name, target, file, module) = ("n", "values", "", "");
        let site = sites::find(Said { is_span: true, level: 3, name, target, file, module, line: 0, fields: fields.to_vec() });
        let value = |&(field, kind, bits, len)| Value { field, kind, bits, len };
        let values: Vec<Value> = values.iter().map(value).collect();
        let mut shown = Shown::default();
        Values { values: &values, text }.lend(site, Some("shop=7"), |values| values.record(&mut shown));
        shown.0
    }

    #[test]
    fn values_come_as_what_they_were_with_who_said_them() {
        let values = [
            (0, Value::SIGNED, u64::MAX, 0),
            (1, Value::FLOAT, 1.5_f64.to_bits(), 0),
            (2, Value::BOOL, 1, 0),
            (3, Value::STRING, 0, 2),
            (4, Value::TEXT, 2, 2),
            (5, Value::ERROR, 4, 1),
            (5, Value::CAUSE, 5, 1),
        ];
        let expected = ["a=-1", "b=1.5", "c=true", "d=\"ab\"", "e=cd", "f: x <- Some(y)", "midair=shop=7"];
        assert_eq!(shown(&["a", "b", "c", "d", "e", "f"], &values, "abcdxy"), expected);
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let values = [
            (7, Value::BOOL, 1, 0),
            (1, Value::BOOL, 1, 0),
            (0, 99, 1, 0),
            (0, Value::CAUSE, 0, 1),
            (0, Value::STRING, 1, 1),
            (0, Value::STRING, u64::MAX, u64::MAX),
        ];
        let expected = ["a=\"\"", "midair=shop=7"];
        assert_eq!(shown(&["a"], &values, "ä"), expected);
    }
}
