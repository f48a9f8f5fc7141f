//! How is a host driven within the test's own process, as a custom host is?

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use midair::attempt::{Outcome, Record};
use midair::event::Event;
use midair::probation::Rules;
use midair::probe::Probe;
use midair::swap::{Artifact, Host, Options, Which};
use midair_tests::{patience, project};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Waits until `is` is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + patience();
    while !is() {
        assert!(Instant::now() < end, "waited for {what}");
        thread::yield_now();
    }
}

/// A host with one plugin, and its folders.
pub(crate) struct Inside {
    pub(crate) host: Host,
    pub(crate) runtime: tokio::runtime::Runtime,
    warnings: Arc<Mutex<Vec<String>>>,
    plugin: String,
    folder: TempDir,
    _data: TempDir,
}

impl Inside {
    /// A host that never goes back by itself.
    pub(crate) fn new(plugin: &str) -> Self {
        Self::by(plugin, Rules { acts: false, ..Rules::PRODUCTION })
    }

    /// A host that never goes back by itself and gives old work so much time.
    pub(crate) fn retiring(plugin: &str, retire: Duration) -> Self {
        Self::with(plugin, Rules { acts: false, ..Rules::PRODUCTION }, retire)
    }

    /// A host with these rules for `plugin`.
    pub(crate) fn by(plugin: &str, rules: Rules) -> Self {
        // No test takes that long: what it waits for isn't given up on the way.
        Self::with(plugin, rules, Duration::from_secs(300))
    }

    /// It probes nothing: what is tried here isn't the artifact.
    fn with(plugin: &str, rules: Rules, retire: Duration) -> Self {
        let memory = Path::new("/dev/shm");
        let data = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
        let options = Options { probe: Probe::Off, recovers: false, durable: false, rules, retire, ..Options::new(data.path()) };
        let host = Host::new(options).expect("a host");
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&warnings);
        host.events().listen(move |event| {
            match &**event {
                Event::Warning { message } => heard.lock().expect("a list").push(message.clone()),
                Event::Failed { kind, error, .. } => heard.lock().expect("a list").push(format!("{kind:?} failed: {error}")),
                _ => {}
            }
            true
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        Self { host, runtime, warnings, plugin: plugin.to_owned(), folder, _data: data }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("libinside.so")
    }

    /// Swaps these bytes in, though they may be held; what came of it.
    pub(crate) fn swap(&self, bytes: &[u8]) -> Record {
        project::save(&self.path(), bytes);
        self.host.swap(self.host.begin("test").force(true), vec![Artifact { plugin: String::new(), path: self.path() }])
    }

    /// The same where they must be published; the generation's number.
    #[track_caller]
    pub(crate) fn publish(&self, bytes: &[u8]) -> u64 {
        let record = self.swap(bytes);
        assert_eq!(record.outcome, Outcome::Published, "{record:?}");
        record.parts[0].generation
    }

    /// Puts the generation of this number back.
    #[track_caller]
    pub(crate) fn back_to(&self, number: u64) {
        let record = self.host.roll_back(&Which::To(self.plugin.clone(), number));
        assert_eq!(record.outcome, Outcome::RolledBack, "{record:?}");
    }

    /// What the route answers, read as JSON.
    pub(crate) fn get(&self, path: &str) -> Value {
        let request = http::Request::get(path).body(Bytes::new()).expect("a request");
        let answer = self.runtime.block_on(self.host.ask(request));
        serde_json::from_slice(answer.body()).unwrap_or_else(|_| String::from_utf8_lossy(answer.body()).into())
    }

    /// The status as scripts get it.
    pub(crate) fn status(&self) -> Value {
        serde_json::to_value(self.host.status()).expect("it is JSON")
    }

    /// What was warned of, or failed.
    pub(crate) fn told(&self) -> Vec<String> {
        self.warnings.lock().expect("a list").clone()
    }

    /// Whether something like this was warned of, or failed with it.
    pub(crate) fn was_told(&self, words: &str) -> bool {
        self.told().iter().any(|warning| warning.contains(words))
    }
}
