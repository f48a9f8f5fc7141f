//! Takes signals of the process, where its variant says, and ends it by `exit` at `/exit`.

#![expect(unsafe_code, reason = "what no plugin should do")]

use midair_plugin::{Ctx, Plugin, Request, Result};

midair_plugin::export!(plugin);

extern "C" fn mine(_: libc::c_int) {}

fn take(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: the handler does nothing, and its code stays mapped.
    unsafe { libc::signal(signal, handler) };
}

fn plugin() -> Plugin {
    let mine = mine as *const () as usize;
    let plugin = Plugin::new().get("/", |_, _| midair_fixtures::variant()).get("/take", move |_, _| take_term(mine));
    let plugin = plugin.get("/exit/{status}", exit).get("/fork", fork);
    match midair_fixtures::variant() {
        "in plugin" => {
            take(libc::SIGTERM, mine);
            take(libc::SIGINT, mine);
            // None of the host's business.
            take(libc::SIGUSR1, mine);
            take(libc::SIGCHLD, mine);
            plugin
        }
        "in init" => plugin.init(move |_| -> Result<()> {
            take(libc::SIGQUIT, mine);
            take(libc::SIGPIPE, libc::SIG_DFL);
            Ok(())
        }),
        "in a task" => plugin.task("takes", move |_| async move { take(libc::SIGTERM, mine) }),
        "ignores" => {
            take(libc::SIGTERM, libc::SIG_IGN);
            plugin
        }
        _ => plugin,
    }
}

fn take_term(handler: usize) -> &'static str {
    take(libc::SIGTERM, handler);
    "taken"
}

fn exit(request: Request, _: Ctx) -> Result<&'static str> {
    std::process::exit(request.param("status")?)
}

/// What a child that was forked exits with.
fn fork(_: Request, _: Ctx) -> String {
    // SAFETY: the child does nothing but to end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as libraries do it that fork.
        unsafe { libc::exit(7) };
    }
    let mut status = 0;
    // SAFETY: it is our own child, and there is room for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    libc::WEXITSTATUS(status).to_string()
}
