//! Does work run, wait, end, and get others' threads?

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::task::Waker;

use super::crew::MOST;
use super::*;
use crate::sys::bell::Bell;

const PATIENCE: Duration = Duration::from_secs(30);

fn about(name: &str) -> About {
    About { generation: 7, plugin: "shop".to_owned(), number: 1, name: name.to_owned(), until_retire: false, heeds: None }
}

fn has_none(tasks: &Tasks) -> bool {
    let until = Instant::now() + PATIENCE;
    while !tasks.list().is_empty() && Instant::now() < until {
        std::thread::yield_now();
    }
    tasks.list().is_empty()
}

#[test]
fn work_is_listed_until_it_is_done() {
    let (tasks, bell, (done, is_done)) = (Tasks::new(), Arc::new(Bell::default()), sync_channel(1));
    let waits = Arc::clone(&bell);
    let id = tasks.spawn(about("waits"), async move {
        waits.rung().await;
        done.send(std::thread::current().name().map(str::to_owned)).expect("somebody waits");
    });
    assert_eq!(tasks.of(7).iter().map(|running| (running.id, running.about.name.as_str())).collect::<Vec<_>>(), [(id, "waits")]);
    bell.ring();
    assert_eq!(is_done.recv_timeout(PATIENCE).expect("it is done").as_deref(), Some("midair-task"));
    assert!(has_none(&tasks));
}

#[test]
fn what_is_cancelled_is_dropped_on_a_thread_for_work() {
    struct Says(SyncSender<Option<String>>);
    impl Drop for Says {
        fn drop(&mut self) {
            self.0.send(std::thread::current().name().map(str::to_owned)).expect("somebody waits");
        }
    }
    let (tasks, (gone, is_gone)) = (Tasks::new(), sync_channel(1));
    let says = Says(gone);
    let id = tasks.spawn(about("never"), async move {
        let _says = says;
        std::future::pending::<()>().await;
    });
    tasks.cancel(id);
    assert_eq!(is_gone.recv_timeout(PATIENCE).expect("it is dropped").as_deref(), Some("midair-task"));
    assert!(has_none(&tasks));
    tasks.cancel(id);
}

#[test]
fn what_is_cancelled_and_does_not_pause_stays_on_the_list() {
    let (tasks, (begun, has_begun), (end, ends)) = (Tasks::new(), sync_channel(1), sync_channel::<()>(1));
    let id = tasks.spawn(about("spins"), async move {
        begun.send(()).expect("somebody waits");
        // Held in the midst of a poll.
        let _ = ends.recv();
    });
    has_begun.recv_timeout(PATIENCE).expect("it begins");
    tasks.cancel(id);
    let listed = tasks.list();
    assert_eq!(listed.iter().map(|running| (running.id, running.busy_us > 0)).collect::<Vec<_>>(), [(id, true)]);
    end.send(()).expect("it waits");
    assert!(has_none(&tasks));
}

#[test]
fn a_fault_in_one_piece_of_work_leaves_the_threads_to_the_others() {
    let tasks = Tasks::new();
    for _ in 0..8 {
        tasks.spawn(about("broken"), async { panic!("on purpose") });
    }
    let (done, is_done) = sync_channel(1);
    tasks.run(async move { done.send(()).expect("somebody waits") });
    is_done.recv_timeout(PATIENCE).expect("it still works");
    assert!(has_none(&tasks));
}

fn until(what: &str, fits: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !fits() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

/// Has so many threads held at once, each until the sender is dropped, and what is told of them.
fn hold(tasks: &Arc<Tasks>, count: usize) -> (SyncSender<()>, Receiver<String>) {
    let ((tell, told), (gate, opens)) = (channel(), sync_channel::<()>(0));
    tasks.tell_to(move |message| tell.send(message).expect("somebody listens"));
    let (opens, (began, begins)) = (Arc::new(Mutex::new(opens)), channel());
    for _ in 0..count {
        let (opens, began) = (Arc::clone(&opens), began.clone());
        tasks.spawn(about("held"), async move {
            began.send(()).expect("somebody waits");
            assert!(opens.lock().recv().is_err());
        });
    }
    (0..count).for_each(|_| begins.recv_timeout(PATIENCE).expect("it begins"));
    (gate, told)
}

#[test]
fn others_stand_in_for_threads_that_are_held_and_leave_when_these_are_free() {
    let tasks = Tasks::new();
    let regular = tasks.ready.crew.regular;
    let (gate, told) = hold(&tasks, regular);
    for _ in 0..3 {
        let (done, is_done) = sync_channel(1);
        tasks.run(async move { done.send(()).expect("somebody waits") });
        is_done.recv_timeout(PATIENCE).expect("another thread has it");
    }
    let threads = || tasks.ready.crew.hands.lock().threads.len();
    assert_eq!(threads(), 2 * regular, "they stay, so that the next work needn't wait for them");
    drop(gate);
    until("the first threads alone", || threads() == regular);
    assert!(has_none(&tasks));
    let names = vec!["shop=1 held"; regular].join(", ");
    let expected =
        format!("{regular} threads for work beside requests are held without a pause, others stand in for them: {names}");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [expected], "once");
    assert_eq!(tasks.ready.crew.waiting.load(Ordering::SeqCst), 0);
}

#[test]
fn so_many_threads_are_all_and_then_other_work_waits() {
    let tasks = Tasks::new();
    let most = tasks.ready.crew.regular * MOST;
    let (gate, told) = hold(&tasks, most);
    let (done, is_done) = sync_channel(1);
    tasks.run(async move { done.send(()).expect("somebody waits") });
    let all = format!("all {most} threads for work beside requests are held without a pause, other such work waits: ");
    until("that all are held", || told.try_iter().any(|message| message.starts_with(&all)));
    assert_eq!(tasks.ready.crew.hands.lock().threads.len(), most);
    assert!(is_done.try_recv().is_err());
    drop(gate);
    is_done.recv_timeout(PATIENCE).expect("its turn");
    assert!(has_none(&tasks));
}

/// How a call of `future` ends.
fn call(tasks: &Arc<Tasks>, future: impl Future<Output = bool> + Send + 'static) -> Ran {
    let (done, is_done) = sync_channel(1);
    let ended = tasks.call(about("call"), future);
    tasks.run(async move { done.send(ended.await.0).expect("somebody waits") });
    is_done.recv_timeout(PATIENCE).expect("it ends")
}

#[test]
fn a_call_ends_well_or_badly_and_is_on_no_list_then() {
    let tasks = Tasks::new();
    assert_eq!(call(&tasks, async { false }), Ran::Well);
    assert_eq!(call(&tasks, async { true }), Ran::Badly);
    until("no call", || tasks.calls_of(7).is_empty());
}

#[test]
fn a_call_that_is_given_up_is_dropped_where_it_waits() {
    let (tasks, bell, (done, is_done)) = (Tasks::new(), Arc::new(Bell::default()), sync_channel(1));
    let ((waits, held), (begun, has_begun)) = ((Arc::clone(&bell), Arc::new(())), sync_channel(1));
    let with = Arc::clone(&held);
    let ended = tasks.call(about("waits"), async move {
        let _with = with;
        begun.send(()).expect("somebody waits");
        waits.rung().await;
        false
    });
    tasks.run(async move { done.send(ended.await.0).expect("somebody waits") });
    has_begun.recv_timeout(PATIENCE).expect("it begins");
    let calls = tasks.calls_of(7);
    assert_eq!(calls.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["waits"]);
    tasks.give_up(calls[0].0);
    assert_eq!(is_done.recv_timeout(PATIENCE).expect("it ends"), Ran::GivenUp);
    assert_eq!(Arc::strong_count(&held), 1, "it was dropped before anybody heard");
    until("no call", || tasks.calls_of(7).is_empty());
    tasks.give_up(calls[0].0);
}

#[test]
fn who_waits_for_a_call_that_is_let_go_waits_no_longer_and_the_call_goes_on() {
    let (tasks, (begun, has_begun), (end, ends)) = (Tasks::new(), sync_channel(1), sync_channel::<()>(1));
    let (done, is_done) = sync_channel(2);
    let goes_on = done.clone();
    let ended = tasks.call(about("held"), async move {
        begun.send(()).expect("somebody waits");
        // Held in the midst of a poll.
        let _ = ends.recv();
        goes_on.send(Ran::Well).expect("somebody waits");
        false
    });
    has_begun.recv_timeout(PATIENCE).expect("it begins");
    tasks.run(async move { done.send(ended.await.0).expect("somebody waits") });
    tasks.let_go(tasks.calls_of(7)[0].0);
    assert_eq!(is_done.recv_timeout(PATIENCE).expect("the wait ends"), Ran::GivenUp);
    end.send(()).expect("it waits");
    assert_eq!(is_done.recv_timeout(PATIENCE).expect("it goes on"), Ran::Well);
}

#[test]
fn a_call_is_lost_when_nobody_is_left_who_could_wake_it() {
    let tasks = Tasks::new();
    assert_eq!(call(&tasks, std::future::pending()), Ran::Lost, "at once");
    let (keep, kept) = sync_channel::<Waker>(1);
    let waits = std::future::poll_fn(move |context| {
        // Once, by the first poll: the second finds that nobody listens any more.
        let _ = keep.try_send(context.waker().clone());
        Poll::Pending
    });
    let thread = std::thread::spawn(move || drop(kept.recv_timeout(PATIENCE).expect("it waits")));
    assert_eq!(call(&tasks, waits), Ran::Lost, "when the last waker is gone");
    thread.join().expect("it ends");
}

#[test]
fn a_call_that_wakes_itself_or_is_woken_by_another_thread_is_not_lost() {
    let tasks = Tasks::new();
    let mut polls = 0;
    let yields = std::future::poll_fn(move |context| {
        polls += 1;
        context.waker().wake_by_ref();
        if polls < 1_000 { Poll::Pending } else { Poll::Ready(false) }
    });
    assert_eq!(call(&tasks, yields), Ran::Well);
    let (keep, kept) = channel::<Waker>();
    let (woken, mut polls) = (Arc::new(AtomicU64::new(0)), 0);
    let wakes = Arc::clone(&woken);
    let waits = std::future::poll_fn(move |context| {
        polls += 1;
        if polls > 100 {
            return Poll::Ready(false);
        }
        keep.send(context.waker().clone()).expect("it waits");
        Poll::Pending
    });
    let thread = std::thread::spawn(move || {
        kept.iter().for_each(|waker| {
            wakes.fetch_add(1, Ordering::SeqCst);
            waker.wake();
        });
    });
    assert_eq!(call(&tasks, waits), Ran::Well);
    thread.join().expect("it ends");
    assert_eq!(woken.load(Ordering::SeqCst), 100, "each poll waited for one");
}
