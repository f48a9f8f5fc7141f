//! How is midair used from a terminal?
//!
//! [`args`] says what can be asked. `dev` and `run` become a host in [`serve`], which owns a `data` folder, tells what happens through
//! [`outlet`] in the words of [`render`], and ends by the rules of `signals`. All others are clients of a running host and live in
//! [`client`], with [`table`] to show what they learned; `whereabouts` finds the host.

pub mod args;
pub mod client;
mod data;
#[expect(unsafe_code, reason = "the only caller of _exit and on_exit")]
mod exit;
mod lines;
pub mod outlet;
pub mod render;
mod repeats;
pub mod serve;
mod signals;
mod state;
pub mod table;
mod tame;
mod whereabouts;

use std::io::{self, Write};

use clap::Parser;

use self::args::{Action, Cli};
use self::lines::Adjustable;
use crate::error::{Code, Error, Result};

/// Does what the command line asks for, and ends the process: 0 when it went well, 1 when it couldn't start, 2 for wrong usage, 3 when the host
/// refused what it was asked to look at.
///
/// The process ends without unwinding: plugin code may be stuck on threads that nobody can join.
pub fn main() -> ! {
    let cli = Cli::parse();
    let filter = log(&cli.action);
    let outcome = filter.and_then(|filter| act(cli.action, filter));
    let status = match outcome {
        Ok(status) => status,
        Err(error) => {
            // Where even stderr is gone, the exit status still tells.
            let _ = io::stderr().write_all(render::failure(&error).as_bytes());
            exit_status(&error)
        }
    };
    exit::now(status)
}

/// The status to end with.
fn act(action: Action, filter: Adjustable) -> Result<i32> {
    let done = match action {
        Action::Dev(dev) => serve::dev(dev, filter),
        Action::Run(run) => serve::run(run, filter),
        Action::Status(ask) => client::status(&ask),
        Action::Generations(ask) => client::generations(&ask),
        Action::Events(ask) => client::events(&ask),
        Action::Rollback(rollback) => client::rollback(&rollback.client, rollback.which.as_ref()),
        Action::State(state) => state::run(&state),
        Action::Reload(reload) => return client::reload(&reload.client, reload.force, !reload.no_wait),
        Action::Log(log) => client::log(&log.client, log.filter.as_deref()),
    };
    done.map(|()| 0)
}

fn exit_status(error: &Error) -> i32 {
    if error.code() == Code::Usage { 2 } else { 1 }
}

/// Takes what is logged, by the filter that was asked for.
fn log(action: &Action) -> Result<Adjustable> {
    let said = match action {
        Action::Dev(dev) => dev.serve.log.as_ref(),
        Action::Run(run) => run.serve.log.as_ref(),
        _ => None,
    };
    let by_environment = std::env::var("MIDAIR_LOG").ok().filter(|filter| !filter.is_empty());
    let (source, filter) = match (said, &by_environment) {
        (Some(filter), _) => ("--log", filter.as_str()),
        (None, Some(filter)) => ("MIDAIR_LOG", filter.as_str()),
        (None, None) => ("", lines::DEFAULT),
    };
    lines::take(filter).map_err(|wrong| Error::fatal(Code::Usage, source, wrong))
}
