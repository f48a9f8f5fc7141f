//! How does a host start, and how does it end?
//!
//! Start: all that can fail comes before the first `listening`. End: what starts new things stops first, then requests and what goes on beside them get their time, then
//! the state's file is closed, then the last word is said. The main thread waits for signals here and runs no plugin code.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::args::{AdminAddr, Dev, Run, Serve};
use super::data::{self, Data};
use super::lines::{self, Adjustable};
use super::outlet::{Form, Outlet};
use super::signals::{Asked, End, Hangup, Signals};
use crate::cli::exit::{self, Fuse};
use crate::dev::build::{self, Project};
use crate::dev::command::{Commands, Control};
use crate::error::{Code, Error, Result, Tier};
use crate::event::{Event, Left};
use crate::http::admin::{self, Admin};
use crate::http::serve::{Limits, Running, Server};
use crate::probe::Probe;
use crate::swap::{self, Artifact, Host};

/// What each last step may take that isn't the requests' own time: the build that is killed, the last answers and lines.
const GRACE: Duration = Duration::from_secs(2);

/// `midair dev`: builds, watches, serves, until it is told to end.
///
/// # Errors
///
/// What kept the host from starting, or from going on.
pub(super) fn dev(args: Dev, filter: Adjustable) -> Result<()> {
    let Dev { paths, release, profile, features, serve, cargo_args } = args;
    telling(serve.json, |outlet| {
        let color = outlet.form() == Form::Human { color: true };
        let project = Project::find(&paths, &build::Options { release, profile, features, cargo_args, cargo: None, ansi: color })?;
        let beside_the_build = || project.target().map(|target| target.join("midair/data"));
        let folder = serve.data.clone().or_else(beside_the_build).unwrap_or_else(|| PathBuf::from("target/midair/data"));
        let config = project.root().map(|root| root.join("midair.toml"));
        let options = swap::Options { config, ..swap::Options::development("") };
        let mode = Mode { generation_header: true, hangup: Hangup::Ends, options, filter };
        let plugins = project.plugins().len();
        host(&serve, folder, mode, plugins, outlet, |host, commands| crate::dev::run(host, project, commands))
    })
}

/// `midair run`: serves artifacts and swaps when one is replaced, until it is told to end.
///
/// # Errors
///
/// What kept the host from starting, or from going on.
pub(super) fn run(args: Run, filter: Adjustable) -> Result<()> {
    let Run { artifacts, trust_owner, allow_library, generation_header, serve, .. } = args;
    telling(serve.json, |outlet| {
        let mut named = BTreeSet::new();
        // The same file twice is one.
        let artifacts = artifacts.into_iter().filter(|path| named.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
        let artifacts = artifacts.map(artifact).collect::<Result<Vec<_>>>()?;
        let folder = serve.data.clone().map_or_else(|| data::of_user(|name| std::env::var_os(name)), Ok)?;
        let trust = swap::Trust::Strict { owners: trust_owner };
        let allow_libraries = (!allow_library.is_empty()).then_some(allow_library);
        let options = swap::Options { trust, allow_libraries, ..swap::Options::new("") };
        let mode = Mode { generation_header, hangup: Hangup::Reloads, options, filter };
        let plugins = artifacts.len();
        host(&serve, folder, mode, plugins, outlet, |host, commands| crate::dev::run_loop::run(host, artifacts, commands))
    })
}

/// Whose name the manifest will tell. It must be there at the start, so that a slip of the pen is noticed.
fn artifact(path: PathBuf) -> Result<Artifact> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(Artifact { plugin: String::new(), path }),
        Ok(_) => Err(Error::fatal(Code::Perm, path.display().to_string(), "the artifact isn't a regular file")
            .help("name the library that cargo built, such as target/release/libshop.so")),
        Err(error) => Err(Error::fatal(Code::Io, path.display().to_string(), "the artifact can't be read")
            .caused_by(error)
            .help("name the library that cargo built, such as target/release/libshop.so")),
    }
}

/// A config file that was named must be there at the start, for the same reason.
fn config(path: PathBuf) -> Result<PathBuf> {
    match path.metadata() {
        Ok(found) if found.is_file() => std::path::absolute(&path)
            .map_err(|error| Error::fatal(Code::Io, path.display().to_string(), "the config can't be found").caused_by(error)),
        Ok(_) => Err(Error::fatal(Code::Config, path.display().to_string(), "the config isn't a regular file")),
        Err(error) => Err(Error::fatal(Code::Config, path.display().to_string(), "the config can't be read")
            .caused_by(error)
            .help("name the file, such as --config midair.toml, or leave the option out")),
    }
}

/// Opens the outlet around `body` and sees to it that its last words get out.
fn telling(json: bool, body: impl FnOnce(&Outlet) -> Result<()>) -> Result<()> {
    let outlet = Outlet::open(json)?;
    let outcome = body(&outlet);
    if let Err(error) = &outcome {
        outlet.say(Event::Fatal { code: error.code(), reason: whole(error), help: error.help_text().map(str::to_owned) });
    }
    outlet.flush(GRACE);
    outcome
}

/// The error with its causes, in one line.
fn whole(error: &Error) -> String {
    if error.subject().is_empty() { error.reason() } else { format!("{}: {}", error.subject(), error.reason()) }
}

struct Mode {
    generation_header: bool,
    hangup: Hangup,
    /// All but the folder and what the command line says in both.
    options: swap::Options,
    filter: Adjustable,
}

fn host(
    serve: &Serve,
    folder: PathBuf,
    mode: Mode,
    plugins: usize,
    outlet: &Outlet,
    body: impl FnOnce(Host, Commands) -> Result<()> + Send + 'static,
) -> Result<()> {
    let sockets = serve.sockets.limits()?;
    let config = serve.config.clone().map(config).transpose()?.or(mode.options.config.clone());
    let fuse = Fuse::lay().map_err(|error| Error::fatal(Code::Io, "", "the host can't start").caused_by(error))?;
    let data = Data::claim(&folder)?;
    let (data_path, artifact_limit) = (data.path().to_owned(), serve.artifact_limit as u64);
    let rules = serve.probation.rules(mode.options.rules);
    let probe = if serve.no_probe { Probe::Off } else { Probe::On };
    let (deadline, retire) = (serve.step_timeout, serve.retire_timeout);
    let (keep, most_libraries) = (serve.probation.keep, serve.most_libraries);
    let (state, limits) = (serve.state.clone(), swap::Limits { value: serve.value_limit, ..swap::Limits::default() });
    let options = swap::Options {
        data: data_path,
        config,
        artifact_limit,
        rules,
        probe,
        deadline,
        retire,
        keep,
        most_libraries,
        state,
        limits,
        ..mode.options
    };
    let host = Host::new(options)?;
    let serves = host.clone();
    exit::watch(move || serves.serving()).map_err(|error| Error::fatal(Code::Io, "", "the host can't start").caused_by(error))?;
    host.expect(plugins);
    outlet.listen(host.events());
    lines::tell(host.events());
    host.logs().offer(mode.filter);

    let (control, commands) = Commands::new();
    let limits = Limits {
        body: serve.body_limit,
        body_timeout: serve.body_timeout,
        request_timeout: serve.request_timeout,
        workers: serve.workers,
        generation_header: mode.generation_header,
        sockets,
        ..Limits::default()
    };
    let server = Server::bind(host.clone(), serve.listen, limits).map_err(name_another_address)?;
    let admin = match serve.admin {
        AdminAddr::Off => None,
        AdminAddr::At(addr) => {
            let options = admin::Options { addr, token: token(serve.admin_token.clone()), data: data.path().to_owned() };
            Some(Admin::bind(host.clone(), reloading(&control), &options)?)
        }
    };
    let failed = |error| Error::fatal(Code::Io, "", "the host can't start").caused_by(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut signals = runtime.block_on(async { Signals::take(mode.hangup) })?;

    let (http_addr, admin_addr) = (server.addr(), admin.as_ref().map(Admin::addr));
    let admin = admin.map(Admin::start).transpose()?;
    let server = server.start()?;
    host.events().say(Event::Listening {
        http: http_addr.to_string(),
        admin: admin_addr.map(|addr| addr.to_string()),
        pid: std::process::id(),
        run: host.run().to_owned(),
    });
    let (broken, breaks) = oneshot::channel();
    let (alive, over) = oneshot::channel();
    let inside = host.clone();
    let work = move || {
        let _alive = alive;
        watch_over(&inside.clone(), broken, || body(inside, commands));
    };
    thread::Builder::new().name("midair-loop".to_owned()).spawn(work).map_err(failed)?;

    let outcome = runtime.block_on(async {
        let outcome = tokio::select! {
            end = until_asked_to_end(&mut signals, &host, &control) => {
                host.events().say(Event::Stopping { signal: end.name().to_owned(), in_flight: server.in_flight() });
                Ok(())
            }
            Ok(error) = breaks => Err(error),
        };
        control.stop();
        // Whatever of the following gets stuck behind a plugin, the process ends.
        fuse.light(serve.drain_timeout + GRACE * 5, i32::from(outcome.is_err()));
        tokio::select! {
            abandoned = end(&host, server, over, serve.drain_timeout) => host.events().say(Event::Stopped(abandoned)),
            again = signals.again() => again.end_process(),
        }
        outcome
    });
    if let Some(admin) = admin {
        admin.stop(GRACE);
    }
    // The process is about to end. Dropping the last reference to the host would run plugin code on this thread, and ending a runtime
    // waits for the system's loader where a plugin holds it: neither may come back.
    mem::forget((host, runtime));
    outcome
}

/// Does what signals ask for, until one asks for the end.
async fn until_asked_to_end(signals: &mut Signals, host: &Host, control: &Control) -> End {
    loop {
        match signals.next().await {
            Asked::End(end) => return end,
            // A loop that ended was told of when it did.
            Asked::Reload => drop(control.reload(false)),
            Asked::Upgrade => {
                let message = "SIGUSR2 is kept for the host's own upgrade, which is not built yet: nothing was done; to look again, send SIGHUP to `midair run`, or `midair reload`";
                host.events().say(Event::Warning { message: message.to_owned() });
            }
        }
    }
}

fn reloading(control: &Control) -> admin::Reload {
    let control = control.clone();
    Arc::new(move |force, asker| match asker {
        Some(asker) => control.reload_for(force, asker),
        None => control.reload(force),
    })
}

/// Runs the loop. A fatal error of its own goes to `broken`; without a loop, what serves goes on serving.
fn watch_over(host: &Host, broken: oneshot::Sender<Error>, body: impl FnOnce() -> Result<()>) {
    let why = match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) if error.tier() == Tier::Fatal => return drop(broken.send(error)),
        Ok(Err(error)) => whole(&error),
        Err(_) => "a bug of midair: it panicked, see stderr".to_owned(),
    };
    host.events().say(Event::Warning {
        message: format!("the loop that looks for changes ended ({why}); what serves goes on, restart midair to see changes again"),
    });
}

/// Gives requests, and what goes on beside them, until `deadline`, the loop the time to kill its build and the state's file the time to be
/// closed. Answers what was left.
async fn end(host: &Host, server: Running, over: oneshot::Receiver<Infallible>, deadline: Duration) -> Left {
    let (done, drained) = oneshot::channel();
    let drain = move || done.send(server.drain(deadline)).unwrap_or_default();
    let spawned = thread::Builder::new().name("midair-drain".to_owned()).spawn(drain);
    let abandoned = match timeout(deadline + GRACE, drained).await {
        Ok(Ok(abandoned)) if spawned.is_ok() => abandoned,
        _ => Left { requests: host.in_flight(), ..host.settle(Duration::ZERO) },
    };
    // Nothing is ever sent: this is over when the loop's thread is, or late.
    let _ = timeout(GRACE, over).await;
    let closing = host.clone();
    // Not on this thread, which waits for a second signal.
    // What it panicked with was printed; there is nothing else to end.
    let _ = tokio::task::spawn_blocking(move || closing.close(GRACE)).await;
    abandoned
}

/// The listener knows what is wrong with its address, but not what the option for it is called.
fn name_another_address(error: Error) -> Error {
    if error.help_text().is_some() {
        error
    } else {
        error.help("choose another with --listen 127.0.0.1:PORT; port 0 picks a free one")
    }
}

/// The environment's token is not in the list of processes, but one on the command line was meant.
pub(super) fn token(given: Option<String>) -> Option<String> {
    given.or_else(|| std::env::var("MIDAIR_ADMIN_TOKEN").ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::error::Stage;

    #[test]
    fn an_artifact_that_is_not_there_is_named() {
        for (path, code) in [("/nowhere/libshop.so", Code::Io), ("/", Code::Perm)] {
            let error = artifact(path.into()).expect_err("refused");
            assert_eq!((error.code(), error.subject()), (code, path));
        }
    }

    #[test]
    fn a_loop_that_ends_by_itself_is_told_and_only_a_fatal_error_ends_the_host() {
        let check = |body: fn() -> Result<()>| {
            let data = tempfile::tempdir().expect("a folder");
            let host = Host::new(swap::Options::new(data.path())).expect("a host");
            let (broken, mut breaks) = oneshot::channel();
            watch_over(&host, broken, body);
            let warned = Arc::new(AtomicBool::new(false));
            let heard = warned.clone();
            host.events().listen(move |event| {
                heard.fetch_or(matches!(**event, Event::Warning { .. }), Ordering::Relaxed);
                true
            });
            (warned.load(Ordering::Relaxed), breaks.try_recv().is_ok())
        };
        assert_eq!(check(|| Ok(())), (false, false));
        assert_eq!(check(|| Err(Error::fatal(Code::Io, "", "broke"))), (false, true));
        assert_eq!(check(|| Err(Error::rejected(Code::Io, Stage::Watch, "", "broke"))), (true, false));
        assert_eq!(check(|| panic!("a bug")), (true, false));
    }
}
