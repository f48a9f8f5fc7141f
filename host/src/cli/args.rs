//! What can be asked of `midair`, and in which words?
//!
//! Nothing but the shape of the command line: what a value means for the host is decided where it is used. The help texts are for
//! someone who has never seen midair.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Code, Error, Result};
use crate::http::socket::SocketLimits;
use crate::probation::Rules;
use crate::swap::Which;

/// Change the code of a running server without restarting it.
///
/// `midair dev` builds your plugin, serves it, and puts every change live when you save: same process, same connections, same state.
/// `midair run` does the same with finished artifacts.
#[derive(Debug, Parser)]
#[command(
    name = "midair",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
Examples:
  midair dev                        build and serve the plugins of this workspace
  midair dev ../shop                ... or the one in that folder
  midair run target/release/libshop.so
  midair status                     what serves, and what became of the last changes

Environment:
  MIDAIR_LOG          the same as --log
  MIDAIR_ADMIN_TOKEN  the same as --admin-token, but not shown in lists of processes nor told to builds
  NO_COLOR            set it for output without colours

Signals to a host:
  TERM, INT, QUIT     end it after a drain; a second one ends it at once
  HUP                 run: look again, as midair reload; dev: end it after a drain
  USR2                kept for the host's own upgrade, which is not built yet

Exit codes:
  0    ended by a signal after a drain, or all went well
  1    failed at the start, or no host answers
  2    wrong usage
  3    a reload was refused
  70   a probe in a program without its hook
  71   code of a plugin called exit
  130, 131, 143   ended at once by a second signal: INT, QUIT, TERM"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Build plugins from source, serve them, and put every saved change live
    #[command(after_help = "\
Examples:
  midair dev
  midair dev ../shop ../cart --listen 127.0.0.1:8080
  midair dev --release --features metrics -- --offline

What fails to build or to start changes nothing: the code before keeps serving.")]
    Dev(Dev),
    /// Serve built plugins, and swap when a file is replaced
    #[command(after_help = "\
Examples:
  midair run target/release/libshop.so
  midair run libshop.so libcart.so --listen 0.0.0.0:80 --request-timeout 30

Replace a file (cp or mv over it, or repoint a symlink) to put its new content live.

Artifacts are taken only if nobody else can change them: they, the folders above them and what
symlinks lead through belong to root or to the host's user and aren't writable by group or others.
If ARTIFACT.blake3 lies beside an artifact, as b3sum writes it, it must match; replace it first.")]
    Run(Run),
    /// Show what a running host serves and what became of the last changes
    Status(Client),
    /// Follow what happens in a running host, until Ctrl-C
    Events(Client),
    /// Show every generation that still exists, and which calls hold it
    Generations(Client),
    /// Put the code back that served before, at once
    #[command(after_help = "\
Examples:
  midair rollback           all plugins of the last publish
  midair rollback shop      shop alone: to what served before
  midair rollback shop@3    to generation 3, if it is kept

What comes back is committed. What is replaced is held: the same bytes don't come back by themselves, only by
`midair reload --force` or a rollback to their number. Other bytes go live as ever.")]
    Rollback(Rollback),
    /// Have a running host look again for changes, and wait for what comes of it
    #[command(after_help = "\
Examples:
  midair reload             what the host says of it; ends when new code is live, or refused
  midair reload --force     also what serves already, or is held
  midair reload --no-wait   asks and no more

Of `midair dev` it waits for the build too. Where a newer edit overtakes it, it waits for that one. It doesn't wait for
the end of probation.

Exit codes: 0 published, configured or unchanged; 3 refused, what served before keeps serving; 1 no host answers, or it
ended meanwhile.")]
    Reload(Reload),
    /// Show or change what of the logs is told, while the host runs
    #[command(after_help = "\
Examples:
  midair log                          what holds now
  midair log info,shop=debug          more of the plugin shop
  midair log warn,shop::cart=trace    all of one of its modules, and warnings

Of the host itself `midair::` is told on its stderr, of plugins all is an event. A filter that makes no sense changes nothing.")]
    Log(Log),
    /// Show the tables of a running host's plugins, write one out, or bring one in
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "\
Examples:
  midair state                                    the tables, their values and bytes
  midair state export shop/links > links.jsonl    one line of JSON for each value
  midair state import shop/links < links.jsonl    writes each, over what is there

Lines are taken in batches, each as a whole or not at all; what is wrong with one is said with its number."
    )]
    State(State),
}

/// What `midair dev` takes.
#[derive(Debug, Args)]
pub struct Dev {
    /// Folders of plugin packages [default: all plugins of the workspace here]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Build with the release profile
    #[arg(long, conflicts_with = "profile")]
    pub release: bool,
    /// Build with this cargo profile
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Build with these cargo features (comma between several)
    #[arg(long, short = 'F', value_name = "FEATURES", value_delimiter = ',')]
    pub features: Vec<String>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
    /// Handed to cargo build as they are
    #[arg(last = true, value_name = "CARGO ARGS", value_parser = cargo_arg)]
    pub cargo_args: Vec<String>,
}

/// An argument for cargo, unless midair sets it itself.
fn cargo_arg(text: &str) -> Result<String, String> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    let name = if text.starts_with("-p") && !text.starts_with("--") { "-p" } else { name };
    let instead = match name {
        "--target-dir" => "say CARGO_TARGET_DIR or `build.target-dir`; midair builds into a folder below it",
        "--message-format" => "midair reads cargo's messages as JSON and shows the compiler's; `--json` makes them events",
        "--manifest-path" | "-p" | "--package" | "--workspace" | "--all" | "--exclude" => {
            "name the plugins' folders before the `--`: midair dev path/to/plugin"
        }
        "--lib" | "--bin" | "--bins" | "--example" | "--examples" | "--test" | "--tests" | "--bench" | "--benches"
        | "--all-targets" => "midair builds the plugins' libraries",
        _ => return Ok(text.to_owned()),
    };
    Err(format!("midair sets `{name}` itself: {instead}"))
}

/// What `midair run` takes.
#[derive(Debug, Args)]
pub struct Run {
    /// Plugins as cargo built them: lib*.so
    #[arg(value_name = "ARTIFACT", required = true)]
    pub artifacts: Vec<PathBuf>,
    /// Also take what this user may change, beside root and the host's own user
    #[arg(long, value_name = "UID")]
    pub trust_owner: Vec<u32>,
    /// Let plugins need this library; without it they may need any that the system has
    #[arg(long, value_name = "NAME")]
    pub allow_library: Vec<String>,
    /// Name the generation that answered in x-midair-generation, as dev always does
    #[arg(long, overrides_with = "no_generation_header")]
    pub generation_header: bool,
    /// Keep the generation out of answers [the default]
    #[arg(long, overrides_with = "generation_header")]
    pub no_generation_header: bool,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// How a host serves, whatever its plugins come from.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where to answer users: IP:PORT, or just a port of this machine; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000", value_parser = address)]
    pub listen: SocketAddr,
    /// Where to answer status, events and reload; `off` for nowhere
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3001")]
    pub admin: AdminAddr,
    /// Ask this of whoever uses the admin address, in place of a token made at start; needed if other machines can reach it
    #[arg(long, value_name = "TOKEN")]
    pub admin_token: Option<String>,
    /// Tell what happens as JSON, one object a line, and keep all else from stdout
    #[arg(long)]
    pub json: bool,
    /// What of the logs is told, such as info,shop=debug [default: info,midair::=warn]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Folder for private copies, the lock, the admin address and its token [default: in the target folder for dev, else ~/.local/state/midair]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The plugins' config file: [plugin.NAME] for each [default: midair.toml beside Cargo.toml for dev, else none]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Keep the state of plugins in this file, which is made if it isn't there [default: in memory, and gone with the host]
    #[arg(long, value_name = "PATH")]
    pub state: Option<PathBuf>,
    /// Largest value of the state; also 512KiB, 2MiB, 1GiB
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = bytes)]
    pub value_limit: usize,
    /// Give up on a request, or on an event of a WebSocket, after this time [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = above_zero)]
    pub request_timeout: Option<Duration>,
    /// Largest request body; also 512KiB, 2MiB, 1GiB
    #[arg(long, value_name = "BYTES", default_value = "2MiB", value_parser = bytes)]
    pub body_limit: usize,
    /// How long a request body may take, and how long a client may take none of its answer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = above_zero)]
    pub body_timeout: Duration,
    /// Largest artifact; also 512KiB, 2MiB, 1GiB
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes)]
    pub artifact_limit: usize,
    /// How long requests, tasks, beats and messages may take to finish after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// How long opening new code, its init, each of its self-tests, .. may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = above_zero)]
    pub step_timeout: Duration,
    /// How long work that belongs to no request goes on after newer code was published, before what may be dropped is
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub retire_timeout: Duration,
    /// Open new code in the host at once, without trying it in a child process first: for those who can't start processes
    #[arg(long)]
    pub no_probe: bool,
    /// Refuse a swap when so many libraries are open: none is closed before the host ends [default: as many as fit]
    #[arg(long, value_name = "N")]
    pub most_libraries: Option<usize>,
    /// Threads that run handlers [default: one per processor]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// What a WebSocket may do.
    #[command(flatten)]
    pub sockets: Sockets,
    /// How new code is watched.
    #[command(flatten)]
    pub probation: Probation,
}

/// What a WebSocket may do, and how long it may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "WebSockets")]
pub struct Sockets {
    /// Largest message of a client; also 512KiB, 2MiB, 1GiB
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = bytes)]
    pub socket_limit: usize,
    /// How many messages wait for a client at most
    #[arg(long, value_name = "N", default_value = "256")]
    pub socket_queue: usize,
    /// ... and of how many bytes; also 512KiB, 2MiB, 1GiB
    #[arg(long, value_name = "BYTES", default_value = "4MiB", value_parser = bytes)]
    pub socket_queue_limit: usize,
    /// How often the host pings
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = above_zero)]
    pub socket_ping: Duration,
    /// How long a client may be silent; its answers to pings count, so this is longer than the time between two
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = above_zero)]
    pub socket_silence: Duration,
}

impl Sockets {
    /// The limits that it asks for.
    ///
    /// # Errors
    ///
    /// If a client that does nothing but answer pings would be taken for silent.
    pub fn limits(&self) -> Result<SocketLimits> {
        let (ping, silence) = (self.socket_ping, self.socket_silence);
        if silence <= ping {
            let reason =
                format!("with --socket-ping {ping:?} and --socket-silence {silence:?} who answers each ping is taken for silent");
            return Err(Error::fatal(Code::Usage, "", reason)
                .help("let the silence be longer than the time between two pings, such as twice as long"));
        }
        Ok(SocketLimits {
            message: self.socket_limit,
            queue: self.socket_queue,
            queue_bytes: self.socket_queue_limit,
            ping,
            silence,
        })
    }
}

/// How new code is watched once it serves.
#[derive(Debug, Args)]
#[command(next_help_heading = "New code is watched")]
pub struct Probation {
    /// How long it is watched at least before it is committed
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub probation: Duration,
    /// How many requests it must have answered before it is committed
    #[arg(long, value_name = "N", default_value = "50")]
    pub probation_requests: u64,
    /// The share of failed answers (5xx, panics) that is too much, if it is 5 times that of the code before
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub breach_errors: f64,
    /// How many times slower than the code before the new code may be, both in the same time
    #[arg(long, value_name = "FACTOR", default_value = "3", value_parser = factor)]
    pub breach_latency: f64,
    /// How many failed answers in a row are too many; 0 for any number
    #[arg(long, value_name = "N", default_value = "5")]
    pub breach_in_a_row: u64,
    /// How many generations of a plugin that served before are kept, to go back to by hand; what comes back by itself is kept anyway
    #[arg(long, value_name = "N", default_value = "4")]
    pub keep: usize,
    /// What a breach leads to: the code before comes back, or it is told [default: rollback for run, report for dev]
    #[arg(long, value_name = "WHAT")]
    pub on_breach: Option<OnBreach>,
}

/// What a breach leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnBreach {
    /// The code before comes back.
    Rollback,
    /// It is told.
    Report,
}

impl Probation {
    /// The rules that it asks for; `defaults` has what can't be asked for.
    #[must_use]
    pub fn rules(&self, defaults: Rules) -> Rules {
        Rules {
            time: self.probation,
            requests: self.probation_requests,
            errors: self.breach_errors / 100.0,
            latency_factor: self.breach_latency,
            in_a_row: self.breach_in_a_row,
            acts: self.on_breach.map_or(defaults.acts, |what| what == OnBreach::Rollback),
            ..defaults
        }
    }
}

/// How a client finds the host, and how it shows what it learned.
#[derive(Debug, Args)]
pub struct Client {
    /// The host's admin address [default: what the data folder says]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// The host's data folder, which knows address and token [default: of `midair dev` in this workspace, else of `midair run`]
    #[arg(long, value_name = "DIR", conflicts_with = "admin")]
    pub data: Option<PathBuf>,
    /// What the host asks for, if it was started with a token; sent to the address that --admin or the data folder names
    #[arg(long, value_name = "TOKEN")]
    pub admin_token: Option<String>,
    /// Print JSON, as the host sends it
    #[arg(long)]
    pub json: bool,
}

/// What `midair rollback` takes.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Which plugin, and to which of its generations [default: all of the last publish]
    #[arg(value_name = "PLUGIN[@N]", value_parser = back)]
    pub which: Option<Which>,
    /// Which host.
    #[command(flatten)]
    pub client: Client,
}

/// What `midair reload` takes.
#[derive(Debug, Args)]
pub struct Reload {
    /// Take what is there even if nothing changed
    #[arg(long)]
    pub force: bool,
    /// End once the host has heard of it, whatever comes of it
    #[arg(long)]
    pub no_wait: bool,
    /// Which host.
    #[command(flatten)]
    pub client: Client,
}

/// What `midair log` takes.
#[derive(Debug, Args)]
pub struct Log {
    /// What is to hold from now on: LEVEL or TARGET=LEVEL, comma between several [default: show what holds]
    #[arg(value_name = "FILTER")]
    pub filter: Option<String>,
    /// Which host.
    #[command(flatten)]
    pub client: Client,
}

/// What `midair state` takes.
#[derive(Debug, Args)]
pub struct State {
    /// What to do, if it isn't to show all tables.
    #[command(subcommand)]
    pub what: Option<StateAction>,
    /// Which host.
    #[command(flatten)]
    pub client: Client,
}

/// What can be done with a table.
#[derive(Debug, Subcommand)]
pub enum StateAction {
    /// Write a table's values to stdout, one line of JSON each: {"key", "schema", "value"}
    Export(OneTable),
    /// Write the values that such lines on stdin say, if the code that serves can read them
    Import(Import),
}

/// What is brought.
#[derive(Debug, Args)]
pub struct Import {
    /// Write values, and to tables, that the code that serves doesn't know
    #[arg(long)]
    pub force: bool,
    /// Where to.
    #[command(flatten)]
    pub to: OneTable,
}

/// A table of a running host.
#[derive(Debug, Args)]
pub struct OneTable {
    /// The table, as `midair state` names it
    #[arg(value_name = "PLUGIN/TABLE", value_parser = table)]
    pub table: (String, String),
    /// Which host.
    #[command(flatten)]
    pub client: Client,
}

/// Where the admin listener is, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddr {
    /// There is none.
    Off,
    /// Here.
    At(SocketAddr),
}

impl FromStr for AdminAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" { Ok(Self::Off) } else { address(text).map(Self::At) }
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| "expected IP:PORT, such as 127.0.0.1:3000, or a port".to_owned())
}

fn back(text: &str) -> Result<Which, String> {
    let (plugin, to) = text.split_once('@').map_or((text, None), |(plugin, to)| (plugin, Some(to)));
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let to = to.map(str::parse).transpose().map_err(|_| ());
    match to {
        Ok(None) if is_name(plugin) => Ok(Which::Plugin(plugin.to_owned())),
        Ok(Some(to)) if is_name(plugin) => Ok(Which::To(plugin.to_owned(), to)),
        _ => Err("expected a plugin's name, or name@number, such as shop@3".to_owned()),
    }
}

fn table(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((plugin, table)) if !plugin.is_empty() && !table.is_empty() => Ok((plugin.to_owned(), table.to_owned())),
        _ => Err("expected a plugin and its table, such as shop/links".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().map_err(|_| "expected seconds, such as 30 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=100.0).contains(share))
        .ok_or_else(|| "expected a share from 0 to 100, such as 1 or 0.5".to_owned())
}

fn factor(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|factor| (1.0..f64::INFINITY).contains(factor))
        .ok_or_else(|| "expected a factor of at least 1, such as 3".to_owned())
}

fn above_zero(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| if time.is_zero() { Err("expected more than 0 seconds".to_owned()) } else { Ok(time) })
}

fn bytes(text: &str) -> Result<usize, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift))).unwrap_or((text, 0));
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| "expected bytes, such as 65536, 512KiB or 2MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use expect_test::{Expect, expect};

    use super::*;

    fn check(line: &str, expected: &Expect) {
        let said = match Cli::try_parse_from(line.split_whitespace()) {
            Ok(cli) => format!("{:?}", cli.action),
            Err(error) => format!("exit {}: {}", error.exit_code(), error.to_string().lines().next().unwrap_or_default()),
        };
        expected.assert_eq(&said.replace(DEFAULT_SOCKETS, "").replace(DEFAULT_PROBATION, ""));
    }

    /// Left out of what is shown below.
    const DEFAULT_SOCKETS: &str = ", sockets: Sockets { socket_limit: 1048576, socket_queue: 256, socket_queue_limit: 4194304, \
                                   socket_ping: 30s, socket_silence: 60s }";

    /// The same.
    const DEFAULT_PROBATION: &str = ", probation: Probation { probation: 30s, probation_requests: 50, breach_errors: 1.0, breach_latency: 3.0, \
                                     breach_in_a_row: 5, keep: 4, on_breach: None }";

    #[test]
    fn the_rules_of_probation_are_those_of_the_design_unless_told() {
        let rules = |line: &str, defaults| match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.action) {
            Ok(Action::Run(run)) => Some(run.serve.probation.rules(defaults)),
            _ => None,
        };
        assert_eq!(rules("midair run a.so", Rules::PRODUCTION), Some(Rules::PRODUCTION));
        assert_eq!(rules("midair run a.so", Rules::DEVELOPMENT), Some(Rules::DEVELOPMENT));
        let told = "midair run a.so --probation 1 --probation-requests 2 --breach-errors 5 --breach-latency 1.5 --breach-in-a-row 0 \
                    --on-breach report";
        let expected = Rules {
            time: Duration::from_secs(1),
            requests: 2,
            errors: 0.05,
            latency_factor: 1.5,
            in_a_row: 0,
            acts: false,
            ..Rules::PRODUCTION
        };
        assert_eq!(rules(told, Rules::PRODUCTION), Some(expected));
        for wrong in ["--breach-errors 101", "--breach-errors x", "--breach-latency 0.5", "--on-breach shrug"] {
            assert_eq!(rules(&format!("midair run a.so {wrong}"), Rules::PRODUCTION), None, "{wrong}");
        }
    }

    #[test]
    fn the_limits_of_web_sockets_are_the_hosts_own_unless_told_and_silence_is_longer_than_a_ping() {
        let limits = |rest: &str| match Cli::try_parse_from(format!("midair run a.so {rest}").split_whitespace()) {
            Ok(Cli { action: Action::Run(run) }) => match run.serve.sockets.limits() {
                Ok(limits) => format!("{limits:?}"),
                Err(error) => format!("{}: {}", error.code(), error.reason()),
            },
            Ok(other) => format!("{:?}", other.action),
            Err(error) => format!("exit {}", error.exit_code()),
        };
        assert_eq!(limits(""), format!("{:?}", SocketLimits::default()));
        let told = [
            "--socket-limit 64KiB --socket-queue 10 --socket-queue-limit 1MiB --socket-ping 0.5 --socket-silence 2",
            "--socket-ping 60",
            "--socket-silence 30",
            "--socket-ping 0",
            "--socket-limit many",
        ];
        expect![[r#"
            SocketLimits { message: 65536, queue: 10, queue_bytes: 1048576, ping: 500ms, silence: 2s }
            E_USAGE: with --socket-ping 60s and --socket-silence 60s who answers each ping is taken for silent
            E_USAGE: with --socket-ping 30s and --socket-silence 30s who answers each ping is taken for silent
            exit 2
            exit 2"#]]
        .assert_eq(&told.map(limits).join("\n"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_for_cargo_that_midair_sets_itself_are_refused() {
        for (arg, name) in [
            ("--target-dir", "--target-dir"),
            ("--target-dir=x", "--target-dir"),
            ("--message-format=short", "--message-format"),
            ("--manifest-path", "--manifest-path"),
            ("-p", "-p"),
            ("-pshop", "-p"),
            ("--package=shop", "--package"),
            ("--workspace", "--workspace"),
            ("--lib", "--lib"),
            ("--bins", "--bins"),
        ] {
            let error = Cli::try_parse_from(["midair", "dev", "--", arg]).expect_err(arg);
            assert_eq!(error.exit_code(), 2, "{arg}");
            assert!(error.to_string().contains(&format!("midair sets `{name}` itself: ")), "{error}");
        }
        for arg in ["--profile=x", "--locked", "--offline", "-v", "-Zunstable-options", "--config", "--target", "--package-x"] {
            assert!(Cli::try_parse_from(["midair", "dev", "--", arg]).is_ok(), "{arg}");
        }
    }

    #[test]
    fn dev_takes_folders_before_and_cargo_arguments_after_the_dashes() {
        check(
            "midair dev",
            &expect![
                "Dev(Dev { paths: [], release: false, profile: None, features: [], serve: Serve { listen: 127.0.0.1:3000, admin: At(127.0.0.1:3001), admin_token: None, json: false, log: None, data: None, config: None, state: None, value_limit: 16777216, request_timeout: None, body_limit: 2097152, body_timeout: 30s, artifact_limit: 1073741824, drain_timeout: 10s, step_timeout: 10s, retire_timeout: 30s, no_probe: false, most_libraries: None, workers: None }, cargo_args: [] })"
            ],
        );
        check(
            "midair dev a b --features x,y --listen 8080 --admin off -- --offline -v",
            &expect![[
                r#"Dev(Dev { paths: ["a", "b"], release: false, profile: None, features: ["x", "y"], serve: Serve { listen: 127.0.0.1:8080, admin: Off, admin_token: None, json: false, log: None, data: None, config: None, state: None, value_limit: 16777216, request_timeout: None, body_limit: 2097152, body_timeout: 30s, artifact_limit: 1073741824, drain_timeout: 10s, step_timeout: 10s, retire_timeout: 30s, no_probe: false, most_libraries: None, workers: None }, cargo_args: ["--offline", "-v"] })"#
            ]],
        );
        check(
            "midair dev --release --profile tiny",
            &expect!["exit 2: error: the argument '--release' cannot be used with '--profile <NAME>'"],
        );
    }

    #[test]
    fn run_needs_an_artifact() {
        check("midair run", &expect!["exit 2: error: the following required arguments were not provided:"]);
        check(
            "midair run a.so --generation-header --body-limit 64KiB --body-timeout 5 --request-timeout 0.5 --drain-timeout 0 --step-timeout 0.5 --no-probe",
            &expect![[
                r#"Run(Run { artifacts: ["a.so"], trust_owner: [], allow_library: [], generation_header: true, no_generation_header: false, serve: Serve { listen: 127.0.0.1:3000, admin: At(127.0.0.1:3001), admin_token: None, json: false, log: None, data: None, config: None, state: None, value_limit: 16777216, request_timeout: Some(500ms), body_limit: 65536, body_timeout: 5s, artifact_limit: 1073741824, drain_timeout: 0ns, step_timeout: 500ms, retire_timeout: 30s, no_probe: true, most_libraries: None, workers: None } })"#
            ]],
        );
    }

    #[test]
    fn a_rollback_names_a_plugin_and_a_generation_or_nothing() {
        let which = |line: &str| match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.action) {
            Ok(Action::Rollback(Rollback { which, .. })) => format!("{which:?}"),
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("exit {}", error.exit_code()),
        };
        let told: Vec<_> = ["", " shop", " my-shop@12", " shop@", " @3", " shop@x", " ../x"]
            .map(|rest| which(&format!("midair rollback{rest}")))
            .into();
        expect![[r#"
            None
            Some(Plugin("shop"))
            Some(To("my-shop", 12))
            exit 2
            exit 2
            exit 2
            exit 2"#]]
        .assert_eq(&told.join("\n"));
    }

    #[test]
    fn clients_name_their_host_in_one_way() {
        check(
            "midair reload --force --data d",
            &expect![[
                r#"Reload(Reload { force: true, no_wait: false, client: Client { admin: None, data: Some("d"), admin_token: None, json: false } })"#
            ]],
        );
        check(
            "midair status --data d --admin 127.0.0.1:1",
            &expect!["exit 2: error: the argument '--data <DIR>' cannot be used with '--admin <ADDR>'"],
        );
    }

    #[test]
    fn wrong_usage_ends_with_2_and_names_the_word() {
        check("midair", &expect!["exit 2: Change the code of a running server without restarting it"]);
        check("midair serve", &expect!["exit 2: error: unrecognized subcommand 'serve'"]);
        check(
            "midair dev --listen example.org:80",
            &expect![
                "exit 2: error: invalid value 'example.org:80' for '--listen <ADDR>': expected IP:PORT, such as 127.0.0.1:3000, or a port"
            ],
        );
        check(
            "midair dev --request-timeout 0",
            &expect!["exit 2: error: invalid value '0' for '--request-timeout <SECONDS>': expected more than 0 seconds"],
        );
        check("midair dev --drain-timeout -1", &expect!["exit 2: error: unexpected argument '-1' found"]);
        check(
            "midair dev --drain-timeout inf",
            &expect![
                "exit 2: error: invalid value 'inf' for '--drain-timeout <SECONDS>': cannot convert float seconds to Duration: value is either too big or NaN"
            ],
        );
        check(
            "midair dev --body-limit 2MB",
            &expect![
                "exit 2: error: invalid value '2MB' for '--body-limit <BYTES>': expected bytes, such as 65536, 512KiB or 2MiB"
            ],
        );
        check(
            "midair dev --body-limit 99999999999GiB",
            &expect![
                "exit 2: error: invalid value '99999999999GiB' for '--body-limit <BYTES>': expected bytes, such as 65536, 512KiB or 2MiB"
            ],
        );
    }

    #[test]
    fn addresses_may_be_short() {
        let at = |text: &str| address(text).map(|addr| addr.to_string()).ok();
        assert_eq!(at("8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(at("localhost:0").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(at("[::1]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(at("localhost"), None);
    }
}
