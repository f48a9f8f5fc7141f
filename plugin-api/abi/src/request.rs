//! What does a handler get?

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use abi_stable::StableAbi;

use crate::memory::{Held, Many, Owner, Pair, Span, read_pairs};
use crate::outcome::{Outcome, PollFn, Waker};

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

/// A request. Its body has been read, or is to be asked for in pieces.
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
    /// Owns the above.
    owner: Owner,
    /// Owns what `poll` polls. It may outlive the request.
    rest: Owner,
    /// Asks for the next piece of the body, if it comes in pieces.
    poll: Option<unsafe extern "C" fn(data: *mut c_void, waker: *const Waker) -> Outcome>,
}

/// What a request is made of, in the types of the side that makes it. [`Request::new`] keeps it and points into it.
pub trait Parts: Send + 'static {
    /// `GET`, `POST`, ..
    fn method(&self) -> &str;
    /// The path as it was sent, percent-encoded.
    fn path(&self) -> &str;
    /// What follows `?`, percent-encoded.
    fn query(&self) -> &str;
    /// The path's parameters by name, decoded.
    fn params(&self) -> impl Iterator<Item = (&str, &str)>;
    /// All headers.
    fn headers(&self) -> impl Iterator<Item = (&str, &[u8])>;
    /// The body.
    fn body(&self) -> &[u8];
    /// The other end of the connection.
    fn peer(&self) -> Option<SocketAddr>;
}

impl Request {
    /// Packs a request for the other side.
    #[must_use]
    pub fn new<P: Parts>(parts: P) -> Self {
        let owner = Owner::of(Held { inner: (parts, Vec::<Pair>::new()), pairs: Vec::new() });
        // SAFETY: the owner was just made of a value of this very type and nobody else knows of it.
        let held = unsafe { &mut *owner.data().cast::<Held<(P, Vec<Pair>)>>() };
        let Held { inner: (parts, params), pairs: headers } = held;
        params.extend(parts.params().map(|(name, value)| Pair::of(name, value.as_bytes())));
        headers.extend(parts.headers().map(|(name, value)| Pair::of(name, value)));
        Self {
            method: Span::of(parts.method().as_bytes()),
            path: Span::of(parts.path().as_bytes()),
            query: Span::of(parts.query().as_bytes()),
            params: Many::of(params),
            headers: Many::of(headers),
            body: Span::of(parts.body()),
            peer: parts.peer().into(),
            owner,
            rest: Owner::NONE,
            poll: None,
        }
    }

    /// This request with a body that comes in pieces.
    pub(crate) fn followed_by(mut self, (rest, poll): (Owner, PollFn)) -> Self {
        self.rest = rest;
        self.poll = Some(poll);
        self
    }

    /// What gives the body in pieces, if it comes so; once.
    pub(crate) fn take_rest(&mut self) -> Option<(Owner, PollFn)> {
        let poll = self.poll.take()?;
        Some((std::mem::replace(&mut self.rest, Owner::NONE), poll))
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

    /// The body, unless it comes in pieces.
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
