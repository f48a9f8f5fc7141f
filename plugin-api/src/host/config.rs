//! What did the operator set, in the plugin's own type?
//!
//! The host hands over the plugin's section of its config file; this reads it as the declared type. What was read is kept by the host
//! with the snapshot that it was published in, and comes back here by its address: a request parses nothing.

use std::any::{Any, type_name};

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

/// The type of a plugin's config.
pub(crate) struct ConfigDecl {
    pub(crate) name: &'static str,
    pub(crate) read: fn(&[u8]) -> Result<Parsed, Misfit>,
}

/// A config that was read, with the name of its type.
pub(crate) struct Parsed {
    name: &'static str,
    value: Box<dyn Any + Send + Sync>,
}

/// Why a section can't be read, and the keys that lead to the place, the outermost first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) keys: Vec<String>,
    pub(crate) reason: String,
}

impl ConfigDecl {
    pub(crate) fn of<T: DeserializeOwned + Send + Sync + 'static>() -> Self {
        Self { name: type_name::<T>(), read: |section| read::<T>(section).map(Parsed::of) }
    }
}

impl Parsed {
    pub(crate) fn of<T: Send + Sync + 'static>(value: T) -> Self {
        Self { name: type_name::<T>(), value: Box::new(value) }
    }

    /// The config as `T`.
    ///
    /// # Errors
    ///
    /// What is wrong with asking for it, and what to write instead.
    pub(crate) fn get<T: 'static>(parsed: Option<&Self>) -> Result<&T, String> {
        let asked = type_name::<T>();
        let Some(Self { name, value }) = parsed else {
            return Err(format!(
                "ctx.config::<{asked}>(): the plugin declares no config; add `.config::<{asked}>()` to its `Plugin`"
            ));
        };
        value.downcast_ref().ok_or_else(|| {
            format!("ctx.config::<{asked}>(): the plugin declares its config as `{name}`; ask for that type, or declare the other")
        })
    }
}

/// Reads a section, which is JSON, as `T`.
fn read<T: DeserializeOwned>(section: &[u8]) -> Result<T, Misfit> {
    // By way of a value: a reader of text would name its own lines, which aren't those of the file.
    let section: serde_json::Value =
        serde_json::from_slice(section).map_err(|error| Misfit { keys: Vec::new(), reason: error.to_string() })?;
    serde_path_to_error::deserialize(section).map_err(|error| {
        let key = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        };
        Misfit { keys: error.path().iter().filter_map(key).collect(), reason: error.inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[serde(default)]
        greeting: String,
        address: Option<IpAddr>,
        #[serde(default)]
        limits: Vec<Limit>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Limit {
        max: u32,
        share: f64,
    }

    #[test]
    fn a_section_is_read_as_the_declared_type() {
        let section = r#"{"greeting":"hi","address":"127.0.0.1","limits":[{"max":7,"share":1}]}"#;
        let parsed = (ConfigDecl::of::<Settings>().read)(section.as_bytes()).expect("it fits");
        let limits = vec![Limit { max: 7, share: 1.0 }];
        let settings = Settings { greeting: "hi".into(), address: Some(IpAddr::from([127, 0, 0, 1])), limits };
        assert_eq!(Parsed::get::<Settings>(Some(&parsed)), Ok(&settings));
        assert!((ConfigDecl::of::<Settings>().read)(b"{}").is_ok(), "defaults do for an empty section");
    }

    #[test]
    fn what_does_not_fit_is_named_with_the_keys_that_lead_there() {
        let check = |section: &str, keys: &[&str], reason: &str| {
            let misfit = read::<Settings>(section.as_bytes()).expect_err("it doesn't fit");
            assert_eq!((misfit.keys.iter().map(String::as_str).collect::<Vec<_>>(), &*misfit.reason), (keys.to_vec(), reason));
        };
        let wrong = r#"{"limits":[{"max":1,"share":1},{"max":"x","share":1}]}"#;
        check(wrong, &["limits", "1", "max"], "invalid type: string \"x\", expected u32");
        check(r#"{"limits":[{"max":-1,"share":1}]}"#, &["limits", "0", "max"], "invalid value: integer `-1`, expected u32");
        check(r#"{"limits":[{"max":1}]}"#, &["limits", "0"], "missing field `share`");
        let unknown = "unknown field `greting`, expected one of `greeting`, `address`, `limits`";
        check(r#"{"greting":"hi"}"#, &["greting"], unknown);
    }

    #[test]
    fn another_type_than_the_declared_one_is_told_with_both_names() {
        let parsed = Parsed::of(7_u32);
        let wrong = Parsed::get::<String>(Some(&parsed)).expect_err("another type");
        assert!(wrong.contains("alloc::string::String") && wrong.contains("`u32`"), "{wrong}");
        let missing = Parsed::get::<u32>(None).expect_err("none is declared");
        assert!(missing.contains("add `.config::<u32>()`"), "{missing}");
    }
}
