//! What does the child do?
//!
//! It takes its order, limits itself, takes the plugin through every step that runs its code, and says before each what comes: the host
//! keeps the time, so the child needs no clock. All of it runs on one thread with the stack that threads of a host have, not the main
//! thread's larger one. The child never ends in an orderly way: once the verdict is told it kills itself, so that nothing of the plugin
//! runs any more.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use midair_abi::Outcome;
use midair_abi::store::Limits;
use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};

use super::start::{MEMORY, give_up, program};
use super::wire::{Fault, Order, Told, line};

use crate::call::body::Body;
use crate::call::context::{self, HostContext};
use crate::call::invocation::Call;
use crate::call::respond;
use crate::live::config::Config;
use crate::live::generation::{Ends, Identity};
use crate::live::lease::Leases;
use crate::live::slot::Slot;
use crate::live::snapshot::{Member, Setup, Snapshot};
use crate::plugin::exports::{Plugin, Smoke, told};
use crate::plugin::library::Opened;
use crate::plugin::symbolize::Namer;
use crate::report::error::{Code, Error, Result, Stage};
use crate::report::event::{Bus, Event};
use crate::resources::host_services::Offers;
use crate::resources::logs::Logs;
use crate::resources::sockets::Sockets;
use crate::resources::state::State;
use crate::resources::tasks::Tasks;
use crate::resources::topics::Messages;
use crate::sys::process;
use crate::trial::candidate;
use crate::work::{gates, hostcalls};

/// The processor time that a child may take, at least; a backstop, should its host be unable to end it.
const PROCESSOR: Duration = Duration::from_secs(600);

/// The way to the host.
#[derive(Clone)]
struct Wire(Arc<Mutex<UnixStream>>);

impl Wire {
    fn say(&self, told: &Told) {
        // Without a host nobody waits for it; the child ends with its host anyway.
        let _ = self.0.lock().write_all(&line(told));
    }
}

pub(super) fn run() -> ! {
    let (wire, order) = match take_order() {
        Ok(taken) => taken,
        Err(error) => give_up(&format!("no host waits for it: {error}"), "unset it"),
    };
    limit(&order);
    let trial = move || {
        wire.say(&match try_out(&order, &wire) {
            Ok(()) => Told::Passed,
            Err(error) => Told::Failed(Fault::from(&error)),
        });
        end()
    };
    // Ends with a panic at most; its words are the process's last.
    let _ = thread::Builder::new().name("midair-probe".to_owned()).spawn(trial).map(thread::JoinHandle::join);
    std::process::exit(1)
}

fn end() -> ! {
    loop {
        // Fails for nobody's own process.
        let _ = kill_process(getpid(), Signal::KILL);
        thread::park();
    }
}

/// Takes the socket from where the host put it, says who this is and hears what is to be done.
fn take_order() -> io::Result<(Wire, Order)> {
    // What the plugin reads there is nothing, and what it writes there reaches nobody.
    let socket = UnixStream::from(process::take_stdin()?);
    socket.peer_addr()?;
    let wire = Wire(Arc::new(Mutex::new(socket.try_clone()?)));
    wire.say(&Told::Program(program()));
    let mut order = String::new();
    BufReader::new(socket).read_line(&mut order)?;
    Ok((wire, serde_json::from_str(&order)?))
}

/// Lowers what this process may take. What can't be lowered stays as it is for the host.
fn limit(order: &Order) {
    process::confine(MEMORY, PROCESSOR.max(order.deadline * 10));
}

fn try_out(order: &Order, wire: &Wire) -> Result<()> {
    let (bus, why) = (Bus::default(), Arc::new(Mutex::new(String::new())));
    listen(&bus, wire, Arc::clone(&why));
    // Nobody frees anything here: what is left of the plugin ends with the process.
    let ((reaper, _ended), (alarms, _rings)) = (channel(), channel());
    let tasks = Tasks::new();
    let host = Arc::new(HostContext {
        messages: Messages::new(Arc::clone(&tasks), bus.clone()),
        offers: Offers::default(),
        store: State::in_memory(Limits::default()),
        frames: Namer::without_names(bus.clone()),
        logs: Logs::of_probe(bus.clone()),
        bus,
        leases: Leases::new(),
        dev: order.dev,
        probe: true,
        ends: Ends { reaper, alarms },
        tasks,
        sockets: Sockets::new(),
        urgency: Default::default(),
        front: OnceLock::new(),
        functions: hostcalls::functions(),
    });
    let begins = |stage, what: &str| wire.say(&Told::Begins { stage, what: what.to_owned() });
    begins(Stage::Load, "opening it");
    let opened = Opened::open(&order.path)?;
    begins(Stage::Check, "comparing its types");
    let library = opened.check()?;
    library.log_to(&host.logs, &order.plugin, order.number);
    begins(Stage::Init, "its plugin function");
    let code = Plugin::build(library, &order.plugin)?;
    let (selftests, smokes) = (code.selftests().to_vec(), code.smokes().to_vec());
    let (plugin, digest, file) = (order.plugin.clone(), order.digest.clone(), order.path.clone());
    let identity = Identity { plugin, number: order.number, code: digest.clone(), digest, file };
    let candidate = context::candidate(identity, code, &host);
    begins(Stage::Check, "reading its config");
    let config = Config::read(&candidate, &order.config)?;
    let setup = Setup { generation: Arc::clone(&candidate), config };
    begins(Stage::Init, "its init");
    candidate::run_init(&setup)?;
    // From here on it is as it will be when it serves: what `init` wrote is there, and its routes answer.
    candidate.open();
    gates::open(&host, std::iter::once(&candidate));
    let snapshot = Snapshot::compose(1, [Member::anew(setup.clone())]).map_err(|clash| {
        Error::rejected(Code::Routes, Stage::Try, &order.plugin, clash.to_string()).help("each method and path has one handler")
    })?;
    let trial = Trial { candidate: setup, slot: Slot::new(Arc::new(snapshot)), why };
    for (place, name) in selftests.iter().enumerate() {
        let what = format!("the self-test {name}");
        begins(Stage::Probe, &what);
        trial.selftest(place, &what)?;
    }
    for smoke in &smokes {
        let what = format!("the smoke {} {}", smoke.method, smoke.target);
        begins(Stage::Probe, &what);
        trial.smoke(smoke, &what)?;
    }
    Ok(())
}

/// Sends what the plugin logs to the host, and keeps why a handler failed last.
fn listen(bus: &Bus, wire: &Wire, why: Arc<Mutex<String>>) {
    let wire = wire.clone();
    bus.listen(move |event| {
        match &**event {
            Event::Log(line) => wire.say(&Told::Log { level: line.level.clone(), message: line.message.clone() }),
            Event::Failed { error, .. } => why.lock().clone_from(error),
            Event::Panicked { message, location, .. } => *why.lock() = format!("the handler panicked: {message} at {location}"),
            _ => {}
        }
        true
    });
}

/// A plugin that was started and tests itself.
struct Trial {
    candidate: Setup,
    slot: Slot,
    /// Why a handler failed last.
    why: Arc<Mutex<String>>,
}

impl Trial {
    fn failed(&self, what: &str, how: &str) -> Error {
        Error::rejected(Code::Probe, Stage::Probe, self.candidate.generation.plugin(), format!("{what} {how}"))
    }

    fn selftest(&self, place: usize, what: &str) -> Result<()> {
        let call = Call::of_trial(self.slot.admit(), self.candidate.clone());
        let outcome = self.candidate.generation.code().map_or_else(Outcome::done, |code| code.selftest(place, call.context()));
        match outcome.kind() {
            Outcome::DONE => Ok(()),
            Outcome::PANIC => Err(self.failed(what, &format!("panicked: {}", told(&outcome.panic())))),
            _ => Err(self.failed(what, &format!("failed: {}", outcome.text()))),
        }
    }

    fn smoke(&self, smoke: &Smoke, what: &str) -> Result<()> {
        self.why.lock().clear();
        let request = Request::builder().method(&*smoke.method).uri(&*smoke.target).body(Bytes::new());
        let request = request.map_err(|error| self.failed(what, &format!("can't be asked: {error}")))?;
        let answer = block_on(respond::answer(&self.slot, request));
        let status = answer.status().as_u16();
        if status == smoke.status {
            return Ok(());
        }
        let why = std::mem::take(&mut *self.why.lock());
        let said = match answer.body() {
            Body::Whole(body) => String::from_utf8_lossy(body).trim_end().chars().take(200).collect(),
            Body::Stream(_) => "a streamed body".to_owned(),
            Body::File(path) => format!("the file {}", path.display()),
        };
        let why = if why.is_empty() { said } else { why };
        Err(self.failed(what, &format!("is answered {status}, not {}: {why}", smoke.status)))
    }
}

/// Polls on this thread until it is done.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
