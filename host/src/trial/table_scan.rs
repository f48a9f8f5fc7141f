//! Can code read all that is there?
//!
//! Before its publish a sample of each declared table is read by new code; the rest is read while it is on trial, on a thread of its own,
//! in bites: whoever calls meanwhile waits for none of them. Each bite runs plugin code on a thread that is given up at the deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use midair_abi::Outcome;
use midair_abi::store::Row;

use crate::call::context::Reaches;
use crate::live::generation::Generation;
use crate::live::probation::{Breach, Verdict};
use crate::mutation::{self, Bug};
use crate::plugin::exports::{Plugin, told};
use crate::sys::timeout::{Overrun, within};

/// How many values of a table are read before a publish at most, and for how long.
const SAMPLE: usize = 10_000;
const SAMPLE_TIME: Duration = Duration::from_millis(20);

/// What one bite takes at most: this many values, of this many bytes, in this time. The store is locked for what it takes to copy them.
const BITE: usize = 256;
const BITE_BYTES: usize = 1 << 20;
const BITE_TIME: Duration = Duration::from_millis(5);

/// How many values of its tables a generation's code can't read, by table: those of schemas that it doesn't know, as of now, and others, as of when
/// it read them all.
#[must_use]
pub(crate) fn unreadable(generation: &Generation) -> BTreeMap<String, u64> {
    let (misfits, mut unreadable) = (generation.misfits(), BTreeMap::new());
    for table in generation.code().map_or(&[][..], Plugin::tables) {
        let tally = generation.host().store.tally(&generation.table(&table.name));
        let all = tally.unreadable(table.oldest, table.newest) + misfits.get(&table.name).copied().unwrap_or_default();
        if all > 0 && !mutation::is(Bug::UnreadableUncounted) {
            unreadable.insert(table.name.clone(), all);
        }
    }
    unreadable
}

/// Reads a sample of the table at `place`, spread over its keys; the first value that the code can't read, in words. Plugin code runs inside.
#[must_use]
pub(crate) fn sample(generation: &Generation, place: usize) -> Option<String> {
    let table = generation.code()?.tables().get(place).filter(|_| !mutation::is(Bug::TablesUntried))?;
    let (start, name) = (Instant::now(), generation.table(&table.name));
    for key in generation.host().store.spread(&name, SAMPLE) {
        // Read one by one: the values of a whole sample may be more than memory holds. What is gone since can't be read by anybody.
        if let Ok(Some(row)) = generation.host().store.row(&name, &key, table.newest)
            && let Some(misfit) = misfit(generation, place, &row)
        {
            return Some(misfit);
        }
        if start.elapsed() > SAMPLE_TIME {
            break;
        }
    }
    None
}

/// Why the code can't read a value, naming it.
fn misfit(generation: &Generation, place: usize, row: &Row) -> Option<String> {
    let code = generation.code()?;
    let schema = if mutation::is(Bug::MigrateUnasked) { code.tables().get(place)?.newest } else { row.schema };
    let reason = unread(code, place, schema, &row.bytes)?;
    Some(format!("{}[{:?}] {reason}", code.tables().get(place)?.name, row.key))
}

/// What becomes of the first value that can't be read.
pub(crate) enum First {
    /// It is a breach.
    Blamed,
    /// It is told, in words.
    Told(Box<dyn FnOnce(String) + Send>),
    /// It is counted as all others are.
    Counted,
}

/// Why the code can't read these bytes.
fn unread(code: &Plugin, place: usize, schema: u32, bytes: &[u8]) -> Option<String> {
    let outcome = code.check(place, schema, bytes);
    match outcome.kind() {
        Outcome::DONE => None,
        Outcome::PANIC => Some(format!("can't be read: {}", told(&outcome.panic()))),
        _ => Some(outcome.text()),
    }
}

/// The first of these schema numbers and values that the code can't read as the table at `place`: which, and why. Plugin code runs inside, on a
/// thread of its own.
#[cfg(feature = "http")]
#[must_use]
pub(crate) fn first_misfit(
    generation: &Arc<Generation>,
    place: usize,
    values: Vec<(u32, Vec<u8>)>,
    deadline: Duration,
) -> Option<(usize, String)> {
    let reader = Arc::clone(generation);
    let find = move || {
        let code = reader.code()?;
        values.iter().enumerate().find_map(|(number, (schema, bytes))| Some((number, unread(code, place, *schema, bytes)?)))
    };
    within("midair-read", deadline, find).unwrap_or_else(|overrun| {
        let name = generation.code()?.tables().get(place)?.name.clone();
        Some((0, format!("reading the table {name} {}", overran(overrun))))
    })
}

/// What became of reading that has no result.
fn overran(overrun: Overrun) -> String {
    match overrun {
        Overrun::Deadline(deadline) => format!("took longer than {} s and was given up", deadline.as_secs_f64()),
        Overrun::NoThread => "found no thread to run on".to_owned(),
        Overrun::Broke => "broke".to_owned(),
    }
}

/// What a bite found.
struct Bite {
    /// Where the next one goes on; `None` at the end.
    after: Option<String>,
    /// How many values of known schemas couldn't be read.
    misfits: u64,
    /// The first value that couldn't be read.
    first: Option<String>,
}

fn bite(generation: &Generation, place: usize, after: Option<&str>) -> Result<Bite, String> {
    let mut bite = Bite { after: None, misfits: 0, first: None };
    let Some(table) = generation.code().and_then(|code| code.tables().get(place)) else { return Ok(bite) };
    let page = generation.host().store.page(&generation.table(&table.name), after, table.newest, BITE, BITE_BYTES);
    let start = Instant::now();
    for row in page.map_err(|refusal| format!("{}: {refusal}", table.name))? {
        if let Some(misfit) = misfit(generation, place, &row) {
            bite.misfits += u64::from((table.oldest..=table.newest).contains(&row.schema));
            bite.first.get_or_insert(misfit);
        }
        bite.after = Some(row.key);
        if start.elapsed() > BITE_TIME {
            break;
        }
    }
    Ok(bite)
}

/// Reads all values of all tables in the background, as long as `serves`, and tells the generation how many its code couldn't read.
pub(crate) fn begin(
    generation: &Arc<Generation>,
    first: First,
    deadline: Duration,
    serves: impl Fn(&Generation) -> bool + Send + 'static,
) {
    let reader = Arc::clone(generation);
    let read = move || {
        let misfits = read_all(&reader, first, deadline, serves);
        if let Some(misfits) = misfits {
            reader.read_all(misfits);
            // Somebody may have waited for it.
            reader.alarm(Verdict::Enough);
        }
    };
    let has_tables = generation.code().is_some_and(|code| !code.tables().is_empty());
    // Without a thread nothing is read, and the trial goes on without it.
    if has_tables && std::thread::Builder::new().name("midair-tables".to_owned()).spawn(read).is_err() {
        generation.read_all(BTreeMap::new());
    }
}

/// `None` if it stopped before the end.
fn read_all(
    generation: &Arc<Generation>,
    mut first: First,
    deadline: Duration,
    serves: impl Fn(&Generation) -> bool,
) -> Option<BTreeMap<String, u64>> {
    let mut misfits = BTreeMap::new();
    let mut blame = |reason: String| match std::mem::replace(&mut first, First::Counted) {
        First::Blamed => {
            generation.counts().end_trial();
            generation.alarm(Verdict::Breach(Breach::State(reason)));
        }
        First::Told(told) => told(reason),
        First::Counted => {}
    };
    for (place, table) in generation.code()?.tables().iter().enumerate() {
        let mut after = None;
        loop {
            if !serves(generation) {
                return None;
            }
            let (start, reader, from) = (Instant::now(), Arc::clone(generation), after.take());
            let found = match within("midair-read", deadline, move || bite(&reader, place, from.as_deref())) {
                Ok(Ok(found)) => found,
                Ok(Err(reason)) => {
                    // That the store fails is no fault of the code's.
                    tracing::warn!(%reason, "a table can't be read");
                    break;
                }
                Err(overrun) => {
                    blame(format!("reading the table {} {}", table.name, overran(overrun)));
                    return None;
                }
            };
            if found.misfits > 0 {
                *misfits.entry(table.name.clone()).or_default() += found.misfits;
            }
            found.first.into_iter().for_each(&mut blame);
            after = found.after;
            if after.is_none() {
                break;
            }
            // As long a pause as the work: half a processor at most, however many values there are.
            std::thread::sleep(start.elapsed().min(BITE_TIME * 4));
        }
    }
    Some(misfits)
}
