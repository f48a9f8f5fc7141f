//! What stands in a plugin where a logger of `log` would?
//!
//! A record says with each line what a callsite of `tracing` says once: the host finds the site by its words each time. What is below the
//! most detailed level that anybody wants is left out by `log` itself.

use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};
use midair_abi::logs::{Callsite, Logs, Parent, Site, Value};
use midair_abi::{Many, Span};

use super::values::Gathered;

static RECORDS: OnceLock<Records> = OnceLock::new();

/// The plugin's side of the host's logger.
struct Records(Logs);

pub(super) fn install(host: Logs) {
    // Taken already if a constructor of the library's set one; it keeps its place.
    if log::set_logger(RECORDS.get_or_init(|| Records(host))).is_ok() {
        refilter();
    }
}

pub(super) fn refilter() {
    let Some(Records(host)) = RECORDS.get() else { return };
    // SAFETY: the host's function for its data.
    log::set_max_level(match unsafe { host.functions.most()(host.data) } {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
}

impl Records {
    fn site(&self, metadata: &Metadata<'_>, file: &str, module: &str, line: u32) -> Option<Site> {
        let text = |text: &str| Span::of(text.as_bytes());
        let fields = [text("message")];
        let (target, level) = (text(metadata.target()), metadata.level() as u32);
        let (name, file, module) = (text("log record"), text(file), text(module));
        let callsite = Callsite { kind: Callsite::EVENT, level, line, name, target, file, module, fields: Many::of(&fields) };
        // SAFETY: the host's function for its data; what the callsite points to outlives the call.
        let site = unsafe { self.0.functions.callsite()(self.0.data, callsite) };
        let wanted = match site.interest {
            Site::NEVER => false,
            Site::ALWAYS => true,
            // SAFETY: the host's function for its data, and an address that it gave.
            _ => unsafe { self.0.functions.enabled()(self.0.data, site.address) != 0 },
        };
        wanted.then_some(site)
    }
}

impl Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.site(metadata, "", "", 0).is_some()
    }

    fn log(&self, record: &Record<'_>) {
        let (file, module) = (record.file().unwrap_or_default(), record.module_path().unwrap_or_default());
        let Some(site) = self.site(record.metadata(), file, module, record.line().unwrap_or_default()) else { return };
        let mut values = Gathered::new();
        values.say(0, Value::TEXT, *record.args());
        let parent = Parent { kind: Parent::CURRENT, span: 0 };
        // SAFETY: the host's function for its data, and an address that it gave; the values outlive the call.
        unsafe { self.0.functions.event()(self.0.data, site.address, parent, values.wire()) }
    }

    fn flush(&self) {}
}
