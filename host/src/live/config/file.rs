//! What does the config file say, and where?

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::report::error::{Code, Error, Result, Stage};

/// The table that plugins' sections are in: the one key that the file may have.
const PLUGIN: &str = "plugin";
const KNOWN: [&str; 1] = [PLUGIN];

/// The longest file, in bytes: what somebody wrote is shorter, and a device never ends.
const LONGEST: u64 = 1 << 20;

/// How long a file that may be half saved has to be left alone, and how often that is waited for.
const QUIET: Duration = Duration::from_millis(50);
const AGAIN: usize = 10;

/// What a config file said at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// None for a host that was given no file.
    path: Option<PathBuf>,
    text: String,
    sections: BTreeMap<String, String>,
}

/// A plugin's section with what is needed to say where in the file something stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    plugin: String,
    path: Option<PathBuf>,
    text: String,
    json: String,
}

impl File {
    /// What is there now; `None` if nothing is.
    ///
    /// Who saves in place empties the file first. So one that is empty or bad and was touched a moment ago is read again a moment later; what
    /// is whole needs no such time.
    ///
    /// # Errors
    ///
    /// E_CONFIG with the line: no TOML, an unknown key, or a section that is no table. E_IO if it can't be read.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        for _ in 0..AGAIN {
            let read = Self::read_once(path);
            let is_whole = matches!(&read, Ok(None)) || matches!(&read, Ok(Some(file)) if !file.text.is_empty());
            let age = fs::metadata(path).and_then(|about| about.modified()).map(|touched| touched.elapsed());
            let is_young = matches!(age, Ok(Ok(age)) if age < QUIET);
            if is_whole || !is_young {
                return read;
            }
            std::thread::sleep(QUIET);
        }
        Self::read_once(path)
    }

    fn read_once(path: &Path) -> Result<Option<Self>> {
        let failed = |error| Error::rejected(Code::Io, Stage::Inspect, shown(path), "the config can't be read").caused_by(error);
        match fs::metadata(path) {
            Ok(about) if !about.is_file() => {
                return Err(wrong(path, "", None, "the config isn't a regular file".to_owned()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Ok(_) | Err(_) => {}
        }
        let mut bytes = Vec::new();
        let file = match fs::File::open(path) {
            // It went since.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LONGEST {
            return Err(wrong(path, "", None, format!("the config is longer than {} KiB", LONGEST >> 10)));
        }
        let text = String::from_utf8(bytes).map_err(|error| wrong(path, "", None, format!("the config isn't UTF-8: {error}")))?;
        Self::parse(path, text).map(Some)
    }

    fn parse(path: &Path, text: String) -> Result<Self> {
        let wrong = |span: Option<Range<usize>>, reason: String| wrong(path, &text, span, reason);
        let table = DeTable::parse(&text).map_err(|error| wrong(error.span(), error.message().to_owned()))?;
        if let Some(key) = table.get_ref().keys().find(|key| !KNOWN.contains(&key.get_ref().as_ref())) {
            let help = format!("a plugin's config stands in [{PLUGIN}.NAME], NAME being its package");
            let reason = unknown("key", key.get_ref(), KNOWN.into_iter());
            return Err(wrong(Some(key.span()), reason).help(help));
        }
        let mut sections = BTreeMap::new();
        for (_, plugins) in table.get_ref() {
            let DeValue::Table(each) = plugins.get_ref() else {
                return Err(wrong(Some(plugins.span()), format!("{PLUGIN} is no table: write [{PLUGIN}.NAME]")));
            };
            for (name, section) in each {
                let name = name.get_ref().as_ref();
                if !section.get_ref().is_table() {
                    return Err(wrong(Some(section.span()), format!("{PLUGIN}.{name} is no table: write [{PLUGIN}.{name}]")));
                }
            }
        }
        let whole: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.span(), error.message().to_owned()))?;
        if let Some(toml::Value::Table(each)) = whole.get(PLUGIN) {
            for (name, section) in each {
                let json = plain(section).map_err(|value| {
                    let place = place_of(&text, [PLUGIN, name].into_iter());
                    wrong(place, format!("{PLUGIN}.{name} has the value {value}, which no plugin can be given"))
                })?;
                sections.insert(name.clone(), json.to_string());
            }
        }
        Ok(Self { path: Some(path.to_owned()), text, sections })
    }

    /// A file that isn't there: all sections are empty.
    #[must_use]
    pub(crate) fn missing(path: Option<&Path>) -> Self {
        Self { path: path.map(Path::to_owned), ..Self::default() }
    }

    /// The section of `plugin`; an empty one if it has none.
    #[must_use]
    pub(crate) fn section(&self, plugin: &str) -> Section {
        let json = self.sections.get(plugin).cloned().unwrap_or_else(|| "{}".to_owned());
        Section { plugin: plugin.to_owned(), path: self.path.clone(), text: self.text.clone(), json }
    }

    /// Whether `plugin` has a section.
    #[must_use]
    pub(crate) fn has(&self, plugin: &str) -> bool {
        self.sections.contains_key(plugin)
    }

    /// What is to be said of sections for plugins that aren't among these.
    #[must_use]
    pub(crate) fn strangers(&self, plugins: &[&str]) -> Vec<String> {
        let path = self.path.as_deref().map(shown).unwrap_or_default();
        let strange = self.sections.keys().filter(|name| !plugins.contains(&name.as_str()));
        let said = strange.map(|name| format!("{path}: {}", unknown("plugin", name, plugins.iter().copied())));
        said.collect()
    }
}

impl Section {
    /// The section as it crosses to the plugin: JSON.
    #[must_use]
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// What tells this section from another one; comments and order don't.
    #[must_use]
    pub(crate) fn digest(&self) -> String {
        blake3::hash(self.json.as_bytes()).to_hex().to_string()
    }

    /// Why the plugin can't read it: `keys` lead to the place, the outermost first.
    #[must_use]
    pub(crate) fn misfit(&self, keys: &[String], reason: &str) -> Error {
        let keys = [PLUGIN, &self.plugin].into_iter().chain(keys.iter().map(String::as_str));
        let name = keys.clone().collect::<Vec<_>>().join(".");
        let Some(path) = &self.path else {
            return Error::rejected(Code::Config, Stage::Check, &self.plugin, format!("{name}: {reason}"))
                .help("the host was given no config file: start it with --config PATH");
        };
        let subject = subject(path, &self.text, place_of(&self.text, keys));
        Error::rejected(Code::Config, Stage::Check, subject, format!("{name}: {reason}"))
            .help("what serves keeps its config; the next good one is taken when it is saved")
    }

    /// What is to be said of a section that nobody reads.
    #[must_use]
    pub(crate) fn unread(&self) -> String {
        let path = self.path.as_deref().map(shown).unwrap_or_default();
        let plugin = &self.plugin;
        format!("{path}: [{PLUGIN}.{plugin}] isn't read: {plugin} declares no config (`Plugin::config`)")
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The file with the line, as compilers write it.
fn subject(path: &Path, text: &str, span: Option<Range<usize>>) -> String {
    let before = span.and_then(|span| text.as_bytes().get(..span.start));
    let line = before.map(|before| before.iter().filter(|byte| **byte == b'\n').count() + 1);
    line.map_or_else(|| shown(path), |line| format!("{}:{line}", path.display()))
}

fn wrong(path: &Path, text: &str, span: Option<Range<usize>>, reason: String) -> Error {
    Error::rejected(Code::Config, Stage::Inspect, subject(path, text, span), reason.trim_end().replace('\n', ", "))
}

/// Such as "there is no plugin shpo: is it shop?".
fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    match nearest {
        Some((_, nearest)) => format!("there is no {what} `{name}`; the nearest is `{nearest}`"),
        None => format!("there is no {what} `{name}`"),
    }
}

/// Where in the file the value at these keys stands, or as far towards it as there is something.
fn place_of<'a>(text: &str, keys: impl Iterator<Item = &'a str>) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (mut place, mut rest): (_, Option<&DeValue<'_>>) = (None, None);
    for key in keys {
        let (span, value) = match rest {
            None => entry(table.get_ref(), key)?,
            Some(DeValue::Table(table)) => match entry(table, key) {
                Some(found) => found,
                None => break,
            },
            Some(DeValue::Array(items)) => match key.parse::<usize>().ok().and_then(|at| items.get(at)) {
                Some(item) => (item.span(), item.get_ref()),
                None => break,
            },
            Some(_) => break,
        };
        (place, rest) = (Some(span), Some(value));
    }
    place
}

fn entry<'a, 'i>(table: &'a DeTable<'i>, key: &str) -> Option<(Range<usize>, &'a DeValue<'i>)> {
    table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, value)| (name.span(), value.get_ref()))
}

/// The value as JSON has it: dates are text.
///
/// # Errors
///
/// A number that JSON doesn't have, as text.
fn plain(value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) if !number.is_finite() => return Err(number.to_string()),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(is) => Value::from(*is),
        toml::Value::Datetime(date) => Value::from(date.to_string()),
        toml::Value::Array(items) => Value::Array(items.iter().map(plain).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), plain(value)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# for all\n[plugin.shop]\ngreeting = \"hi\"\nsince = 2026-01-02\n\n[plugin.shop.limits]\nmax = \"x\"\n\n[plugin.cart]\nlist = [\n  { n = 1 },\n  { n = 2 },\n]\n";

    fn file(text: &str) -> Result<File> {
        File::parse(Path::new("/w/midair.toml"), text.to_owned())
    }

    #[test]
    fn each_plugin_has_its_section_and_the_others_an_empty_one() {
        let parsed = file(TEXT).expect("it is TOML");
        assert_eq!(parsed.section("shop").json(), r#"{"greeting":"hi","limits":{"max":"x"},"since":"2026-01-02"}"#);
        assert_eq!((parsed.section("cart").json(), parsed.section("other").json()), (r#"{"list":[{"n":1},{"n":2}]}"#, "{}"));
        let again = file("plugin.cart.list = [{n=1},{n=2}] # as it was").expect("it is TOML");
        assert_eq!(again.section("cart").digest(), parsed.section("cart").digest(), "comments and form don't count");
        assert!(!parsed.has("other") && parsed.has("cart"));
    }

    #[test]
    fn what_a_plugin_does_not_take_is_found_in_the_file() {
        let file = file(TEXT).expect("it is TOML");
        let check = |plugin: &str, keys: &[&str], subject: &str, reason: &str| {
            let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            let error = file.section(plugin).misfit(&keys, "wrong");
            assert_eq!((error.code(), error.subject(), &*error.reason()), (Code::Config, subject, reason));
        };
        check("shop", &["limits", "max"], "/w/midair.toml:7", "plugin.shop.limits.max: wrong");
        check("shop", &["limits", "min"], "/w/midair.toml:6", "plugin.shop.limits.min: wrong");
        check("cart", &["list", "1", "n"], "/w/midair.toml:12", "plugin.cart.list.1.n: wrong");
        check("cart", &["list", "7"], "/w/midair.toml:10", "plugin.cart.list.7: wrong");
        check("other", &[], "/w/midair.toml:2", "plugin.other: wrong");
        let nothing = File::missing(None).section("shop").misfit(&[], "missing field `max`");
        assert_eq!(nothing.subject(), "shop");
        assert!(nothing.help_text().is_some_and(|help| help.contains("--config")));
    }

    #[test]
    fn what_is_no_config_is_refused_with_its_line() {
        for (text, subject, words) in [
            ("[plugin.a]\n[plugins.b]\n", "/w/midair.toml:2", "there is no key `plugins`; the nearest is `plugin`"),
            ("[plugin.a]\nx = \n", "/w/midair.toml:2", "string values must be quoted"),
            ("plugin = 3", "/w/midair.toml:1", "write [plugin.NAME]"),
            ("[plugin]\n\nshop = 3", "/w/midair.toml:3", "write [plugin.shop]"),
            ("[plugin.a]\nx = nan", "/w/midair.toml:1", "NaN"),
            ("[plugin.a]\nx = 1\nx = 2", "/w/midair.toml:3", "duplicate key"),
        ] {
            let error = file(text).expect_err(text);
            assert_eq!((error.code(), error.subject()), (Code::Config, subject), "{error:?}");
            assert!(error.reason().contains(words), "{error:?}");
        }
    }

    #[test]
    fn what_is_no_file_of_text_is_refused_and_nothing_there_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("midair.toml");
        assert!(File::read(&path).expect("nothing is there").is_none());
        assert!(File::read(folder.path()).expect_err("a folder").reason().contains("regular file"));
        assert!(File::read(Path::new("/dev/zero")).expect_err("a device").reason().contains("regular file"));
        fs::write(&path, [0xff; 3]).expect("it can be written");
        assert!(File::read(&path).expect_err("no text").reason().contains("UTF-8"));
        fs::write(&path, vec![b'\n'; 1 + (1 << 20)]).expect("it can be written");
        assert!(File::read(&path).expect_err("too long").reason().contains("1024 KiB"));
    }

    #[test]
    fn a_section_for_a_plugin_that_is_not_there_is_told_with_the_nearest() {
        let file = file("[plugin.shpo]\n[plugin.cart]\n").expect("it is TOML");
        assert_eq!(file.strangers(&["cart", "shop"]), ["/w/midair.toml: there is no plugin `shpo`; the nearest is `shop`"]);
        assert_eq!(file.strangers(&[]).len(), 2);
    }
}
