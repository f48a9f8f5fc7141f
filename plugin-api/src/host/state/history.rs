//! How does code read what older code wrote, and the other way round?
//!
//! A table's history is a chain of steps, each from one type to the next. A value is written in the newest form and bears its number. An
//! older one is taken up the chain when it is read; until the code is committed a new one is also taken down the chain, as far as there is a
//! way, for the code that may come back. Each step goes from bytes to bytes, so the chain needs no type but those of its steps.

use std::any::type_name;
use std::borrow::Cow;

use midair_abi::store::pack_form;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{decode, encode_bytes};

/// From the bytes of one form to those of another.
type Recode = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// The forms that a table's values have had.
pub(crate) struct History {
    /// The number of the oldest form that is read.
    first: u32,
    steps: Vec<Step>,
}

struct Step {
    from: &'static str,
    to: &'static str,
    up: Recode,
    down: Option<Recode>,
}

impl Default for History {
    fn default() -> Self {
        Self { first: 1, steps: Vec::new() }
    }
}

impl History {
    /// The numbers of the oldest and of the newest form that are read.
    pub(crate) fn range(&self) -> (u32, u32) {
        (self.first, self.first.saturating_add(u32::try_from(self.steps.len()).unwrap_or(u32::MAX)))
    }

    /// Whether there is but one form, numbered as it is without a history.
    pub(crate) fn is_plain(&self) -> bool {
        self.range() == (1, 1)
    }

    pub(crate) fn since(&mut self, first: u32) {
        self.first = first.max(1);
    }

    pub(crate) fn migrate<A: DeserializeOwned, B: Serialize>(&mut self, up: impl Fn(A) -> B + Send + Sync + 'static) {
        let up = Box::new(move |bytes: &[u8]| encode_bytes(&up(decode::<A>(bytes)?)));
        self.steps.push(Step { from: type_name::<A>(), to: type_name::<B>(), up, down: None });
    }

    /// `false` if there is no step that it could be the way back of.
    pub(crate) fn reverse<A: Serialize, B: DeserializeOwned>(&mut self, down: impl Fn(&B) -> A + Send + Sync + 'static) -> bool {
        let Some(step) = self.steps.last_mut() else { return false };
        if step.to != type_name::<B>() || step.from != type_name::<A>() || step.down.is_some() {
            return false;
        }
        step.down = Some(Box::new(move |bytes: &[u8]| encode_bytes(&down(&decode::<B>(bytes)?))));
        true
    }

    /// Whether each step begins where the one before ends, and the last ends at the table's own type.
    pub(crate) fn check(&self, table: &str, of: &'static str) -> Result<(), String> {
        let nexts = self.steps.iter().skip(1).map(|step| step.from).chain([of]);
        for (step, next) in self.steps.iter().zip(nexts) {
            if step.to != next {
                return Err(format!("table {table}: a `.migrate` gives `{}`, but what follows is `{next}`", step.to));
            }
        }
        Ok(())
    }

    /// The newest form of what was written with this number.
    pub(crate) fn raise<'a>(&self, schema: u32, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let (first, newest) = self.range();
        if schema < first || schema > newest {
            return Err(unknown(schema, first, newest));
        }
        let mut form = Cow::Borrowed(bytes);
        for step in &self.steps[(schema - first) as usize..] {
            form = Cow::Owned((step.up)(&form)?);
        }
        Ok(form)
    }

    /// The older forms of a value in its newest one, packed: as far down as there is a way.
    pub(crate) fn lower(&self, newest: &[u8]) -> Result<Vec<u8>, String> {
        let (mut packed, mut form, (_, mut number)) = (Vec::new(), Cow::Borrowed(newest), self.range());
        for step in self.steps.iter().rev() {
            let Some(down) = &step.down else { break };
            form = Cow::Owned(down(&form)?);
            number -= 1;
            pack_form(&mut packed, number, &form);
        }
        Ok(packed)
    }
}

/// Why code that reads the schemas `first` to `newest` can't read a value of this one.
pub(crate) fn unknown(schema: u32, first: u32, newest: u32) -> String {
    let own = if first == newest { format!("schema {newest}") } else { format!("schemas {first} to {newest}") };
    if schema > newest {
        format!("was written with schema {schema} and has no older form beside it; this code reads {own}")
    } else {
        format!("was written with schema {schema}, and this code reads {own}")
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use midair_abi::store::forms;

    #[derive(Serialize, Deserialize)]
    struct One {
        a: u32,
    }
    #[derive(Serialize, Deserialize)]
    struct Two {
        b: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Three {
        c: Vec<String>,
    }

    fn history() -> History {
        let mut history = History::default();
        history.migrate(|One { a }| Two { b: a.to_string() });
        assert!(history.reverse(|two: &Two| One { a: two.b.parse().unwrap_or_default() }));
        history.migrate(|Two { b }| Three { c: vec![b] });
        assert!(history.reverse(|three: &Three| Two { b: three.c.concat() }));
        history
    }

    #[test]
    fn a_chain_goes_up_from_each_form_and_down_to_each() {
        let history = history();
        assert_eq!((history.range(), history.check("t", type_name::<Three>())), ((1, 3), Ok(())));
        let bytes = |value: &dyn Fn() -> Result<Vec<u8>, String>| value().expect("it can be written");
        let forms_of = [bytes(&|| encode_bytes(&One { a: 7 })), bytes(&|| encode_bytes(&Two { b: "7".into() }))];
        for (schema, form) in (1..).zip(&forms_of) {
            let newest = history.raise(schema, form).expect("a way up");
            assert_eq!(decode::<Three>(&newest), Ok(Three { c: vec!["7".into()] }), "{schema}");
        }
        let packed = history.lower(&bytes(&|| encode_bytes(&Three { c: vec!["7".into()] }))).expect("a way down");
        assert_eq!(forms(&packed).collect::<Vec<_>>(), [(2, &*forms_of[1]), (1, &*forms_of[0])]);
        let later = history.raise(4, b"").expect_err("it isn't known");
        assert!(later.contains("schema 4") && later.contains("schemas 1 to 3"), "{later}");
    }

    #[test]
    fn a_chain_that_does_not_fit_is_named() {
        let wrong = history().check("t", type_name::<One>()).expect_err("it ends elsewhere");
        assert!(wrong.contains("Three") && wrong.contains("One"), "{wrong}");
        let mut turned = History::default();
        assert!(!turned.reverse(|two: &Two| One { a: two.b.parse().unwrap_or_default() }), "nothing to go back from");
        turned.since(2);
        turned.migrate(|Two { b }| Three { c: vec![b] });
        assert_eq!(turned.range(), (2, 3));
        assert!(turned.raise(1, b"").is_err_and(|why| why.contains("schema 1")));
    }
}
