//! How does what happened reach stdout, without anybody waiting for whoever reads it?
//!
//! Those who speak may be in the middle of a swap or a request, and a reader may be slow or gone. So they only put the event into a
//! queue, and one thread writes. With `--json`, stdout has to carry nothing else: the host keeps it to itself and lets file descriptor 1
//! point to stderr, before any plugin is loaded.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::render;
use super::repeats::Repeats;
use crate::error::{Code, Error, Result};
use crate::event::{Bus, Event};

/// Events that a reader may fall behind before some are left out.
const QUEUE: usize = 16 * 1024;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Json,
    /// For people, with or without colours.
    Human {
        /// Whether to use colours.
        color: bool,
    },
}

/// The host's way to stdout.
pub struct Outlet {
    form: Form,
    queue: SyncSender<Note>,
    lost: Arc<AtomicU64>,
}

enum Note {
    Event(Arc<Event>),
    /// The sender is dropped once all before is written.
    Done(SyncSender<()>),
}

impl Outlet {
    /// Takes stdout. With `json`, whatever else this process prints goes to stderr from now on.
    ///
    /// # Errors
    ///
    /// The system refuses another descriptor or thread.
    pub fn open(json: bool) -> Result<Self> {
        let failed = |error| Error::fatal(Code::Io, "stdout", "it can't be taken").caused_by(error);
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
        let form = if json { Form::Json } else { Form::Human { color: render::color_wanted(stdout.is_terminal()) } };
        if json {
            rustix::stdio::dup2_stdout(io::stderr()).map_err(|error| failed(error.into()))?;
        }
        Self::over(stdout, form, QUEUE).map_err(failed)
    }

    fn over(out: impl Write + Send + 'static, form: Form, room: usize) -> io::Result<Self> {
        let (queue, notes) = mpsc::sync_channel(room);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { out: Some(out), form, lost: lost.clone(), repeats: Repeats::default() };
        thread::Builder::new().name("midair-outlet".to_owned()).spawn(move || writer.run(&notes))?;
        Ok(Self { form, queue, lost })
    }

    /// How this outlet writes.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Writes all that `bus` says from now on, and what it remembers.
    pub fn listen(&self, bus: &Bus) {
        let (queue, lost) = (self.queue.clone(), self.lost.clone());
        bus.listen(move |event| {
            put(&queue, &lost, event.clone());
            true
        });
    }

    /// Writes one event that no bus carries.
    pub fn say(&self, event: Event) {
        put(&self.queue, &self.lost, Arc::new(event));
    }

    /// Returns when all that was said is written, or `patience` is over.
    pub fn flush(&self, patience: Duration) {
        let (done, written) = mpsc::sync_channel(0);
        if self.queue.try_send(Note::Done(done)).is_ok() {
            // Nothing is ever sent: this returns when the other end is dropped, or late.
            let _ = written.recv_timeout(patience);
        }
    }
}

fn put(queue: &SyncSender<Note>, lost: &AtomicU64, event: Arc<Event>) {
    if queue.try_send(Note::Event(event)).is_err() {
        lost.fetch_add(1, Ordering::Relaxed);
    }
}

struct Writer<W> {
    /// `None` once the reader is gone: the host lives on and says nothing.
    out: Option<W>,
    form: Form,
    lost: Arc<AtomicU64>,
    repeats: Repeats,
}

impl<W: Write> Writer<W> {
    fn run(mut self, notes: &Receiver<Note>) {
        // Nothing is due for a long time where nothing was said.
        const LONG: Duration = Duration::from_secs(3600);
        loop {
            let due = self.repeats.due().map(|due| due.saturating_duration_since(Instant::now()));
            let event = match notes.recv_timeout(due.unwrap_or(LONG)) {
                Ok(Note::Event(event)) => Some(event),
                Ok(Note::Done(done)) => {
                    self.count(Instant::now(), true);
                    drop(done);
                    None
                }
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = Instant::now();
            if self.repeats.due().is_some_and(|due| due <= now) {
                self.count(now, false);
            }
            let Some(event) = event else { continue };
            if self.form == Form::Json || self.repeats.is_new(&event, now) {
                self.write(&event);
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.write(&Event::Warning { message: format!("{lost} events are missing here: stdout wasn't read fast enough") });
            }
        }
    }

    /// Tells of what was said again and again by now, of all of it at the end.
    fn count(&mut self, now: Instant, is_end: bool) {
        self.repeats.counted(now, is_end).into_iter().for_each(|line| self.put(&line));
    }

    fn write(&mut self, event: &Event) {
        let line = match self.form {
            Form::Json => serde_json::to_string(event).ok(),
            // The end of the story is told once, by main, on stderr.
            Form::Human { .. } if matches!(event, Event::Fatal { .. }) => None,
            Form::Human { color } => render::line(event, color),
        };
        line.into_iter().for_each(|line| self.put(&line));
    }

    fn put(&mut self, line: &str) {
        if let Some(out) = &mut self.out
            && out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err()
        {
            self.out = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn warning(message: &str) -> Event {
        Event::Warning { message: message.to_owned() }
    }

    /// Hands each write over; fails once nobody takes them; waits while `gate` is held.
    struct Pipe(SyncSender<String>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_event_is_one_line_of_json_written_at_once() {
        let (pipe, lines) = mpsc::sync_channel(9);
        let outlet = Outlet::over(Pipe(pipe), Form::Json, 9).expect("a thread");
        let bus = Bus::default();
        bus.say(warning("remembered"));
        outlet.listen(&bus);
        bus.say(warning("two\nlines"));
        outlet.flush(PATIENCE);
        let lines: Vec<_> = lines.try_iter().collect();
        assert_eq!(
            lines,
            ["{\"event\":\"warning\",\"message\":\"remembered\"}\n", "{\"event\":\"warning\",\"message\":\"two\\nlines\"}\n"]
        );
    }

    #[test]
    fn nobody_waits_for_a_slow_reader_who_is_told_what_it_missed() {
        let (pipe, lines) = mpsc::sync_channel(0);
        let outlet = Outlet::over(Pipe(pipe), Form::Human { color: false }, 1).expect("a thread");
        for _ in 0..9 {
            outlet.say(warning("w"));
        }
        let mut heard = iter::from_fn(|| lines.recv_timeout(PATIENCE).ok());
        let missed = heard.find(|line| line.contains("missing")).expect("to be told");
        assert!(missed.starts_with("warning: ") && missed.contains("events are missing here"), "{missed}");
    }

    #[test]
    fn what_is_said_over_and_over_is_told_once_to_people_and_each_time_to_machines() {
        for (form, wanted) in [(Form::Human { color: false }, 2), (Form::Json, 100)] {
            let (pipe, lines) = mpsc::sync_channel(200);
            let outlet = Outlet::over(Pipe(pipe), form, 200).expect("a thread");
            (0..100).for_each(|n| outlet.say(warning(&format!("the connection {n} broke"))));
            outlet.flush(PATIENCE);
            let lines: Vec<_> = lines.try_iter().collect();
            assert_eq!(lines.len(), wanted, "{lines:?}");
            assert!(lines[0].contains("the connection 0 broke"), "{lines:?}");
            let is_number = lines[lines.len() - 1].starts_with("and 99 like it in 1 s: the connection 0 broke");
            assert_eq!(is_number, form != Form::Json, "{lines:?}");
        }
    }

    #[test]
    fn a_reader_who_left_stops_nothing() {
        let (pipe, lines) = mpsc::sync_channel(0);
        drop(lines);
        let outlet = Outlet::over(Pipe(pipe), Form::Json, 9).expect("a thread");
        outlet.say(warning("one"));
        outlet.say(warning("two"));
        outlet.flush(PATIENCE);
    }
}
