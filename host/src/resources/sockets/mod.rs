//! Which WebSockets are there, and what waits to be sent?
//!
//! Connections belong to a plugin by its name and live through its swaps, with their state and the rooms that they joined. Who carries their
//! bytes is another room's matter: this one knows no network and no runtime. What wakes a plugin's future here is called by whoever
//! carries the bytes, or by a plugin; a publish wakes the host's own work alone.

mod connection;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use event_listener::{Event, EventListener};
use midair_abi::store::Row;
use midair_abi::{Outcome, SocketOp};
use parking_lot::Mutex;

#[cfg(any(all(test, not(midair_loom)), feature = "http"))]
pub(crate) use self::connection::Next;
pub(crate) use self::connection::{Bounds, Cause, Connection, End, Payload};
use crate::mutation::{self, Bug};

/// The connections in a room, in one order for all that is sent to it.
type Members = Arc<Mutex<BTreeMap<u64, Arc<Connection>>>>;

/// What became of a route's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Accepted so far.
    pub opened: u64,
    /// Ended so far, by cause.
    pub ended: BTreeMap<Cause, u64>,
    /// There are now.
    pub open: u64,
    /// Messages that wait to be sent.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
}

#[derive(Default)]
struct Hall {
    connections: HashMap<u64, Arc<Connection>>,
    /// By plugin and name.
    rooms: BTreeMap<String, BTreeMap<String, Members>>,
    /// By plugin and route.
    tallies: BTreeMap<(String, String), Tally>,
}

/// All WebSockets of a host.
pub(crate) struct Sockets {
    hall: Mutex<Hall>,
    last: AtomicU64,
    /// Something else serves.
    changed: Event,
    tell: OnceLock<Box<dyn Fn(String) + Send + Sync>>,
}

/// Why a connection didn't join a room.
enum Unjoined {
    /// It has ended.
    Ended(End),
    /// It is in too many.
    TooMany,
}

/// So many rooms a connection can be in: clients may name them.
const MOST_ROOMS: usize = 1_000;

/// What the host answers at once, or a future of it.
pub(crate) type Answer = Result<Outcome, Pin<Box<dyn Future<Output = Outcome> + Send>>>;

impl Sockets {
    /// None yet.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { hall: Mutex::default(), last: AtomicU64::new(0), changed: Event::new(), tell: OnceLock::new() })
    }

    /// Whom to tell of connections that were closed. Set once.
    pub(crate) fn tell_to(&self, tell: impl Fn(String) + Send + Sync + 'static) {
        let _ = self.tell.set(Box::new(tell));
    }

    /// A connection that is about to be accepted.
    pub(crate) fn open(self: &Arc<Self>, plugin: &str, route: &str, bounds: Bounds) -> Entry {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(Connection::new(id, plugin, route, bounds));
        self.hall.lock().connections.insert(id, Arc::clone(&connection));
        Entry { sockets: Arc::clone(self), connection, accepted: false }
    }

    /// Something else serves now. Wakes the host's own work alone.
    pub(crate) fn change(&self) {
        if mutation::is(Bug::SocketStateLost) {
            self.hall.lock().connections.values().for_each(|connection| connection.inner.lock().state = None);
        }
        self.changed.notify(usize::MAX);
    }

    /// Done when something else serves.
    pub(crate) fn changed(&self) -> EventListener {
        self.changed.listen()
    }

    /// Every route that has or had connections, by plugin.
    #[must_use]
    pub(crate) fn tallies(&self) -> BTreeMap<(String, String), Tally> {
        let hall = self.hall.lock();
        let mut tallies = hall.tallies.clone();
        for connection in hall.connections.values() {
            let key = (connection.plugin.clone(), connection.route.clone());
            if let Some(tally) = tallies.get_mut(&key) {
                let inner = connection.inner.lock();
                tally.queued += inner.queue.len() as u64;
                tally.queued_bytes += inner.bytes as u64;
            }
        }
        tallies
    }

    /// How many rooms there are, by plugin.
    #[must_use]
    pub(crate) fn rooms(&self) -> BTreeMap<String, usize> {
        self.hall.lock().rooms.iter().map(|(plugin, rooms)| (plugin.clone(), rooms.len())).collect()
    }

    /// What a plugin asks for.
    pub(crate) fn ask(&self, plugin: &str, op: &SocketOp, room: &str, bytes: Bytes) -> Answer {
        let nothing = || Ok(Outcome::done());
        let number = |number: usize| {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            Ok(Outcome::of_rows(vec![Row { number, ..Row::default() }]))
        };
        let payload = |bytes| Payload { is_text: op.flags & SocketOp::TEXT != 0, bytes };
        if op.kind == SocketOp::SEND_ALL {
            return number(self.send_all(plugin, room, op, &payload(bytes)));
        }
        if op.kind == SocketOp::COUNT {
            return number(self.members(plugin, room).map_or(0, |members| members.lock().len()));
        }
        let Some(connection) = self.of(plugin, op.id) else {
            return if matches!(op.kind, SocketOp::CLOSE | SocketOp::LEAVE) { nothing() } else { Ok(gone(None)) };
        };
        match op.kind {
            SocketOp::SEND => match connection.offer(payload(bytes)) {
                Ok(None) => nothing(),
                Err(end) => Ok(gone(Some(&end))),
                Ok(Some(payload)) => Err(Box::pin(async move {
                    match connection.send(payload).await {
                        Ok(()) => Outcome::done(),
                        Err(end) => gone(Some(&end)),
                    }
                })),
            },
            SocketOp::CLOSE => {
                let (code, reason) = (u16::try_from(op.code).unwrap_or_default(), String::from_utf8_lossy(&bytes));
                // Others may not be sent, and a reason has its limit.
                let code = if matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) { code } else { 1000 };
                connection.end(Cause::Plugin, code, &reason[..reason.floor_char_boundary(LONGEST_REASON)]);
                nothing()
            }
            SocketOp::JOIN => match self.join(&connection, room) {
                Ok(()) => nothing(),
                Err(Unjoined::Ended(end)) => Ok(gone(Some(&end))),
                Err(Unjoined::TooMany) => Ok(Outcome::told(
                    Outcome::ERROR,
                    500,
                    format!("the connection is in {MOST_ROOMS} rooms, the most that it can be in"),
                    &[],
                )),
            },
            SocketOp::LEAVE => {
                self.leave(&connection, room);
                nothing()
            }
            SocketOp::STATE => {
                let state = connection.inner.lock().state.clone();
                Ok(Outcome::of_rows(state.into_iter().map(|bytes| Row { bytes, ..Row::default() }).collect()))
            }
            SocketOp::PUT_STATE => {
                connection.inner.lock().state = Some(bytes.into());
                nothing()
            }
            SocketOp::RECEIVE => Err(Box::pin(async move {
                let row = |payload: Payload| {
                    let flags = if payload.is_text { SocketOp::TEXT } else { 0 };
                    Row { number: flags.into(), bytes: payload.bytes.into(), ..Row::default() }
                };
                Outcome::of_rows(connection.next().await.map(row).into_iter().collect())
            })),
            other => Ok(Outcome::told(Outcome::ERROR, 500, format!("the host doesn't know socket operation {other}"), &[])),
        }
    }

    fn of(&self, plugin: &str, id: u64) -> Option<Arc<Connection>> {
        self.hall.lock().connections.get(&id).filter(|connection| connection.plugin == plugin).cloned()
    }

    fn members(&self, plugin: &str, room: &str) -> Option<Members> {
        self.hall.lock().rooms.get(plugin)?.get(room).cloned()
    }

    /// To how many it was queued.
    fn send_all(&self, plugin: &str, room: &str, op: &SocketOp, payload: &Payload) -> usize {
        let Some(members) = self.members(plugin, room) else { return 0 };
        let (mut sent, mut slow) = (0, Vec::new());
        for connection in members.lock().values().filter(|connection| connection.id != op.id) {
            match connection.offer(payload.clone()) {
                Ok(None) => sent += 1,
                Ok(Some(_)) if op.flags & SocketOp::SKIP == 0 => {
                    connection.cut(Cause::Overrun, 1013, "it reads too slowly");
                    slow.push(Arc::clone(connection));
                }
                // Left out as asked for, or ended.
                Ok(Some(_)) | Err(_) => {}
            }
        }
        // Without the room's lock, as a plugin's own waker may run here.
        slow.iter().for_each(|connection| connection.tell_end());
        sent
    }

    fn join(&self, connection: &Arc<Connection>, room: &str) -> Result<(), Unjoined> {
        let mut hall = self.hall.lock();
        let mut inner = connection.inner.lock();
        if let Some(end) = &inner.end {
            return Err(Unjoined::Ended(end.clone()));
        }
        if inner.rooms.len() >= MOST_ROOMS && !inner.rooms.contains(room) {
            return Err(Unjoined::TooMany);
        }
        inner.rooms.insert(room.to_owned());
        drop(inner);
        let rooms = hall.rooms.entry(connection.plugin.clone()).or_default();
        rooms.entry(room.to_owned()).or_default().lock().insert(connection.id, Arc::clone(connection));
        Ok(())
    }

    fn leave(&self, connection: &Connection, room: &str) {
        let mut hall = self.hall.lock();
        connection.inner.lock().rooms.remove(room);
        let Some(rooms) = hall.rooms.get_mut(&connection.plugin) else { return };
        let is_empty = rooms.get(room).is_some_and(|members| {
            let mut members = members.lock();
            members.remove(&connection.id);
            members.is_empty()
        });
        if is_empty {
            rooms.remove(room);
        }
        if rooms.is_empty() {
            hall.rooms.remove(&connection.plugin);
        }
    }

    /// Takes a connection that has ended out of all rooms.
    pub(crate) fn leave_all(&self, connection: &Connection) {
        let rooms = connection.inner.lock().rooms.clone();
        rooms.iter().for_each(|room| self.leave(connection, room));
    }

    fn remove(&self, connection: &Connection, accepted: bool) {
        // It takes no more rooms from here on.
        connection.end(Cause::Broken, 1006, "");
        self.leave_all(connection);
        let mut hall = self.hall.lock();
        hall.connections.remove(&connection.id);
        let Some(end) = connection.ended().filter(|_| accepted) else { return };
        let key = (connection.plugin.clone(), connection.route.clone());
        let tally = hall.tallies.entry(key).or_default();
        tally.open = tally.open.saturating_sub(1);
        let count = tally.ended.entry(end.cause).or_default();
        *count += 1;
        let count = *count;
        drop(hall);
        let why = match end.cause {
            Cause::Overrun => "read too slowly for a broadcast, and was closed with 1013",
            Cause::Stalled => "took nothing of what was sent to it, and was closed",
            Cause::Removed => "lost its route, and was closed with 1012",
            _ => return,
        };
        // All of them would be a flood.
        if count.is_power_of_two()
            && let Some(tell) = self.tell.get()
        {
            tell(format!("{}: WebSocket {} on {} {why} ({count} so far)", connection.plugin, connection.id, connection.route));
        }
    }
}

/// What fits into the frame of a close beside its code.
const LONGEST_REASON: usize = 123;

fn gone(end: Option<&End>) -> Outcome {
    let how = end.map_or_else(String::new, |end| format!(": {} {}", end.code, end.reason));
    Outcome::told(Outcome::ERROR, 410, format!("the connection has ended{how}").trim_end().to_owned(), &[])
}

/// A connection's place. Dropped, the connection is none any more.
pub(crate) struct Entry {
    sockets: Arc<Sockets>,
    connection: Arc<Connection>,
    accepted: bool,
}

impl Entry {
    /// It is open.
    pub(crate) fn accepted(&mut self) {
        self.accepted = true;
        let key = (self.connection.plugin.clone(), self.connection.route.clone());
        let mut hall = self.sockets.hall.lock();
        let tally = hall.tallies.entry(key).or_default();
        tally.open += 1;
        tally.opened += 1;
    }

    /// Where it is.
    #[cfg(test)]
    pub(crate) fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// The connection.
    #[must_use]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sockets.remove(&self.connection, self.accepted);
    }
}

#[cfg(all(test, not(midair_loom)))]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn payload(text: &str) -> Payload {
        Payload { is_text: true, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn op(kind: u32, id: u64) -> SocketOp {
        use midair_abi::Span;
        SocketOp { kind, flags: SocketOp::TEXT, id, code: 0, room: Span::EMPTY, bytes: Span::EMPTY }
    }

    fn open(sockets: &Arc<Sockets>, messages: usize, bytes: usize) -> Entry {
        let mut entry = sockets.open("shop", "/chat", Bounds { messages, bytes });
        entry.accepted();
        entry
    }

    fn ask(sockets: &Sockets, op: &SocketOp, room: &str, bytes: &'static str) -> Option<Outcome> {
        sockets.ask("shop", op, room, Bytes::from_static(bytes.as_bytes())).ok()
    }

    fn number(outcome: Option<Outcome>) -> Option<i64> {
        outcome?.into_answer().ok()?.first().map(|row| row.number)
    }

    fn now<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_queue_takes_so_many_messages_and_bytes_and_then_waits() {
        let sockets = Sockets::new();
        let entry = open(&sockets, 2, 10);
        let connection = entry.connection();
        assert!(ask(&sockets, &op(SocketOp::SEND, 1), "", "123456").is_some());
        let Err(mut waits) = sockets.ask("shop", &op(SocketOp::SEND, 1), "", Bytes::from_static(b"12345")) else {
            panic!("too many bytes")
        };
        assert!(now(waits.as_mut()).is_none());
        assert!(ask(&sockets, &op(SocketOp::SEND, 1), "", "1234").is_some());
        assert!(sockets.ask("shop", &op(SocketOp::SEND, 1), "", Bytes::new()).is_err(), "too many messages");
        assert_eq!(now(connection.to_write()), Some(Next::Send(payload("123456"))));
        let tally = sockets.tallies().into_values().next().expect("a route");
        assert_eq!((tally.open, tally.queued, tally.queued_bytes), (1, 2, 10));
        assert!(connection.written());
        assert!(now(waits.as_mut()).is_some_and(|outcome| outcome.kind() == Outcome::DONE));
        let large = open(&sockets, 2, 10);
        assert_eq!(large.connection().offer(payload("more than ten bytes")), Ok(None), "an empty queue takes it");
    }

    #[test]
    fn a_broadcast_closes_who_is_slow_or_leaves_it_out_and_waits_for_nobody() {
        let sockets = Sockets::new();
        let entries: Vec<Entry> = [1, 2, 2].into_iter().map(|messages| open(&sockets, messages, 100)).collect();
        for id in 1..=3 {
            assert!(ask(&sockets, &op(SocketOp::JOIN, id), "all", "").is_some_and(|outcome| outcome.kind() == Outcome::DONE));
        }
        let except = |id, flags| SocketOp { flags, ..op(SocketOp::SEND_ALL, id) };
        assert_eq!(number(ask(&sockets, &except(3, 0), "all", "one")), Some(2));
        assert_eq!(number(ask(&sockets, &except(0, SocketOp::SKIP), "all", "two")), Some(2));
        assert_eq!(entries[0].connection().ended(), None);
        assert_eq!(number(ask(&sockets, &except(0, 0), "all", "three")), Some(1));
        let ended = entries[0].connection().ended().expect("it was slow");
        assert_eq!((ended.cause, ended.code), (Cause::Overrun, 1013));
        assert_eq!(sockets.rooms(), BTreeMap::from([("shop".to_owned(), 1)]));
        drop(entries);
        assert_eq!(sockets.rooms(), BTreeMap::new());
        let tally = sockets.tallies().into_values().next().expect("a route");
        assert_eq!((tally.open, tally.opened, tally.ended.get(&Cause::Overrun)), (0, 3, Some(&2)));
    }

    #[test]
    fn what_is_asked_of_a_connection_of_another_plugin_or_of_none_is_gone() {
        let sockets = Sockets::new();
        let entry = open(&sockets, 1, 1);
        let status = |plugin, kind, id| sockets.ask(plugin, &op(kind, id), "", Bytes::new()).map(|outcome| outcome.status()).ok();
        assert_eq!(status("cart", SocketOp::SEND, 1), Some(410));
        assert_eq!(status("shop", SocketOp::SEND, 2), Some(410));
        assert_eq!(status("shop", SocketOp::CLOSE, 2), Some(200));
        entry.connection().end(Cause::Client, 1000, "bye");
        assert_eq!(status("shop", SocketOp::SEND, 1), Some(410));
        assert_eq!(status("shop", SocketOp::JOIN, 1), Some(410));
        assert_eq!(status("shop", 77, 1), Some(500));
    }

    #[test]
    fn a_connection_can_be_in_so_many_rooms() {
        let sockets = Sockets::new();
        let entry = open(&sockets, 1, 1);
        let join = |room: usize| {
            let outcome = sockets.ask("shop", &op(SocketOp::JOIN, 1), &room.to_string(), Bytes::new()).ok();
            outcome.map(|outcome| (outcome.kind(), outcome.status()))
        };
        assert!((0..MOST_ROOMS).all(|room| join(room).is_some_and(|(kind, _)| kind == Outcome::DONE)));
        assert_eq!(join(MOST_ROOMS), Some((Outcome::ERROR, 500)));
        assert!(join(0).is_some_and(|(kind, _)| kind == Outcome::DONE), "it is in there");
        sockets.leave(entry.connection(), "7");
        assert!(join(MOST_ROOMS).is_some_and(|(kind, _)| kind == Outcome::DONE));
    }

    #[test]
    fn where_messages_wait_as_many_are_read_ahead_as_may_wait_and_they_come_in_order() {
        let sockets = Sockets::new();
        let entry = open(&sockets, 3, 8);
        let connection = entry.connection();
        assert!(now(connection.hand(payload("a"))).is_some());
        let mut second = Box::pin(connection.hand(payload("b")));
        assert!(now(second.as_mut()).is_none(), "one is read ahead");
        connection.wait(true);
        assert!(now(second.as_mut()).is_some());
        assert!(now(connection.next()).is_none());
        let mut large = Box::pin(connection.hand(payload("1234567")));
        assert!(now(large.as_mut()).is_none(), "too many bytes");
        drop(large);
        assert!(now(connection.hand(payload("c"))).is_some());
        assert!(now(connection.hand(payload("d"))).is_none(), "too many messages");
        connection.wait(false);
        let first = now(connection.next()).flatten();
        assert_eq!(first, Some(payload("a")));
        // Nobody handled it after all.
        first.into_iter().for_each(|first| connection.take_back(first));
        connection.wait(true);
        let mut next = Box::pin(connection.next());
        assert!(now(next.as_mut()).is_none());
        connection.end(Cause::Ending, 1001, "the host ends");
        assert_eq!(now(next.as_mut()).flatten(), Some(payload("a")), "after the end all is taken");
        assert_eq!([(); 2].map(|()| now(connection.next()).flatten()), [Some(payload("b")), Some(payload("c"))]);
        connection.over();
        assert_eq!(now(connection.next()), Some(None));
    }

    #[test]
    fn the_next_message_is_taken_when_the_one_before_was_and_all_are_before_the_end() {
        let sockets = Sockets::new();
        let entry = open(&sockets, 1, 1);
        let connection = entry.connection();
        assert!(now(connection.hand(payload("one"))).is_some());
        let mut second = Box::pin(connection.hand(payload("two")));
        assert!(now(second.as_mut()).is_none());
        connection.end(Cause::Client, 1000, "");
        assert_eq!(now(connection.next()), Some(Some(payload("one"))));
        assert!(now(second.as_mut()).is_some());
        connection.over();
        assert_eq!(now(connection.next()), Some(Some(payload("two"))));
        assert_eq!(now(connection.next()), Some(None));
    }
}
