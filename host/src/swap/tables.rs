//! What of the state do people see and bring?

use std::fmt::Write as _;
use std::sync::Arc;

use midair_abi::store::{Kind, Lasts, Op, clock};
use serde::Serialize;

use super::host::Host;
use crate::live::generation::Generation;
use crate::report::error::{Code, Error, Result, Stage};
use crate::resources::state::export::{Line, to_bytes, to_json};
use crate::trial::table_scan;

/// A table that holds something.
#[derive(Clone, Debug, Serialize)]
pub struct TableStatus {
    /// The plugin whose it is.
    pub plugin: String,
    /// Its name; `$cells` and `$counters` hold those.
    pub table: String,
    /// How many values it has, those included that have ended and weren't removed yet.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Some values of a table as lines of JSON.
#[derive(Clone, Debug)]
pub struct Page {
    /// The lines.
    pub lines: String,
    /// The last key; `None` if there was nothing more.
    pub last: Option<String>,
}

/// What every plugin has.
const CELLS: &str = "$cells";
const COUNTERS: &str = "$counters";

/// What one page has at most.
const ROWS: usize = 500;
const BYTES: usize = 1 << 20;

impl Host {
    /// All tables that hold something, by their names. No plugin code runs.
    #[must_use]
    pub fn tables(&self) -> Vec<TableStatus> {
        let status = |(name, tally): (String, midair_abi::store::Tally)| {
            let (plugin, table) = name.split_once('/').unwrap_or(("", &name));
            TableStatus { plugin: plugin.to_owned(), table: table.to_owned(), values: tally.values, bytes: tally.bytes }
        };
        self.shared.context.store.tallies().into_iter().map(status).collect()
    }

    /// The values of a table behind the key `after`, as lines of JSON: `{"key", "schema", "value"}`, and `"ends"` if it ends. Each page is of one
    /// moment, all of them are not. No plugin code runs.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub fn export(&self, plugin: &str, table: &str, after: Option<&str>) -> Result<Page> {
        let name = format!("{plugin}/{table}");
        let rows = self.shared.context.store.page(&name, after, 0, ROWS, BYTES);
        let rows = rows.map_err(|refusal| Error::rejected(Code::State, Stage::Try, &name, refusal.to_string()))?;
        let mut page = Page { lines: String::new(), last: rows.last().map(|row| row.key.clone()) };
        for row in rows {
            let line = Line { key: row.key, schema: row.schema, ends: row.ends, value: to_json(&row.bytes) };
            let text = serde_json::to_string(&line).unwrap_or_default();
            // A text can be written to.
            let _ = writeln!(page.lines, "{text}");
        }
        Ok(page)
    }

    /// The code that serves of this plugin and the place at which it declares the table; `None` for what all have without a word.
    fn declared(&self, plugin: &str, table: &str) -> std::result::Result<Option<(Arc<Generation>, usize)>, String> {
        let now = self.shared.slot.now();
        let Some(generation) = now.generation(plugin) else {
            let names: Vec<&str> = now.generations().iter().map(|generation| generation.plugin()).collect();
            return Err(format!("no plugin {plugin} serves; there are: {}", names.join(", ")));
        };
        if table == CELLS || table == COUNTERS {
            return Ok(None);
        }
        let Some(code) = generation.code() else { return Ok(None) };
        let tables = code.tables();
        let Some(place) = tables.iter().position(|known| known.name == table) else {
            let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).chain([CELLS, COUNTERS]).collect();
            return Err(format!("{generation} declares no such table; there are: {}", names.join(", ")));
        };
        Ok(Some((Arc::clone(generation), place)))
    }

    /// Writes lines as [`export`](Self::export) gives them, all of them or none; how many there were. Lines of values that have ended count and
    /// write nothing. `first` is the number of the first line, for who reads the error. The code that serves has to declare the table and to
    /// read each value, unless it is `forced`: that code runs on a thread of its own, within the deadline of a step. Blocks until they are
    /// written.
    ///
    /// # Errors
    ///
    /// The line that is wrong, or that the code can't read, by its number; that there is no such table; or why the store refuses.
    pub fn import(&self, plugin: &str, table: &str, lines: &str, first: usize, forced: bool) -> Result<usize> {
        let (name, now) = (format!("{plugin}/{table}"), clock());
        let wrong = |number: usize, why: String| {
            Error::rejected(Code::State, Stage::Try, &name, format!("line {}: {why}; nothing was written", first + number))
                .help("a line is {\"key\": TEXT, \"schema\": NUMBER, \"value\": ANYTHING}")
        };
        let mut values = Vec::new();
        for (number, line) in lines.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|error| wrong(number, error.to_string()))?;
            let bytes = to_bytes(&line.value).map_err(|error| wrong(number, error))?;
            values.push((line, bytes));
        }
        if !forced {
            let unread = |why: String| {
                let reason = format!("{why}; nothing was written, --force does it all the same");
                Error::rejected(Code::State, Stage::Try, &name, reason)
            };
            if let Some((generation, place)) = self.declared(plugin, table).map_err(unread)? {
                let all = values.iter().map(|(line, bytes)| (line.schema, bytes.clone())).collect();
                let misfit = table_scan::first_misfit(&generation, place, all, self.shared.options.deadline);
                misfit.map_or(Ok(()), |(number, why)| Err(unread(format!("line {}: {why}", first + number))))?;
            }
        }
        let mut ops = Vec::new();
        for (line, bytes) in values.iter().filter(|(line, _)| line.ends == 0 || line.ends > now) {
            let lasts = if line.ends == 0 { Lasts::Ever } else { Lasts::For(line.ends - now) };
            ops.push(Op { lasts, schema: line.schema, bytes, ..Op::new(Kind::Put, &name, &line.key) });
        }
        let written = self.shared.context.store.apply(&ops).wait();
        written.map_err(|refusal| Error::rejected(Code::State, Stage::Try, &name, refusal.to_string()))?;
        Ok(values.len())
    }
}
