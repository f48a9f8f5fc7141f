//! What waits for a connection, and what came over it?

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use event_listener::Event;
use parking_lot::Mutex;

/// What a connection's queue holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Messages.
    pub messages: usize,
    /// Their bytes; a larger message is taken by an empty queue.
    pub bytes: usize,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Whether it is text, and so UTF-8.
    pub is_text: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Who or what ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The client said so.
    Client,
    /// The client is gone, or broke the protocol.
    Broken,
    /// A handler said so, or a pinned one is over.
    Plugin,
    /// A broadcast found its queue full.
    Overrun,
    /// The client took nothing of what was sent.
    Stalled,
    /// The client gave no sign of life.
    Silent,
    /// The route is gone.
    Removed,
    /// The host ends.
    Ending,
}

impl Cause {
    /// Whether what is queued is still sent.
    fn sends_rest(self) -> bool {
        matches!(self, Self::Plugin | Self::Removed | Self::Ending)
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// By whom.
    pub cause: Cause,
    /// The code of RFC 6455; 1005 and 1006 are never sent.
    pub code: u16,
    /// The reason.
    pub reason: String,
}

/// What is to be written next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This message; it stays in the queue until it is [`written`](Connection::written).
    Send(Payload),
    /// The end.
    End(End),
}

/// How many messages of a client are read beside the one that is handled.
const AHEAD: usize = 1;

/// A connection.
pub(crate) struct Connection {
    /// Unique in a run.
    pub id: u64,
    /// Whose it is.
    pub plugin: String,
    /// The path of its route, as the code that opened it wrote it.
    pub route: String,
    bounds: Bounds,
    pub(super) inner: Mutex<Inner>,
    /// There is something to write, or the end.
    more: Event,
    /// There is room in the queue, or the end.
    room: Event,
    /// A message came, or none will.
    came: Event,
    /// A message was taken.
    taken: Event,
}

#[derive(Default)]
pub(super) struct Inner {
    /// What waits to be written.
    pub(super) queue: VecDeque<Payload>,
    /// Its length.
    pub(super) bytes: usize,
    /// How it ended.
    pub(super) end: Option<End>,
    incoming: VecDeque<Payload>,
    /// Whether nobody handles what comes, for now.
    waits: bool,
    is_over: bool,
    /// What its plugin keeps with it.
    pub(super) state: Option<Vec<u8>>,
    /// Where it is in.
    pub(super) rooms: BTreeSet<String>,
}

impl Connection {
    /// One with nothing to send.
    pub(super) fn new(id: u64, plugin: &str, route: &str, bounds: Bounds) -> Self {
        let (plugin, route, inner) = (plugin.to_owned(), route.to_owned(), Mutex::default());
        let [more, room, came, taken] = [(); 4].map(|()| Event::new());
        Self { id, plugin, route, bounds, inner, more, room, came, taken }
    }

    /// Queues a message if there is room, or gives it back.
    ///
    /// # Errors
    ///
    /// How the connection has ended.
    pub(super) fn offer(&self, payload: Payload) -> Result<Option<Payload>, End> {
        let mut inner = self.inner.lock();
        if let Some(end) = &inner.end {
            return Err(end.clone());
        }
        let fits = inner.queue.len() < self.bounds.messages && inner.bytes + payload.bytes.len() <= self.bounds.bytes;
        if !fits && !inner.queue.is_empty() {
            return Ok(Some(payload));
        }
        inner.bytes += payload.bytes.len();
        inner.queue.push_back(payload);
        drop(inner);
        self.more.notify(usize::MAX);
        Ok(None)
    }

    /// Queues a message once there is room.
    ///
    /// # Errors
    ///
    /// How the connection has ended.
    pub(super) async fn send(self: Arc<Self>, mut payload: Payload) -> Result<(), End> {
        loop {
            let room = self.room.listen();
            match self.offer(payload)? {
                None => return Ok(()),
                Some(back) => payload = back,
            }
            room.await;
        }
    }

    /// What is to be written next, once there is something. After the end there is nothing but the end.
    pub(crate) async fn to_write(&self) -> Next {
        loop {
            let more = self.more.listen();
            {
                let inner = self.inner.lock();
                match (inner.queue.front(), &inner.end) {
                    (Some(payload), _) => return Next::Send(payload.clone()),
                    (None, Some(end)) => return Next::End(end.clone()),
                    (None, None) => {}
                }
            }
            more.await;
        }
    }

    /// The first of the queue was written; whether there is more.
    pub(crate) fn written(&self) -> bool {
        let mut inner = self.inner.lock();
        let bytes = inner.queue.pop_front().map_or(0, |payload| payload.bytes.len());
        inner.bytes = inner.bytes.saturating_sub(bytes);
        let more = !inner.queue.is_empty();
        drop(inner);
        self.room.notify(usize::MAX);
        more
    }

    /// Ends it; whoever comes first says how.
    pub(crate) fn end(&self, cause: Cause, code: u16, reason: &str) {
        self.cut(cause, code, reason);
        self.tell_end();
    }

    /// Takes nothing from here on, as [`end`](Self::end), and wakes nobody: that is for [`tell_end`](Self::tell_end).
    pub(super) fn cut(&self, cause: Cause, code: u16, reason: &str) {
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            inner.end = Some(End { cause, code, reason: reason.to_owned() });
            if !cause.sends_rest() {
                inner.queue.clear();
                inner.bytes = 0;
            }
        }
    }

    /// Wakes whoever has to hear that it ended, on this thread: who waits to send may be a plugin.
    pub(super) fn tell_end(&self) {
        self.more.notify(usize::MAX);
        self.room.notify(usize::MAX);
        self.came.notify(usize::MAX);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<End> {
        self.inner.lock().end.clone()
    }

    /// Hands over a message that came, once the one before was taken.
    pub(crate) async fn hand(&self, payload: Payload) {
        loop {
            let taken = self.taken.listen();
            {
                let mut inner = self.inner.lock();
                if self.has_room(&inner, payload.bytes.len()) {
                    inner.incoming.push_back(payload);
                    break;
                }
            }
            taken.await;
        }
        self.came.notify(usize::MAX);
    }

    /// As many are read ahead as may wait the other way, where nobody handles them for now: else it showed no sign of life, and no end.
    fn has_room(&self, inner: &Inner, bytes: usize) -> bool {
        let Bounds { messages, bytes: most } = self.bounds;
        let waiting = || inner.incoming.iter().map(|payload| payload.bytes.len()).sum::<usize>();
        inner.incoming.len() < AHEAD || (inner.waits && inner.incoming.len() < messages && waiting() + bytes <= most)
    }

    /// Whether what comes waits for now, as its route is gone and may come back.
    pub(crate) fn wait(&self, waits: bool) {
        let waited = std::mem::replace(&mut self.inner.lock().waits, waits);
        if waits && !waited {
            self.taken.notify(usize::MAX);
        }
    }

    /// A message that was taken, and that nobody handled, is the next one again.
    pub(crate) fn take_back(&self, payload: Payload) {
        self.inner.lock().incoming.push_front(payload);
    }

    /// No more messages will come.
    pub(crate) fn over(&self) {
        self.inner.lock().is_over = true;
        self.came.notify(usize::MAX);
    }

    /// The next message that came, or `None` when none will. Where they [wait](Self::wait), the first after the end.
    pub(crate) async fn next(&self) -> Option<Payload> {
        loop {
            let came = self.came.listen();
            {
                let mut inner = self.inner.lock();
                let takes = !inner.waits || inner.is_over || inner.end.is_some();
                if let Some(payload) = takes.then(|| inner.incoming.pop_front()).flatten() {
                    drop(inner);
                    self.taken.notify(usize::MAX);
                    return Some(payload);
                }
                if inner.is_over {
                    return None;
                }
            }
            came.await;
        }
    }
}
