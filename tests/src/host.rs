//! What does a running midair say?
//!
//! [`Midair`] is the real binary in a process of its own. What it says on stdout is read as the contract has it: one JSON object a line
//! and nothing else. A test goes through that story from front to back: each wait begins behind what the wait before found.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::{cargo, patience, repository};

/// A midair that is about to be started.
pub struct Launch {
    command: Command,
    data: TempDir,
}

impl Launch {
    /// `midair dev` of these plugins; without any, of the current folder.
    #[must_use]
    pub fn dev(plugins: &[&Path]) -> Self {
        Self::of(Command::new(cargo::midair()), "dev", plugins)
    }

    /// `midair run` of these artifacts.
    #[must_use]
    pub fn run(artifacts: &[&Path]) -> Self {
        Self::of(Command::new(cargo::midair()), "run", artifacts)
    }

    /// Another way to start midair: a command to which its own arguments can be added.
    #[must_use]
    pub fn of(mut command: Command, action: &str, paths: &[&Path]) -> Self {
        command.arg(action).args(paths).env("CARGO_TARGET_DIR", repository::shared_target());
        Self { command, data: folder() }
    }

    /// `midair run` of this artifact, which an earlier run has committed, while whatever comes after it stays on trial: a way back is there.
    ///
    /// # Panics
    ///
    /// If the earlier run doesn't commit it.
    #[must_use]
    #[track_caller]
    pub fn run_committed(artifact: &Path, data: &Path) -> Self {
        let run = || Self::run(&[artifact]).arg("--data").arg(data).arg("--generation-header");
        let mut first = run().arg("--probation").arg("0").arg("--probation-requests").arg("0").start();
        first.wait_for("committed", |event| event["event"] == "committed");
        assert!(first.terminate().status.success(), "the first run ends well");
        run().arg("--probation").arg("600")
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// The folder to start it in.
    #[must_use]
    pub fn inside(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// A variable of its environment; `None` takes it away.
    #[must_use]
    pub fn env(mut self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.command.env(name, value),
            None => self.command.env_remove(name),
        };
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it doesn't come up.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Midair {
        let mut midair = self.spawn();
        let listening = midair.wait_for("listening", |event| event["event"] == "listening");
        let address = |name: &str| listening[name].as_str().and_then(|address| address.parse().ok());
        midair.http = address("http");
        midair.admin = address("admin");
        // As the host sees its folder: it may have mounts of its own. What is read is held as long as the tests run: a client is copied freely.
        let root = PathBuf::from(format!("/proc/{}/root", midair.pid()));
        let data = midair.data_in_use.strip_prefix("/").map_or_else(|_| midair.data_in_use.clone(), |data| root.join(data));
        midair.token = fs::read_to_string(data.join("admin-token")).ok().map(|token| &*token.trim().to_owned().leak());
        midair
    }

    /// Starts it and waits until it has ended by itself.
    #[must_use]
    #[track_caller]
    pub fn end(self) -> Ended {
        self.spawn().ended("the end of a start that fails")
    }

    fn spawn(mut self) -> Midair {
        let given: Vec<_> = self.command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let data = self.data.path().as_os_str();
        let named = given.iter().position(|arg| arg == "--data").and_then(|at| given.get(at + 1));
        let data_in_use = PathBuf::from(named.map_or(data, |named| named.as_os_str()));
        for (name, value) in [("--listen", "127.0.0.1:0".as_ref()), ("--admin", "127.0.0.1:0".as_ref()), ("--data", data)] {
            if !given.iter().any(|arg| arg == name) {
                self.command.arg(name).arg(value);
            }
        }
        self.command.arg("--json");
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let story = Arc::new(Story::default());
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let listeners =
            vec![spawn(story.clone(), move |story| story.hear(stdout)), spawn(story.clone(), move |story| story.overhear(stderr))];
        Midair { child, story, listeners, read: 0, http: None, admin: None, token: None, data_in_use, data: self.data }
    }
}

fn folder() -> TempDir {
    let own = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("midair-e2e-").permissions(own).tempdir().expect("a folder for data")
}

fn spawn(story: Arc<Story>, listen: impl FnOnce(&Story) + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || listen(&story))
}

/// A midair that runs. Dropped, it is killed.
pub struct Midair {
    child: Child,
    story: Arc<Story>,
    listeners: Vec<JoinHandle<()>>,
    /// How many events the test has gone past.
    read: usize,
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    token: Option<&'static str>,
    data_in_use: PathBuf,
    data: TempDir,
}

/// How a midair ended, and all that it said.
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Its events.
    pub events: Vec<Value>,
    /// Its stderr.
    pub stderr: String,
}

impl Ended {
    /// All words in one, to look for some.
    #[must_use]
    pub fn words(&self) -> String {
        let events: Vec<_> = self.events.iter().map(Value::to_string).collect();
        format!("{}\n{}", events.join("\n"), self.stderr)
    }
}

#[derive(Default)]
struct Story {
    told: Mutex<Told>,
    more: Condvar,
}

#[derive(Default)]
struct Told {
    events: Vec<Value>,
    /// What stood on stdout and was no event.
    noise: Vec<String>,
    stderr: String,
    over: bool,
}

impl Story {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, stdout: impl Read) {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let mut told = self.told();
            match serde_json::from_str::<Value>(&line) {
                Ok(event) if event["event"].is_string() => told.events.push(event),
                _ => told.noise.push(line),
            }
            self.more.notify_all();
        }
        self.told().over = true;
        self.more.notify_all();
    }

    fn overhear(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut told = self.told();
            told.stderr.push_str(&line);
            told.stderr.push('\n');
            self.more.notify_all();
        }
    }
}

impl Midair {
    /// Its users' side.
    ///
    /// # Panics
    ///
    /// If it doesn't listen.
    #[must_use]
    #[track_caller]
    pub fn http(&self) -> Client {
        Client(self.http.expect("it says where it listens"), None)
    }

    /// Its operators' side, with the token that it left in its data folder.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[must_use]
    #[track_caller]
    pub fn admin(&self) -> Client {
        Client(self.admin.expect("it says where its admin listens"), self.token)
    }

    /// `GET target`.
    #[must_use]
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.http().get(target)
    }

    /// What `GET /status` of the admin says.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin().get("/status").json()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    /// Runs another midair as a client of this one: `status`, `events`, `reload`.
    #[must_use]
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo::midair());
        command.args(args).arg("--data").arg(&self.data_in_use);
        command
    }

    /// The next event that fits, behind the one that was found before.
    ///
    /// # Panics
    ///
    /// If none comes in time, the process ends, or something that is no event stands on stdout; with the whole story.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.comes(what, fits).unwrap_or_else(|text| panic!("{text}"))
    }

    /// The same for who has to go on when nothing comes.
    ///
    /// # Errors
    ///
    /// Why it doesn't come, with the whole story.
    pub fn comes(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let until = Instant::now() + patience();
        let mut told = self.story.told();
        loop {
            let found = told.events.iter().enumerate().skip(self.read).find(|(_, event)| fits(event));
            if let Some((place, event)) = found
                && told.noise.is_empty()
            {
                self.read = place + 1;
                return Ok(event.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if told.over || left.is_zero() || !told.noise.is_empty() {
                let end = if told.over { "it ended" } else { "none came" };
                return Err(format!("waited for {what}: {end}\n{}", told.text(self.read)));
            }
            told = self.story.more.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The next `published`.
    #[track_caller]
    pub fn published(&mut self) -> Value {
        self.wait_for("published", |event| event["event"] == "published")
    }

    /// The next `published` of each of these plugins, in whatever order they come.
    #[track_caller]
    pub fn all_published(&mut self, plugins: &[&str]) -> Vec<Value> {
        let start = self.read;
        let mut end = start;
        let each = plugins.iter().map(|plugin| {
            self.read = start;
            let event = self
                .wait_for(&format!("published of {plugin}"), |event| event["event"] == "published" && event["plugin"] == *plugin);
            end = end.max(self.read);
            event
        });
        let each = each.collect();
        self.read = end;
        each
    }

    /// The next `rejected`, which must have this code and come before anything goes live.
    #[track_caller]
    pub fn rejected(&mut self, code: &str) -> Value {
        let ends = ["rejected", "published", "configured"];
        let event = self.wait_for("rejected", |event| ends.iter().any(|end| event["event"] == *end));
        assert_eq!((event["event"].as_str(), event["code"].as_str()), (Some("rejected"), Some(code)), "{event}\n{}", self.story());
        event
    }

    /// The next end of an attempt: `published`, `unchanged` or `rejected`.
    #[track_caller]
    pub fn outcome(&mut self) -> Value {
        let ends = ["published", "unchanged", "rejected"];
        self.wait_for("the end of an attempt", |event| ends.iter().any(|end| event["event"] == *end))
    }

    /// All events so far of this kind.
    #[must_use]
    pub fn all(&self, kind: &str) -> Vec<Value> {
        self.story.told().events.iter().filter(|event| event["event"] == kind).cloned().collect()
    }

    /// All events so far.
    #[must_use]
    pub fn all_events(&self) -> Vec<Value> {
        self.story.told().events.clone()
    }

    /// The events that the test hasn't gone past, without going past them.
    #[must_use]
    pub fn unread(&self) -> Vec<Value> {
        self.story.told().events[self.read..].to_vec()
    }

    /// What stands on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.story.told().stderr.clone()
    }

    /// Waits until stderr has these words.
    ///
    /// # Panics
    ///
    /// If they don't come.
    #[track_caller]
    pub fn wait_for_stderr(&self, words: &str) {
        let until = Instant::now() + patience();
        let mut told = self.story.told();
        while !told.stderr.contains(words) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {words:?} on stderr\n{}", told.text(0));
            told = self.story.more.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The whole story, for the message of a test that fails.
    #[must_use]
    pub fn story(&self) -> String {
        self.story.told().text(self.read)
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Asks it to end and waits for that.
    #[must_use]
    #[track_caller]
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended("its end after SIGTERM")
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    ///
    /// If it doesn't, or something that is no event stood on stdout.
    #[must_use]
    #[track_caller]
    pub fn ended(mut self, what: &str) -> Ended {
        let until = Instant::now() + patience();
        let mut told = self.story.told();
        while !told.over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = told.text(self.read);
                drop(told);
                panic!("waited for {what}\n{text}");
            }
            told = self.story.more.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(told);
        let status = self.child.wait().expect("it can be waited for");
        self.listeners.drain(..).for_each(|listener| listener.join().expect("a listener ends"));
        let told = self.story.told();
        assert!(told.noise.is_empty(), "stdout carries only events\n{}", told.text(0));
        Ended { status, events: told.events.clone(), stderr: told.stderr.clone() }
    }
}

impl Told {
    fn text(&self, read: usize) -> String {
        let mut text = String::from("events:\n");
        for (place, event) in self.events.iter().enumerate() {
            text.push_str(&format!("{} {event}\n", if place < read { " " } else { "*" }));
        }
        text.push_str(&format!("no events, yet on stdout: {:?}\nstderr:\n{}", self.noise, self.stderr));
        text
    }
}

impl Drop for Midair {
    fn drop(&mut self) {
        // It fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
