//! Work of all kinds beside requests: it waits, spins, is joined, dropped, woken late or by nothing.

use midair_fixtures::variant;
use midair_plugin::{Ctx, On, Plugin, Request, Result};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .get("/", |_, _| variant())
        .get("/open", |_, ctx: Ctx| ctx.counter("gate").add(1).wait().map(|_| variant()))
        .get("/begin", begin)
        .get("/quiet", quiet)
        .get("/free", free)
        .get("/droppable", droppable)
        .get("/joined", joined)
        .get("/cancelled", cancelled)
        .get("/late", late)
        .get("/panics", |_, ctx: Ctx| {
            drop(ctx.spawn(async { panic!("in a task") }));
            variant()
        })
        .get("/never", never)
        .get("/woken", |_, ctx: Ctx| Handed::to_a_thread(ctx, "woken"))
        .get("/kept", |_, ctx: Ctx| {
            drop(ctx.spawn_until_retire("kept", |ctx| Handed::to_a_thread(ctx, "kept")));
            variant()
        })
        .get("/foreign", foreign)
        .get("/spins", spins)
        .get("/stuck", |_, ctx: Ctx| {
            hold(&ctx, |ctx| while ctx.counter("gate").get().wait().unwrap_or(1) == 0 {});
            variant()
        })
        .get("/emits", |_, ctx: Ctx| {
            hold(&ctx, |ctx| (0..3_u64).for_each(|number| ctx.emit("few", &number).wait().expect("it is taken")));
            variant()
        })
        .on_with(On::new("few").queue(1), |number: u64, ctx: Ctx| ctx.info(format!("heard {number}")))
        .task("beat", beat)
}

/// Has this hold every thread that is there for tasks, without a pause.
fn hold(ctx: &Ctx, work: fn(&Ctx)) {
    static ALL: std::sync::OnceLock<Barrier> = std::sync::OnceLock::new();
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    for _ in 0..threads {
        drop(ctx.spawn_free("holds", move |ctx| async move {
            ALL.get_or_init(|| Barrier::new(threads)).wait();
            ctx.info("holds");
            work(&ctx);
        }));
    }
}

/// Until somebody asks for /open.
async fn opened(ctx: &Ctx) {
    while ctx.counter("gate").get().await.unwrap_or(0) == 0 {
        let _ = ctx.sleep(Duration::from_millis(1)).await;
    }
}

async fn asks(ctx: &Ctx) -> Result<String> {
    Ok(ctx.call(Request::build("GET", "/").finish()?).await?.text())
}

async fn begin(_: Request, ctx: Ctx) -> &'static str {
    let inside = ctx.clone();
    drop(ctx.spawn(async move {
        opened(&inside).await;
        inside.info(format!("the request's task on {} asks {:?}", variant(), asks(&inside).await));
    }));
    variant()
}

async fn quiet(_: Request, ctx: Ctx) -> &'static str {
    // Nothing of the request is in it: the task alone keeps it.
    drop(ctx.spawn(std::future::pending::<()>()));
    variant()
}

async fn free(_: Request, ctx: Ctx) -> &'static str {
    drop(ctx.spawn_free("stubborn", |ctx| async move {
        ctx.info("stubborn began");
        opened(&ctx).await;
        ctx.info(format!("the free task on {} asks {:?}", variant(), asks(&ctx).await));
    }));
    variant()
}

struct Gone(Ctx);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.info(format!("dropped on {}", variant()));
    }
}

async fn droppable(_: Request, ctx: Ctx) -> &'static str {
    drop(ctx.spawn_until_retire("droppable", |ctx| async move {
        let gone = Gone(ctx);
        std::future::pending::<()>().await;
        drop(gone);
    }));
    variant()
}

async fn never(_: Request, ctx: Ctx) -> &'static str {
    let _gone = Gone(ctx);
    std::future::pending().await
}

/// A file with which a test speaks to threads that hold nothing of the host's.
fn gate() -> PathBuf {
    std::env::var_os("GATE").map(PathBuf::from).expect("the test names it")
}

fn note(name: &str) {
    std::fs::write(gate().with_extension(name), "").expect("it can be written");
}

fn wait_for_the_gate() {
    while !gate().exists() {
        std::thread::sleep(Duration::from_millis(1))
    }
}

/// Hands its waker to a thread of the plugin's own, which wakes it when the gate is open, and once more.
struct Handed {
    is_open: Arc<AtomicBool>,
    name: &'static str,
    has_thread: bool,
    _gone: Gone,
}

impl Handed {
    fn to_a_thread(ctx: Ctx, name: &'static str) -> Self {
        Self { is_open: Arc::default(), name, has_thread: false, _gone: Gone(ctx) }
    }
}

impl Future for Handed {
    type Output = &'static str;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<&'static str> {
        if self.is_open.load(Ordering::SeqCst) {
            return Poll::Ready(variant());
        }
        if !std::mem::replace(&mut self.has_thread, true) {
            let (waker, is_open, name) = (context.waker().clone(), Arc::clone(&self.is_open), self.name);
            std::thread::spawn(move || {
                wait_for_the_gate();
                is_open.store(true, Ordering::SeqCst);
                waker.wake_by_ref();
                waker.wake_by_ref();
                drop(waker);
                note(name);
            });
            note(&format!("{name}-waits"));
        }
        Poll::Pending
    }
}

/// Has the host wake a waker of the plugin's own at retirement, and only polls again when the gate is open.
async fn foreign(_: Request, ctx: Ctx) -> &'static str {
    struct Noting;
    impl Wake for Noting {
        fn wake(self: Arc<Self>) {
            note("foreign-woken")
        }
    }
    std::thread::spawn(move || {
        let waker = Waker::from(Arc::new(Noting));
        let mut context = Context::from_waker(&waker);
        let mut retiring = pin!(ctx.retiring());
        assert!(retiring.as_mut().poll(&mut context).is_pending());
        note("foreign-waits");
        wait_for_the_gate();
        assert!(retiring.as_mut().poll(&mut context).is_ready());
        note("foreign");
    });
    variant()
}

async fn spins(_: Request, ctx: Ctx) -> &'static str {
    drop(ctx.spawn_until_retire("spins", |ctx| async move {
        let _gone = Gone(ctx);
        note("spins-waits");
        wait_for_the_gate();
    }));
    variant()
}

async fn joined(_: Request, ctx: Ctx) -> Result<String> {
    let mut every = ctx.interval(Duration::from_millis(1));
    let task = ctx.spawn(async move {
        for _ in 0..3 {
            every.tick().await?;
        }
        Ok::<_, midair_plugin::Error>(6 * 7)
    });
    Ok(task.await??.to_string())
}

async fn cancelled(_: Request, ctx: Ctx) -> Result<&'static str> {
    let task = ctx.spawn(std::future::pending::<&'static str>());
    task.cancel();
    task.await
}

async fn late(_: Request, ctx: Ctx) -> Result<()> {
    ctx.timeout(Duration::from_millis(1), std::future::pending()).await
}

async fn beat(ctx: Ctx) {
    ctx.info(format!("beat began on {}", variant()));
    ctx.retiring().await;
    ctx.info(format!("beat ended on {}", variant()));
}
