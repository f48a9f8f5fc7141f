//! Does a plugin's crate work where no host counts: in its own unit tests, or linked into a program?

use std::cell::RefCell;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use midair_plugin::Plugin;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| "alone")
}

struct Told(Sender<String>);

impl Drop for Told {
    fn drop(&mut self) {
        // Whoever listens may be gone when the process ends.
        let _ = self.0.send(format!("{:?}", thread::current().name()));
    }
}

thread_local! {
    static TOLD: RefCell<Option<Told>> = const { RefCell::new(None) };
}

#[test]
fn threads_and_thread_locals_are_the_system_s() {
    let (sender, dropped) = channel();
    let threads = (0..64).map(|number| {
        let sender = sender.clone();
        let run = move || {
            TOLD.set(Some(Told(sender)));
            thread::current().id()
        };
        thread::Builder::new().name(format!("t{number}")).spawn(run).expect("a thread")
    });
    let threads: Vec<_> = threads.collect();
    let ids: std::collections::HashSet<_> = threads.into_iter().map(|thread| thread.join().expect("it ends")).collect();
    drop(sender);
    let dropped: Vec<String> = dropped.iter().collect();
    assert_eq!((ids.len(), dropped.len()), (64, 64));
}

#[test]
fn it_answers() {
    assert_eq!(midair_plugin::test::App::new(plugin()).get("/").text(), "alone");
}
