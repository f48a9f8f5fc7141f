//! Which messages wait, and for whom?
//!
//! A topic has a queue for each plugin that takes its messages, and one for each function of a custom host's. A message is taken by all of
//! them or, while one is full, by none. What waits are bytes in the host's memory: no swap touches them. Who handles a message is for
//! whoever carries it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;

use bytes::Bytes;
use event_listener::Event as Room;
use parking_lot::Mutex;
use serde::Serialize;

use crate::mutation::{self, Bug};
use crate::report::event::{Bus, Event};
use crate::resources::tasks::Tasks;

/// A topic.
#[derive(Clone, Debug, Serialize)]
pub struct TopicStatus {
    /// Its name; `...` for all that nobody took when there were too many to tell apart.
    pub topic: String,
    /// Messages that were emitted.
    pub emitted: u64,
    /// Of these, that nobody took.
    pub unheard: u64,
    /// Who takes them, or did.
    pub subscribers: Vec<SubscriberStatus>,
}

/// Whoever takes messages of a topic.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriberStatus {
    /// The plugin; `(host 1)` for a function of the host's.
    pub subscriber: String,
    /// Whether it takes messages now.
    pub subscribed: bool,
    /// Messages that wait.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// How many may.
    pub limit: usize,
    /// Messages that are being handled.
    pub running: usize,
    /// Messages that were handled well.
    pub delivered: u64,
    /// Messages whose handler failed, or couldn't read them.
    pub failed: u64,
    /// Messages that waited when code that takes none was committed, or at the end.
    pub dropped: u64,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// It was handled.
    Well,
    /// Its handler failed.
    Badly,
    /// There was no handler: it was published or put back a moment ago, and the queue is about to hear of it.
    Nowhere,
}

/// A message on its way into a handler.
pub(crate) type Carrying = Pin<Box<dyn Future<Output = Carried> + Send>>;

/// Brings messages to handlers.
pub(crate) trait Carry: Send + Sync {
    /// Brings one to what serves of `plugin` now.
    fn carry(&self, plugin: &str, topic: &str, message: Bytes) -> Carrying;
}

/// A function of the host's that takes messages.
pub(crate) type Listener = Arc<dyn Fn(Bytes) + Send + Sync>;

/// Why a message wasn't taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    topic: String,
    subscriber: String,
    /// Messages that wait,
    queued: usize,
    /// and their bytes.
    bytes: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, subscriber, queued, bytes } = self;
        write!(f, "{queued} messages of {topic} ({bytes} bytes) wait for {subscriber} already: nobody got this one; emit it later")
    }
}

/// What a plugin takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The topic.
    pub topic: String,
    /// How many messages may wait.
    pub limit: usize,
    /// How many may be handled at once.
    pub at_once: usize,
}

#[derive(Default)]
struct Queue {
    is_open: bool,
    limit: usize,
    at_once: usize,
    waiting: VecDeque<Bytes>,
    /// The bytes of what waits.
    bytes: usize,
    /// Whether somebody was refused since there was room last.
    has_refused: bool,
    /// How many carriers are on their way.
    carriers: usize,
    running: usize,
    delivered: u64,
    failed: u64,
    dropped: u64,
    listener: Option<Listener>,
}

#[derive(Default)]
struct Topic {
    emitted: u64,
    unheard: u64,
    queues: BTreeMap<String, Queue>,
}

/// So many topics are told apart.
const MOST_TOPICS: usize = 1_000;

/// So many bytes wait in a queue at most; a message that alone is larger is taken when nothing else waits.
const MOST_BYTES: usize = 64 << 20;

/// So many messages of a candidate wait for its publish.
const MOST_HELD: usize = 1_024;

/// All queues. No time, no threads, no plugin code.
#[derive(Default)]
struct Hall {
    topics: BTreeMap<String, Topic>,
    /// What candidates emitted, by generation.
    held: BTreeMap<u64, Vec<(String, Bytes)>>,
}

impl Queue {
    fn has_room(&self, bytes: usize) -> bool {
        self.waiting.len() < self.limit && (self.waiting.is_empty() || self.bytes.saturating_add(bytes) <= MOST_BYTES)
    }
}

/// A message that was taken from its queue.
struct Taken {
    message: Bytes,
    listener: Option<Listener>,
    /// Whether somebody may wait for the room that it leaves.
    makes_room: bool,
}

impl Hall {
    fn topic(&mut self, topic: &str) -> &mut Topic {
        let is_one_too_many = self.topics.len() >= MOST_TOPICS && !self.topics.contains_key(topic);
        self.topics.entry(if is_one_too_many { "..." } else { topic }.to_owned()).or_default()
    }

    /// Puts a message into all queues of its topic; those that need a carrier more.
    fn push(&mut self, topic: &str, message: &Bytes) -> Result<Vec<String>, Full> {
        let found = self.topic(topic);
        let mut open = found.queues.iter_mut().filter(|(_, queue)| queue.is_open);
        if let Some((subscriber, queue)) = open.find(|(_, queue)| !queue.has_room(message.len())) {
            queue.has_refused = true;
            if mutation::is(Bug::FullQueueDrops) {
                return Ok(Vec::new());
            }
            let (queued, bytes) = (queue.waiting.len(), queue.bytes);
            return Err(Full { topic: topic.to_owned(), subscriber: subscriber.clone(), queued, bytes });
        }
        found.emitted += 1;
        let mut needed = Vec::new();
        let mut is_heard = false;
        for (subscriber, queue) in found.queues.iter_mut().filter(|(_, queue)| queue.is_open) {
            is_heard = true;
            queue.bytes += message.len();
            queue.waiting.push_back(message.clone());
            if queue.carriers < queue.at_once {
                queue.carriers += 1;
                needed.push(subscriber.clone());
            }
        }
        found.unheard += u64::from(!is_heard);
        Ok(needed)
    }

    fn queue(&mut self, topic: &str, subscriber: &str) -> Option<&mut Queue> {
        self.topics.get_mut(topic)?.queues.get_mut(subscriber)
    }

    fn take(&mut self, topic: &str, subscriber: &str) -> Option<Taken> {
        let queue = self.queue(topic, subscriber).filter(|queue| queue.carriers <= queue.at_once)?;
        let message = queue.waiting.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(message.len());
        let makes_room = std::mem::take(&mut queue.has_refused);
        queue.running += 1;
        Some(Taken { message, listener: queue.listener.clone(), makes_room })
    }

    /// What became of a message that was taken; one that reached nobody waits again, as the first.
    fn done(&mut self, topic: &str, subscriber: &str, carried: Carried, message: Bytes) {
        let Some(queue) = self.queue(topic, subscriber) else { return };
        queue.running = queue.running.saturating_sub(1);
        match carried {
            Carried::Well => queue.delivered += 1,
            Carried::Badly => queue.failed += 1,
            Carried::Nowhere => {
                queue.bytes += message.len();
                queue.waiting.push_front(message);
            }
        }
    }

    /// A carrier found nothing more, or is one too many since newer code takes fewer at once; whether it has to look again, as something
    /// came meanwhile.
    fn leave(&mut self, topic: &str, subscriber: &str) -> bool {
        let Some(queue) = self.queue(topic, subscriber) else { return false };
        let stays = !queue.waiting.is_empty() && queue.carriers <= queue.at_once;
        queue.carriers -= usize::from(!stays);
        stays
    }

    /// The plugin is about to take these topics too: what comes on one that it didn't take so far waits until it [does](Self::subscribe).
    fn open(&mut self, plugin: &str, wanted: &[Wanted]) {
        for Wanted { topic, limit, .. } in wanted {
            let queue = self.topics.entry(topic.clone()).or_default().queues.entry(plugin.to_owned()).or_default();
            if !queue.is_open {
                // Nobody carries anything: the code that takes it doesn't serve yet.
                (queue.is_open, queue.limit, queue.at_once) = (true, *limit, 0);
            }
        }
    }

    /// The plugin takes these topics from now on, and no others: what waits on those stays, as the code that takes it may come back, until
    /// it is [dropped](Self::drop_all). The topics whose messages that wait need a carrier more, each as often as it does; and whether somebody
    /// may wait for room that nobody asks for any more.
    fn subscribe(&mut self, plugin: &str, wanted: &[Wanted]) -> (Vec<String>, bool) {
        let (mut needed, mut makes_room) = (Vec::new(), false);
        for (name, topic) in &mut self.topics {
            let Some(queue) = topic.queues.get_mut(plugin) else { continue };
            if wanted.iter().all(|wanted| wanted.topic != *name) {
                (queue.is_open, queue.at_once) = (false, 0);
                makes_room |= std::mem::take(&mut queue.has_refused);
            }
        }
        for Wanted { topic, limit, at_once } in wanted {
            // What code takes was counted when it was loaded: these are always told apart.
            let queue = self.topics.entry(topic.clone()).or_default().queues.entry(plugin.to_owned()).or_default();
            (queue.is_open, queue.limit, queue.at_once) = (true, *limit, *at_once);
            if mutation::is(Bug::MessageTwice) {
                queue.waiting.front().cloned().into_iter().for_each(|first| queue.waiting.push_front(first));
            }
            // Each that is on its way takes one at least, or what waits is gone.
            let more = at_once.saturating_sub(queue.carriers).min(queue.waiting.len());
            queue.carriers += more;
            needed.extend(std::iter::repeat_n(topic.clone(), more));
        }
        (needed, makes_room)
    }

    /// Drops what waits for the plugin on topics that it doesn't take now, but for these; as topic and count.
    fn drop_all(&mut self, plugin: &str, but: &[Wanted]) -> Vec<(String, usize)> {
        let queues = self.topics.iter_mut().filter_map(|(name, topic)| Some((name, topic.queues.get_mut(plugin)?)));
        let closed = queues.filter(|(name, queue)| !queue.is_open && but.iter().all(|wanted| wanted.topic != **name));
        let dropped = closed.map(|(name, queue)| {
            let count = std::mem::take(&mut queue.waiting).len();
            queue.bytes = 0;
            queue.dropped += count as u64;
            (name.clone(), count)
        });
        dropped.filter(|(_, count)| *count > 0).collect()
    }

    fn list(&self) -> Vec<TopicStatus> {
        let subscriber = |(subscriber, queue): (&String, &Queue)| SubscriberStatus {
            subscriber: subscriber.clone(),
            subscribed: queue.is_open,
            queued: queue.waiting.len(),
            queued_bytes: queue.bytes,
            limit: queue.limit,
            running: queue.running,
            delivered: queue.delivered,
            failed: queue.failed,
            dropped: queue.dropped,
        };
        let topic = |(name, topic): (&String, &Topic)| TopicStatus {
            topic: name.clone(),
            emitted: topic.emitted,
            unheard: topic.unheard,
            subscribers: topic.queues.iter().map(subscriber).collect(),
        };
        self.topics.iter().map(topic).collect()
    }
}

/// All messages of a host.
pub(crate) struct Messages {
    hall: Mutex<Hall>,
    /// Told when a queue that was full isn't any more.
    room: Room,
    tasks: Arc<Tasks>,
    bus: Bus,
    carrier: OnceLock<Weak<dyn Carry>>,
}

impl Messages {
    /// None yet; `tasks` is where they are handled.
    #[must_use]
    pub(crate) fn new(tasks: Arc<Tasks>, bus: Bus) -> Arc<Self> {
        Arc::new(Self { hall: Mutex::default(), room: Room::new(), tasks, bus, carrier: OnceLock::new() })
    }

    /// Who brings messages to plugins. Set once.
    pub(crate) fn carried_by(&self, carrier: Weak<dyn Carry>) {
        let _ = self.carrier.set(carrier);
    }

    /// Emits a message, if all who take it have room.
    ///
    /// # Errors
    ///
    /// Who has none; then nobody got it.
    pub(crate) fn try_emit(self: &Arc<Self>, topic: &str, message: &Bytes) -> Result<(), Full> {
        // Its own statement, as carriers take the lock in their turn.
        let needed = self.hall.lock().push(topic, message)?;
        needed.into_iter().for_each(|subscriber| self.carry_on(topic.to_owned(), subscriber));
        Ok(())
    }

    /// Emits a message once all who take it have room.
    pub(crate) async fn emit(self: Arc<Self>, topic: String, message: Bytes) {
        while self.try_emit(&topic, &message).is_err() {
            let room = self.room.listen();
            if self.try_emit(&topic, &message).is_ok() {
                return;
            }
            room.await;
        }
    }

    /// Keeps a candidate's message for later; whether it is the first.
    ///
    /// # Errors
    ///
    /// If too many are kept.
    pub(crate) fn hold(&self, generation: u64, topic: String, message: Bytes) -> Result<bool, String> {
        let mut hall = self.hall.lock();
        let held = hall.held.entry(generation).or_default();
        if held.len() >= MOST_HELD {
            return Err(format!("an init can emit {MOST_HELD} messages at most: they wait for the publish"));
        }
        held.push((topic, message));
        Ok(held.len() == 1)
    }

    /// What was kept for a candidate, which is one no more.
    pub(crate) fn release(&self, generation: u64) -> Vec<(String, Bytes)> {
        self.hall.lock().held.remove(&generation).unwrap_or_default()
    }

    /// A plugin is about to take these too: what comes meanwhile waits for it.
    pub(crate) fn open(&self, plugin: &str, wanted: &[Wanted]) {
        self.hall.lock().open(plugin, wanted);
    }

    /// A plugin takes these from now on, and no others.
    pub(crate) fn subscribe(self: &Arc<Self>, plugin: &str, wanted: &[Wanted]) {
        let (needed, makes_room) = self.hall.lock().subscribe(plugin, wanted);
        needed.into_iter().for_each(|topic| self.carry_on(topic, plugin.to_owned()));
        if makes_room {
            let messages = Arc::clone(self);
            // Whoever waits may be a plugin, so not on this thread.
            self.tasks.run(async move {
                messages.room.notify(usize::MAX);
            });
        }
    }

    /// What waits for a plugin is dropped, and told, if neither the code that serves takes it nor code that takes these.
    pub(crate) fn drop_all(&self, plugin: &str, but: &[Wanted]) {
        let dropped = self.hall.lock().drop_all(plugin, but);
        for (topic, count) in &dropped {
            let message = format!("{plugin}: {count} messages of {topic} were dropped, as no code takes them any more");
            self.bus.say(Event::Warning { message });
        }
    }

    /// A function of the host's takes a topic from now on.
    pub(crate) fn listen(&self, topic: &str, listener: Listener) {
        let mut hall = self.hall.lock();
        let queues = &mut hall.topics.entry(topic.to_owned()).or_default().queues;
        let name = format!("(host {})", 1 + queues.keys().filter(|name| name.starts_with('(')).count());
        let queue = Queue { is_open: true, limit: MOST_HELD, at_once: 1, listener: Some(listener), ..Queue::default() };
        queues.insert(name, queue);
    }

    /// All topics.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<TopicStatus> {
        self.hall.lock().list()
    }

    /// How many messages wait or are being handled, once for each who takes it.
    #[must_use]
    pub(crate) fn undelivered(&self) -> usize {
        let hall = self.hall.lock();
        hall.topics.values().flat_map(|topic| topic.queues.values()).map(|queue| queue.waiting.len() + queue.running).sum()
    }

    /// Has one more carrier empty a queue.
    fn carry_on(self: &Arc<Self>, topic: String, subscriber: String) {
        let mut carrier = Carrier { messages: Arc::clone(self), topic, subscriber, carries: None };
        self.tasks.run(async move {
            while let Some(taken) = carrier.take() {
                let carried = carrier.bring(&taken).await;
                carrier.done(carried);
                turn().await;
            }
        });
    }
}

/// Empties a queue, one message after the other.
struct Carrier {
    messages: Arc<Messages>,
    topic: String,
    subscriber: String,
    /// What it has in hand.
    carries: Option<Bytes>,
}

impl Carrier {
    fn take(&mut self) -> Option<Taken> {
        let taken = self.messages.hall.lock().take(&self.topic, &self.subscriber)?;
        self.carries = Some(taken.message.clone());
        if taken.makes_room {
            self.messages.room.notify(usize::MAX);
        }
        Some(taken)
    }

    async fn bring(&self, Taken { message, listener, .. }: &Taken) -> Carried {
        if let Some(listener) = listener {
            if catch_unwind(AssertUnwindSafe(|| listener(message.clone()))).is_ok() {
                return Carried::Well;
            }
            let message = format!("a function of the host's that takes {} panicked; standard error has the panic", self.topic);
            self.messages.bus.say(Event::Warning { message });
            return Carried::Badly;
        }
        match self.messages.carrier.get().and_then(Weak::upgrade) {
            Some(carrier) => carrier.carry(&self.subscriber, &self.topic, message.clone()).await,
            // The host is gone.
            None => Carried::Badly,
        }
    }

    fn done(&mut self, carried: Carried) {
        if let Some(message) = self.carries.take() {
            self.messages.hall.lock().done(&self.topic, &self.subscriber, carried, message);
        }
    }
}

impl Drop for Carrier {
    /// Also after a fault of the host's own: then that message failed, and another carrier goes on.
    fn drop(&mut self) {
        self.done(Carried::Badly);
        let stays = self.messages.hall.lock().leave(&self.topic, &self.subscriber);
        if stays {
            self.messages.carry_on(std::mem::take(&mut self.topic), std::mem::take(&mut self.subscriber));
        }
    }
}

/// Lets other work have a turn.
async fn turn() {
    let mut had_one = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut had_one, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
