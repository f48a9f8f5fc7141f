//! How is midair used from a terminal?
//!
//! [`args`] says what can be asked. `dev` and `run` become a host in [`serve`], which owns a `data` folder, tells what happens through
//! [`outlet`] in the words of [`render`], and ends by the rules of `signals`. All others are clients of a running host and live in
//! [`client`], with [`table`] to show what they learned.

pub mod args;
pub mod client;
mod data;
pub mod outlet;
pub mod render;
pub mod serve;
mod signals;
mod state;
pub mod table;

use std::io::{self, IsTerminal, Write};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::args::{Action, Cli};
use crate::error::{Code, Error};
use crate::exit;

/// Does what the command line asks for, and ends the process: 0 when it went well, 1 when it couldn't start, 2 for wrong usage.
///
/// The process ends without unwinding: plugin code may be stuck on threads that nobody can join.
pub fn main() -> ! {
    let cli = Cli::parse();
    show_own_diagnostics();
    let outcome = match cli.action {
        Action::Dev(dev) => serve::dev(dev),
        Action::Run(run) => serve::run(run),
        Action::Status(ask) => client::status(&ask),
        Action::Generations(ask) => client::generations(&ask),
        Action::Events(ask) => client::events(&ask),
        Action::Rollback(rollback) => client::rollback(&rollback.client, rollback.which.as_ref()),
        Action::State(state) => state::run(&state),
        Action::Reload(reload) => client::reload(&reload.client, reload.force),
    };
    let status = match outcome {
        Ok(()) => 0,
        Err(error) => {
            // Where even stderr is gone, the exit status still tells.
            let _ = io::stderr().write_all(render::failure(&error).as_bytes());
            exit_status(&error)
        }
    };
    exit::now(status)
}

fn exit_status(error: &Error) -> i32 {
    if error.code() == Code::Usage { 2 } else { 1 }
}

/// The host's own log goes to stderr, `MIDAIR_LOG` chooses how much of it; events go elsewhere.
fn show_own_diagnostics() {
    let filter = EnvFilter::builder().with_env_var("MIDAIR_LOG").with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let color = render::color_wanted(io::stderr().is_terminal());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(color).init();
}
