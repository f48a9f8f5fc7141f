//! Waits for its retirement on threads of its own, since `init` and since requests; notes it in the folder of its variant.

use midair_fixtures::word;
use midair_plugin::{Ctx, Error, Plugin, Result};
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().init(init).get("/wait", |_, ctx: Ctx| {
        wait(&ctx, "again");
        "waits"
    })
}

fn init(ctx: Ctx) -> Result<()> {
    wait(&ctx, "init");
    if word(1) == "fails" { Err(Error::internal("on purpose")) } else { Ok(()) }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark()
    }
}

/// Returns when a thread waits; that one notes when it is told.
fn wait(ctx: &Ctx, since: &'static str) {
    let (ctx, (waits, is_waiting)) = (ctx.clone(), mpsc::channel());
    thread::spawn(move || {
        let note = format!("{}-{since}", ctx.generation());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut retiring = pin!(ctx.retiring());
        while retiring.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            let _ = waits.send(());
            thread::park();
        }
        std::fs::write(std::path::Path::new(word(0)).join(note), "").expect("it can be written");
    });
    let _ = is_waiting.recv();
}
