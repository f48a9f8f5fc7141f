//! What crosses between host and plugin, byte by byte?
//!
//! Everything here is `#[repr(C)]`, laid out by abi_stable's derive and compared, type by type, before a plugin's first function is called.
//! Plugin authors never name this module; hosts and the shims of this crate do. Three rules hold for all of it:
//!
//! - Memory is freed by the side that made it: whatever owns memory carries an [`Owner`] with its maker's release function.
//! - Spans borrow from the `Owner` beside them, or, in an argument, from the caller until the call returns.
//! - Kinds are `u32` and an unknown one is refused: no Rust enum crosses.

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::VersionStrings;

use crate::{store, wall};

/// The version of this border. A host serves plugins of its own version only.
pub const ABI_VERSION: u32 = 1;

/// The exported symbol that leads to the root, which is where abi_stable puts it.
pub const ROOT_SYMBOL: &[u8] = abi_stable::library::ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes();

/// Bytes that somebody else owns. UTF-8 where the field that holds it says text.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Span {
    data: *const u8,
    len: usize,
}

// SAFETY: a span is an address and a length; whoever reads through it vouches for the bytes.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// No bytes.
    pub const EMPTY: Span = Span::of(&[]);

    /// The span of `bytes`; the caller sees to it that they outlive it.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// What it was made of must be alive and unchanged for `'a`.
    #[must_use]
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: made by `of` from a slice that the caller vouches for.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }

    /// The bytes as text; what isn't UTF-8 comes out empty.
    ///
    /// # Safety
    ///
    /// As for [`bytes`](Self::bytes).
    #[must_use]
    pub unsafe fn text<'a>(self) -> &'a str {
        // SAFETY: passed on to the caller.
        std::str::from_utf8(unsafe { self.bytes() }).unwrap_or_default()
    }
}

/// Several `T` in a row that somebody else owns.
#[repr(C)]
#[derive(StableAbi)]
pub struct Many<T> {
    data: *const T,
    len: usize,
}

// SAFETY: an address and a length; whoever reads through it vouches for the items.
unsafe impl<T: Sync> Send for Many<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Many<T> {}

impl<T> Clone for Many<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Many<T> {}

impl<T> Many<T> {
    /// The items' place; the caller sees to it that they outlive it.
    #[must_use]
    pub const fn of(items: &[T]) -> Self {
        Self { data: items.as_ptr(), len: items.len() }
    }

    /// The items.
    ///
    /// # Safety
    ///
    /// What it was made of must be alive and unchanged for `'a`.
    #[must_use]
    pub const unsafe fn items<'a>(self) -> &'a [T] {
        // SAFETY: made by `of` from a slice that the caller vouches for.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// The address of something that only its maker reads.
#[repr(transparent)]
#[derive(Clone, Copy, StableAbi)]
pub struct Address(pub *const c_void);

// SAFETY: a bare address; whoever reads through it vouches for what is there.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// A name and a value, such as a header.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Pair {
    /// Text.
    pub name: Span,
    /// Bytes; text unless the holder says otherwise.
    pub value: Span,
}

impl Pair {
    /// The spans of both; the caller sees to it that they outlive it.
    #[must_use]
    pub const fn of(name: &str, value: &[u8]) -> Self {
        Self { name: Span::of(name.as_bytes()), value: Span::of(value) }
    }
}

/// Names and values.
///
/// # Safety
///
/// What they were made of must be alive and unchanged for `'a`.
unsafe fn read_pairs<'a>(pairs: Many<Pair>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    // SAFETY: passed on to the caller.
    let pairs = unsafe { pairs.items::<'a>() };
    pairs.iter().map(|pair| {
        // SAFETY: passed on to the caller.
        let name = unsafe { pair.name.text() };
        // SAFETY: passed on to the caller.
        (name, unsafe { pair.value.bytes() })
    })
}

/// A value and the spans into its heap, kept together.
struct Held<T> {
    inner: T,
    pairs: Vec<Pair>,
}

/// Memory with its maker's way to free it, which runs when it is dropped, on whichever side that happens.
#[repr(C)]
#[derive(StableAbi)]
pub struct Owner {
    data: *mut c_void,
    release: Option<unsafe extern "C" fn(*mut c_void)>,
}

// SAFETY: an owner is made from `Send` values only (`Owner::of`).
unsafe impl Send for Owner {}
// SAFETY: a shared owner gives out nothing but its value's address.
unsafe impl Sync for Owner {}

impl Owner {
    /// Owns nothing.
    pub const NONE: Owner = Owner { data: std::ptr::null_mut(), release: None };

    /// Owns `value`; a panic in its `Drop` ends at the border.
    pub fn of<T: Send + 'static>(value: T) -> Self {
        unsafe extern "C" fn release<T>(data: *mut c_void) {
            // SAFETY: `data` came from `Box::into_raw` of a `Box<T>` below, and `Drop` calls this once.
            let value = unsafe { Box::from_raw(data.cast::<T>()) };
            wall::guard_drop(value);
        }
        Self { data: Box::into_raw(Box::new(value)).cast(), release: Some(release::<T>) }
    }

    /// Where the value is; null if there is none.
    #[must_use]
    pub fn data(&self) -> *mut c_void {
        self.data
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            // SAFETY: the maker set both fields together, and `take` makes this the only call.
            unsafe { release(self.data) }
        }
    }
}

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
    /// Owns the above, or, when pending, the future.
    owner: Owner,
    /// Polls the future when pending.
    poll: Option<unsafe extern "C" fn(data: *mut c_void, waker: *const Waker) -> Outcome>,
}

impl Outcome {
    /// It went well and there is nothing to say, or a response.
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

    /// A future of the maker, to be polled with `poll`; without one, what a poll answers that isn't done.
    pub(crate) fn pending(future: Option<(Owner, PollFn)>) -> Self {
        let (owner, poll) = future.map_or((Owner::NONE, None), |(owner, poll)| (owner, Some(poll)));
        Self { kind: Self::PENDING, owner, poll, ..Self::done() }
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
        let held = unsafe { &mut *owner.data.cast::<Held<(Vec<(N, V)>, B)>>() };
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
        let held = unsafe { &mut *owner.data.cast::<Held<(Vec<store::Row>, Vec<Row>)>>() };
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
            _ => Err(Refusal::Failed(self.text())),
        }
    }

    /// A panic as a value.
    #[must_use]
    pub fn panicked(panic: wall::Panic) -> Self {
        let frames: Vec<String> = panic.frames.iter().map(|frame| format!("{frame:x}")).collect();
        Self::told(Self::PANIC, 500, panic.message, &[("location", panic.location), ("frames", frames.join(" "))])
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
        let frames = detail("frames").split(' ').filter_map(|frame| u64::from_str_radix(frame, 16).ok()).collect();
        wall::Panic { message: self.text(), location: detail("location"), frames }
    }
}

/// The other end of the connection.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Peer {
    family: u32,
    port: u32,
    octets: [u8; 16],
}

impl From<Option<SocketAddr>> for Peer {
    fn from(peer: Option<SocketAddr>) -> Self {
        let mut octets = [0; 16];
        let family = match peer.map(|peer| peer.ip()) {
            None => 0,
            Some(IpAddr::V4(ip)) => {
                octets[..4].copy_from_slice(&ip.octets());
                4
            }
            Some(IpAddr::V6(ip)) => {
                octets = ip.octets();
                6
            }
        };
        Self { family, port: peer.map_or(0, |peer| peer.port().into()), octets }
    }
}

impl From<Peer> for Option<SocketAddr> {
    fn from(peer: Peer) -> Self {
        let [a, b, c, d, ..] = peer.octets;
        let ip = match peer.family {
            4 => IpAddr::from(Ipv4Addr::new(a, b, c, d)),
            6 => IpAddr::from(Ipv6Addr::from(peer.octets)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::try_from(peer.port).ok()?))
    }
}

/// A request, whole: the body has been read.
#[repr(C)]
#[derive(StableAbi)]
pub struct Request {
    method: Span,
    path: Span,
    query: Span,
    params: Many<Pair>,
    headers: Many<Pair>,
    body: Span,
    peer: Peer,
    owner: Owner,
}

/// What a request is made of; whoever makes one keeps all of it behind [`Request::new`].
pub struct RequestParts {
    /// `GET`, `POST`, ..
    pub method: http::Method,
    /// The path as it was sent, percent-encoded.
    pub path: String,
    /// What follows `?`, percent-encoded.
    pub query: String,
    /// The path's parameters by name, decoded.
    pub params: Vec<(String, String)>,
    /// All headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: bytes::Bytes,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
}

impl Request {
    /// Packs a request for the other side.
    #[must_use]
    pub fn new(parts: RequestParts) -> Self {
        let owner = Owner::of(Held { inner: (parts, Vec::<Pair>::new()), pairs: Vec::new() });
        // SAFETY: the owner was just made of a value of this very type and nobody else knows of it.
        let held = unsafe { &mut *owner.data.cast::<Held<(RequestParts, Vec<Pair>)>>() };
        let Held { inner: (parts, params), pairs: headers } = held;
        params.extend(parts.params.iter().map(|(name, value)| Pair::of(name, value.as_bytes())));
        headers.extend(parts.headers.iter().map(|(name, value)| Pair::of(name.as_str(), value.as_bytes())));
        Self {
            method: Span::of(parts.method.as_str().as_bytes()),
            path: Span::of(parts.path.as_bytes()),
            query: Span::of(parts.query.as_bytes()),
            params: Many::of(params),
            headers: Many::of(headers),
            body: Span::of(&parts.body),
            peer: parts.peer.into(),
            owner,
        }
    }

    /// `GET`, `POST`, ..
    #[must_use]
    pub fn method(&self) -> &str {
        // SAFETY: all spans of a request live in what `owner` owns.
        unsafe { self.method.text() }
    }

    /// The path as it was sent, percent-encoded.
    #[must_use]
    pub fn path(&self) -> &str {
        // SAFETY: all spans of a request live in what `owner` owns.
        unsafe { self.path.text() }
    }

    /// What follows `?`, percent-encoded.
    #[must_use]
    pub fn query(&self) -> &str {
        // SAFETY: all spans of a request live in what `owner` owns.
        unsafe { self.query.text() }
    }

    /// The path's parameters by name, decoded.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        // SAFETY: all spans of a request live in what `owner` owns.
        let params = unsafe { read_pairs(self.params) };
        params.map(|(name, value)| (name, std::str::from_utf8(value).unwrap_or_default()))
    }

    /// All headers, in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // SAFETY: all spans of a request live in what `owner` owns.
        unsafe { read_pairs(self.headers) }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        // SAFETY: all spans of a request live in what `owner` owns.
        unsafe { self.body.bytes() }
    }

    /// The other end of the connection.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer.into()
    }
}

/// A call's way to the host: whose call it is, and the functions that serve it.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Context {
    /// What the functions get. Counted: made by `context_clone`, freed by `context_release`.
    pub data: *const c_void,
    /// The host's functions; the host is never unmapped.
    pub host: HostRef,
}

/// Who is asking, as the host sees it.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Identity {
    /// The plugin's name; lives as long as the context.
    pub plugin: Span,
    /// The generation's number.
    pub generation: u64,
    /// Bits: the constants below.
    pub flags: u32,
}

impl Identity {
    /// The host is `midair dev`.
    pub const DEV: u32 = 1;
    /// The generation isn't published yet.
    pub const CANDIDATE: u32 = 2;
    /// The host is a probe.
    pub const PROBE: u32 = 4;
}

/// One operation on the state; see [`store::Op`](crate::store::Op), whose fields these are.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
#[allow(missing_docs, reason = "they are documented at `store::Op`")]
pub struct Op {
    pub kind: u32,
    pub schema: u32,
    pub expected: u64,
    pub flags: u32,
    pub number: i64,
    pub limit: u64,
    pub table: Span,
    pub key: Span,
    pub after: Span,
    pub bytes: Span,
}

/// One row of an answer; see [`store::Row`](crate::store::Row).
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
#[allow(missing_docs, reason = "they are documented at `store::Row`")]
pub struct Row {
    pub key: Span,
    pub bytes: Span,
    pub revision: u64,
    pub number: i64,
    pub schema: u32,
}

impl Row {
    fn copied(&self) -> store::Row {
        // SAFETY: the spans of a row live in what the outcome's owner owns, through which alone rows are reached.
        let key = unsafe { self.key.text() }.to_owned();
        // SAFETY: as above.
        let bytes = unsafe { self.bytes.bytes() }.to_vec();
        store::Row { key, bytes, revision: self.revision, number: self.number, schema: self.schema }
    }
}

impl Op {
    /// The spans of an operation; the caller sees to it that it outlives them.
    #[must_use]
    pub fn of(op: &store::Op<'_>) -> Self {
        Self {
            kind: op.kind as u32,
            schema: op.schema,
            expected: op.expected.unwrap_or_default(),
            flags: u32::from(op.expected.is_some()) | u32::from(op.after.is_some()) << 1,
            number: op.number,
            limit: op.limit as u64,
            table: Span::of(op.table.as_bytes()),
            key: Span::of(op.key.as_bytes()),
            after: Span::of(op.after.unwrap_or_default().as_bytes()),
            bytes: Span::of(op.bytes),
        }
    }

    /// The operation.
    ///
    /// # Errors
    ///
    /// The kind, if this side doesn't know it.
    ///
    /// # Safety
    ///
    /// What it was made of must be alive and unchanged for `'a`.
    pub unsafe fn read<'a>(&self) -> Result<store::Op<'a>, u32> {
        let kind = store::Kind::try_from(self.kind)?;
        // SAFETY: passed on to the caller.
        let [table, key, after] = [self.table, self.key, self.after].map(|span| unsafe { span.text::<'a>() });
        // SAFETY: passed on to the caller.
        let bytes = unsafe { self.bytes.bytes() };
        let expected = (self.flags & 1 != 0).then_some(self.expected);
        let after = (self.flags & 2 != 0).then_some(after);
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        Ok(store::Op { kind, table, key, after, limit, expected, schema: self.schema, number: self.number, bytes })
    }
}

/// What the host does for a plugin. Fields may be appended at the end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostRef)))]
#[sabi(missing_field(panic))]
pub struct Host {
    /// One more holder of the context.
    pub context_clone: unsafe extern "C" fn(context: *const c_void) -> *const c_void,
    /// One holder less.
    pub context_release: unsafe extern "C" fn(context: *const c_void),
    /// Whose context it is.
    pub identity: unsafe extern "C" fn(context: *const c_void) -> Identity,
    /// A line for the host's log; level 1 (error) to 5 (trace), text.
    pub log: unsafe extern "C" fn(context: *const c_void, level: u32, message: Span),
    /// Operations on the state, all or nothing.
    pub state: unsafe extern "C" fn(context: *const c_void, ops: Many<Op>) -> Outcome,
    /// Done after so many nanoseconds.
    pub sleep: unsafe extern "C" fn(context: *const c_void, nanoseconds: u64) -> Outcome,
    /// Another route of the host, in the snapshot of this context.
    #[sabi(last_prefix_field)]
    pub call: unsafe extern "C" fn(context: *const c_void, request: Request) -> Outcome,
}

/// A handler of a plugin.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Handler {
    /// One of the constants below.
    pub kind: u32,
    /// What the kind needs to know: of a route `method` and `path`; `name` of all.
    pub meta: Many<Pair>,
    /// What `call` gets; lives as long as the plugin.
    pub data: Address,
    /// Calls it. The context is given to the callee, who releases it.
    pub call: unsafe extern "C" fn(data: Address, context: Context, request: Request, waker: *const Waker) -> Outcome,
}

impl Handler {
    /// Answers requests.
    pub const ROUTE: u32 = 1;
}

/// A table that a plugin declares.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct TableDecl {
    /// Its name, text.
    pub name: Span,
    /// What `check` gets; lives as long as the plugin.
    pub data: Address,
    /// Decodes a value as the plugin would and drops it: `DONE`, `ERROR` with path and expectation, or `PANIC`.
    pub check: unsafe extern "C" fn(data: Address, bytes: Span) -> Outcome,
}

/// What a plugin tests about itself before it is published, in the probe alone.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct SelfTest {
    /// Its name, text.
    pub name: Span,
    /// What `run` gets; lives as long as the plugin.
    pub data: Address,
    /// Runs it: `DONE`, `ERROR` or `PANIC`. The context is given to the callee.
    pub run: unsafe extern "C" fn(data: Address, context: Context) -> Outcome,
}

/// A request that the probe makes, and the status that it has to be answered with.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Smoke {
    /// `GET`, `POST`, ..; text.
    pub method: Span,
    /// The path, with a query if there is one; text.
    pub target: Span,
    /// The status.
    pub status: u32,
}

/// A plugin, put together.
#[repr(C)]
#[derive(StableAbi)]
pub struct Built {
    /// As [`Outcome`]: `DONE` or `PANIC`.
    pub(crate) outcome: Outcome,
    /// Its handlers.
    pub(crate) handlers: Many<Handler>,
    /// Its tables.
    pub(crate) tables: Many<TableDecl>,
    /// Its self-tests.
    pub(crate) selftests: Many<SelfTest>,
    /// Its smokes.
    pub(crate) smokes: Many<Smoke>,
    /// Owns the above.
    pub(crate) owner: Owner,
}

impl Built {
    /// Whether it was put together, or why not.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What `init` gets.
    #[must_use]
    pub fn data(&self) -> *const c_void {
        self.owner.data()
    }

    /// The handlers.
    #[must_use]
    pub fn handlers(&self) -> &[Handler] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.handlers.items() }
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &[TableDecl] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.tables.items() }
    }

    /// The self-tests.
    #[must_use]
    pub fn selftests(&self) -> &[SelfTest] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.selftests.items() }
    }

    /// The smokes.
    #[must_use]
    pub fn smokes(&self) -> &[Smoke] {
        // SAFETY: they live in what `owner` owns, which lives as long as `self`.
        unsafe { self.smokes.items() }
    }
}

/// Who counts what a library leaves in the process; see the room `census`. It stays as long as the library is mapped.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Census {
    /// What the functions get.
    pub data: *const c_void,
    /// `pthread_create`.
    pub thread: unsafe extern "C" fn(
        data: *const c_void,
        id: *mut c_void,
        attributes: *const c_void,
        start: Address,
        argument: *mut c_void,
    ) -> i32,
    /// Keeps a destructor of this thread's with its object.
    pub destructor: unsafe extern "C" fn(data: *const c_void, destructor: Address, object: *mut c_void) -> i32,
    /// This thread has values under keys with destructors: they are to be swept.
    pub values: unsafe extern "C" fn(data: *const c_void),
    /// So many keys more.
    pub keys: unsafe extern "C" fn(data: *const c_void, more: i64),
    /// A panic outside of any call of the host's, or in a `Drop` that it set off.
    pub panicked: unsafe extern "C" fn(data: *const c_void, panic: Outcome),
}

// SAFETY: the host's functions may be called with its data from any thread.
unsafe impl Send for Census {}
// SAFETY: as above.
unsafe impl Sync for Census {}

/// How a library answers to the [`Census`].
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Enrolled {
    /// Not 0 if std's calls go past the census, so that its counts are false.
    pub is_blind: u32,
    /// How many threads, destructors and keys were made before: nobody counts them.
    pub early: u32,
    /// Runs a destructor that was kept.
    pub destroy: unsafe extern "C" fn(destructor: Address, object: *mut c_void),
    /// Destroys this thread's values, one round; how many there were.
    pub sweep: unsafe extern "C" fn() -> u32,
}

/// What a plugin exports. Fields may be appended at the end.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// The note's text; see [`manifest`](crate::manifest).
    pub manifest: extern "C" fn() -> Span,
    /// Runs the plugin's constructor function.
    pub build: extern "C" fn() -> Built,
    /// Runs the plugin's `init` hook, if it has one, to its end. The context is given to the callee.
    pub init: unsafe extern "C" fn(plugin: *const c_void, context: Context) -> Outcome,
    /// Lets the host count what the library leaves in the process. The first function that is called, and once.
    #[sabi(last_prefix_field)]
    pub attach: unsafe extern "C" fn(census: Census) -> Enrolled,
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "midair";
    const NAME: &'static str = "midair";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
