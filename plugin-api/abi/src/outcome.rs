//! What came of a call?

use std::ffi::c_void;

use abi_stable::StableAbi;

use crate::memory::{Address, Held, Many, Owner, Pair, Span, read_pairs};
use crate::state::Row;
use crate::{store, wall};

/// How a future's side of the border wakes the other side's task.
#[repr(C)]
#[derive(StableAbi)]
pub struct WakerVtable {
    /// Makes data that lives until `release`.
    pub clone: unsafe extern "C" fn(*const c_void) -> *const c_void,
    /// Wakes the task.
    pub wake_by_ref: unsafe extern "C" fn(*const c_void),
    /// Frees what `clone` made.
    pub release: unsafe extern "C" fn(*const c_void),
}

/// A waker that is lent for the length of one poll.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Waker {
    /// What the functions get.
    pub data: *const c_void,
    /// Lives as long as the library that made it.
    pub vtable: *const WakerVtable,
}

/// Polls what `data` owns.
pub type PollFn = unsafe extern "C" fn(data: *mut c_void, waker: *const Waker) -> Outcome;

/// What came of a call or a poll.
#[repr(C)]
#[derive(StableAbi)]
pub struct Outcome {
    kind: u32,
    /// The HTTP status of a response or an error; of a refusal by the store the place of the operation.
    status: u32,
    /// The response's headers; of a panic its `location` and `frames`.
    headers: Many<Pair>,
    /// The response's body; of an error or panic its text.
    body: Span,
    /// What the store answered.
    rows: Many<Row>,
    /// Owns the above, and what `poll` polls.
    owner: Owner,
    /// Polls the future when pending, and for the next piece of the body when done.
    poll: Option<unsafe extern "C" fn(data: *mut c_void, waker: *const Waker) -> Outcome>,
}

impl Outcome {
    /// It went well and there is nothing to say, or a response; with a poll function, one whose body goes on: each poll asks for a piece.
    pub const DONE: u32 = 0;
    /// The callee returned an error.
    pub const ERROR: u32 = 1;
    /// The callee panicked.
    pub const PANIC: u32 = 2;
    /// Poll again when woken.
    pub const PENDING: u32 = 3;
    /// The services behind this context are gone: the candidate was rejected.
    pub const REVOKED: u32 = 4;
    /// The store holds another revision than the operation expected; the first row has it.
    pub const CONFLICT: u32 = 5;
    /// The operation adds to something that is no number.
    pub const NOT_A_NUMBER: u32 = 6;
    /// A piece of a body, of a poll that asked for one; `DONE` is the body's end.
    pub const CHUNK: u32 = 7;
    /// A response whose body is a file: the host reads it. Its path is in `body`, as the system has it.
    pub const FILE: u32 = 8;
    /// Something is larger than the store takes; the text says what.
    pub const TOO_LARGE: u32 = 9;

    /// A detail of a panic: where in the source it happened.
    pub const LOCATION: &str = "location";
    /// A detail of a panic: the addresses that led to it.
    pub const FRAMES: &str = "frames";
    /// A detail of an error in a config: a key that leads to the place.
    pub const KEY: &str = "key";

    /// It went well and there is nothing to say.
    #[must_use]
    pub fn done() -> Self {
        Self {
            kind: Self::DONE,
            status: 200,
            headers: Many::of(&[]),
            body: Span::EMPTY,
            rows: Many::of(&[]),
            owner: Owner::NONE,
            poll: None,
        }
    }

    /// It went well and made this, which stays with this side until the outcome is dropped.
    #[must_use]
    pub fn made<T: Send + Sync + 'static>(value: T) -> Self {
        Self { owner: Owner::of(value), ..Self::done() }
    }

    /// Where what was [`made`](Self::made) is, for its maker alone; null if it is nothing.
    #[must_use]
    pub fn value(&self) -> Address {
        Address(self.owner.data())
    }

    /// A future of the maker, to be polled with `poll`; without one, what a poll answers that isn't done.
    pub(crate) fn pending(future: Option<(Owner, PollFn)>) -> Self {
        let (owner, poll) = future.map_or((Owner::NONE, None), |(owner, poll)| (owner, Some(poll)));
        Self { kind: Self::PENDING, owner, poll, ..Self::done() }
    }

    /// A piece of a body; the bytes stay with this side until it is dropped.
    #[must_use]
    pub fn chunk<B: AsRef<[u8]> + Send + 'static>(bytes: B) -> Self {
        let owner = Owner::of(bytes);
        // SAFETY: the owner was just made of a value of this very type and nobody else knows of it.
        let bytes = unsafe { &*owner.data().cast::<B>() };
        Self { kind: Self::CHUNK, body: Span::of(bytes.as_ref()), owner, ..Self::done() }
    }

    /// A response whose body the host reads from the file at `path`.
    #[must_use]
    pub fn file<N, V>(status: u16, headers: Vec<(N, V)>, path: Vec<u8>) -> Self
    where
        N: AsRef<str> + Send + 'static,
        V: AsRef<[u8]> + Send + 'static,
    {
        Self { kind: Self::FILE, ..Self::response(status, headers, path) }
    }

    /// This response with a body that goes on. `pack` gets what owns the response so far, and gives what owns that and the body.
    pub(crate) fn followed_by(mut self, pack: impl FnOnce(Owner) -> (Owner, PollFn)) -> Self {
        let (owner, poll) = pack(std::mem::replace(&mut self.owner, Owner::NONE));
        self.owner = owner;
        self.poll = Some(poll);
        self
    }

    /// Whether it is a response whose body goes on.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.kind == Self::DONE && self.poll.is_some()
    }

    /// What goes on with the body, if it goes on. Headers must have been read before.
    pub(crate) fn into_body(self) -> Result<(Owner, PollFn), Self> {
        match self.poll {
            Some(poll) if self.kind == Self::DONE => Ok((self.owner, poll)),
            _ => Err(self),
        }
    }

    /// The maker's future, if this is one.
    pub(crate) fn into_future(self) -> Result<(Owner, PollFn), Self> {
        match self.poll {
            Some(poll) if self.kind == Self::PENDING => Ok((self.owner, poll)),
            _ => Err(self),
        }
    }

    /// One of the constants above.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.kind
    }

    /// The HTTP status of a response or an error.
    #[must_use]
    pub fn status(&self) -> u16 {
        u16::try_from(self.status).unwrap_or(500)
    }

    /// `kind` with a text and named details.
    #[must_use]
    pub fn told(kind: u32, status: u16, text: String, details: &[(&'static str, String)]) -> Self {
        let details: Vec<(&str, Vec<u8>)> = details.iter().map(|(name, value)| (*name, value.clone().into_bytes())).collect();
        Self { kind, ..Self::response(status, details, text.into_bytes()) }
    }

    /// A response, or anything else that has headers and a body; both stay with this side until it is dropped.
    #[must_use]
    pub fn response<N, V, B>(status: u16, headers: Vec<(N, V)>, body: B) -> Self
    where
        N: AsRef<str> + Send + 'static,
        V: AsRef<[u8]> + Send + 'static,
        B: AsRef<[u8]> + Send + 'static,
    {
        let owner = Owner::of(Held { inner: (headers, body), pairs: Vec::new() });
        // SAFETY: the owner was just made of a value of this very type and nobody else knows of it.
        let held = unsafe { &mut *owner.data().cast::<Held<(Vec<(N, V)>, B)>>() };
        let (headers, body) = &held.inner;
        held.pairs.extend(headers.iter().map(|(name, value)| Pair::of(name.as_ref(), value.as_ref())));
        let (headers, body) = (Many::of(&held.pairs), Span::of(body.as_ref()));
        Self { headers, body, status: status.into(), owner, ..Self::done() }
    }

    /// The rows of a store's answer.
    #[must_use]
    pub fn of_rows(rows: Vec<store::Row>) -> Self {
        let owner = Owner::of(Held { inner: (rows, Vec::<Row>::new()), pairs: Vec::new() });
        // SAFETY: the owner was just made of a value of this very type and nobody else knows of it.
        let held = unsafe { &mut *owner.data().cast::<Held<(Vec<store::Row>, Vec<Row>)>>() };
        let (rows, spans) = &mut held.inner;
        spans.extend(rows.iter().map(|row| Row {
            key: Span::of(row.key.as_bytes()),
            bytes: Span::of(&row.bytes),
            revision: row.revision,
            number: row.number,
            schema: row.schema,
        }));
        let rows = Many::of(spans);
        Self { rows, owner, ..Self::done() }
    }

    /// Why the store didn't do it.
    #[must_use]
    pub fn refused(refusal: &store::Refusal) -> Self {
        use store::Refusal;
        let (kind, index, revision) = match refusal {
            Refusal::Conflict { index, revision } => (Self::CONFLICT, *index, *revision),
            Refusal::NotANumber { index } => (Self::NOT_A_NUMBER, *index, 0),
            Refusal::Revoked => (Self::REVOKED, 0, 0),
            Refusal::TooLarge(what) => return Self::told(Self::TOO_LARGE, 500, what.clone(), &[]),
            Refusal::Failed(reason) => return Self::told(Self::ERROR, 500, reason.clone(), &[]),
        };
        if kind == Self::REVOKED {
            return Self::told(kind, 500, refusal.to_string(), &[]);
        }
        let row = store::Row { revision, ..store::Row::default() };
        Self { kind, status: u32::try_from(index).unwrap_or(u32::MAX), ..Self::of_rows(vec![row]) }
    }

    /// What the store answered.
    ///
    /// # Errors
    ///
    /// Its refusal; a panic on the other side counts as a failure of the store.
    pub fn into_answer(self) -> store::Answer {
        use store::Refusal;
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        let rows = unsafe { self.rows.items::<'_>() };
        let index = self.status as usize;
        let revision = rows.first().map_or(0, |row| row.revision);
        match self.kind {
            Self::DONE => Ok(rows.iter().map(Row::copied).collect()),
            Self::CONFLICT => Err(Refusal::Conflict { index, revision }),
            Self::NOT_A_NUMBER => Err(Refusal::NotANumber { index }),
            Self::REVOKED => Err(Refusal::Revoked),
            Self::TOO_LARGE => Err(Refusal::TooLarge(self.text())),
            _ => Err(Refusal::Failed(self.text())),
        }
    }

    /// A panic as a value.
    #[must_use]
    pub fn panicked(panic: wall::Panic) -> Self {
        let frames: Vec<String> = panic.frames.iter().map(|frame| format!("{frame:x}")).collect();
        Self::told(Self::PANIC, 500, panic.message, &[(Self::LOCATION, panic.location), (Self::FRAMES, frames.join(" "))])
    }

    /// The headers, or the details of a panic.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { read_pairs(self.headers) }
    }

    /// The body, or the text of an error or panic.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        // SAFETY: it lives in what `owner` owns, which lives as long as `self`.
        unsafe { self.body.bytes() }
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body()).into_owned()
    }

    /// The panic that it tells of.
    #[must_use]
    pub fn panic(&self) -> wall::Panic {
        let detail = |wanted: &str| {
            let value = self.pairs().find(|(name, _)| *name == wanted).map(|(_, value)| value);
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        let frames = detail(Self::FRAMES).split(' ').filter_map(|frame| u64::from_str_radix(frame, 16).ok()).collect();
        wall::Panic { message: self.text(), location: detail(Self::LOCATION), frames }
    }
}
