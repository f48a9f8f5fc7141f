//! Who may ask the admin listener?
//!
//! Those who bear the token. A browser on this machine can be made to send requests here by any web page, and so can a server that asks for what
//! its clients name. A page gives itself away by its `Origin`; one that had its own name point at this address (DNS rebinding) by the name in
//! `Host`. All this is decided from headers alone, so it knows no socket.

use std::net::{IpAddr, SocketAddr};

use http::header::HeaderName;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::report::error::{Code, Error, Result};

/// The rules of one listener.
pub(super) struct Gate {
    addr: SocketAddr,
    /// Without one nobody can show who he is, and only the two probes are answered.
    token: Option<blake3::Hash>,
}

/// Why a request is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

/// Whether a listener at `addr` may have this token, of those that users give.
///
/// # Errors
///
/// Wrong usage: an address that isn't loopback without a token, or an empty token.
pub(super) fn fits(addr: SocketAddr, token: Option<&str>) -> Result<()> {
    let problem = match token {
        Some("") => "the admin token is empty",
        None if !addr.ip().is_loopback() => "the admin address can be reached from other machines, so it needs a token",
        _ => return Ok(()),
    };
    Err(Error::fatal(Code::Usage, addr.to_string(), problem)
        .help("set MIDAIR_ADMIN_TOKEN, or pass --admin-token TOKEN, or choose an address such as --admin 127.0.0.1:3001"))
}

impl Gate {
    /// The rules for a listener that has this very address.
    pub(super) fn new(addr: SocketAddr, token: Option<&str>) -> Self {
        Self { addr, token: token.map(|token| blake3::hash(token.as_bytes())) }
    }

    /// Whether a request may pass. `/healthz` and `/readyz` need no token: they say nothing but yes or no.
    pub(super) fn check(&self, path: &str, headers: &HeaderMap) -> std::result::Result<(), Refusal> {
        let refuse = |status, reason: &str| Err(Refusal { status, reason: reason.to_owned() });
        let host = only(headers, &header::HOST);
        if !host.is_some_and(|host| self.is_own(host)) {
            return refuse(
                StatusCode::FORBIDDEN,
                &format!("the Host header must be this listener's own address, such as {}", self.addr),
            );
        }
        if headers.contains_key(header::ORIGIN)
            && only(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://")) != host
        {
            return refuse(StatusCode::FORBIDDEN, "web pages of other origins may not ask here");
        }
        if matches!(path, "/healthz" | "/readyz") {
            return Ok(());
        }
        let Some(token) = self.token else {
            return refuse(
                StatusCode::FORBIDDEN,
                "this host couldn't leave a token in its data folder: restart it with MIDAIR_ADMIN_TOKEN set",
            );
        };
        // Hashes of equal length are compared, and blake3 compares them in constant time.
        if bearer(headers).is_none_or(|given| blake3::hash(given.as_bytes()) != token) {
            return refuse(StatusCode::UNAUTHORIZED, "this needs the header `Authorization: Bearer TOKEN` with the right token");
        }
        Ok(())
    }

    /// Whether this is the address that is listened at. Which others lead to one that stands for all of a machine can't be known: there
    /// it is enough that it is no name.
    fn is_own(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host();
        let ip = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>().ok();
        let is_localhost = name.eq_ignore_ascii_case("localhost");
        if self.addr.ip().is_unspecified() {
            return ip.is_some() || is_localhost;
        }
        let is_here = ip.map_or_else(|| is_localhost && self.addr.ip().is_loopback(), |ip| ip == self.addr.ip());
        is_here && authority.port_u16().unwrap_or(80) == self.addr.port()
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    text(all.next()).filter(|_| all.next().is_none())
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers.get(header::AUTHORIZATION))?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `request` is a path, then `Name: value` by semicolon. Answers `200` for a pass.
    fn check(addr: &str, token: Option<&str>, request: &str) -> u16 {
        let mut parts = request.split("; ");
        let path = parts.next().expect("a path");
        let mut headers = HeaderMap::new();
        for part in parts {
            let (name, value) = part.split_once(": ").expect("a header");
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        let gate = Gate::new(addr.parse().expect("an address"), token);
        gate.check(path, &headers).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn the_host_is_to_be_the_own_address() {
        for (addr, host, status) in [
            ("127.0.0.1:3001", "127.0.0.1:3001", 200),
            ("127.0.0.1:3001", "LOCALHOST:3001", 200),
            ("127.0.0.1:3001", "localhost", 403),
            ("127.0.0.1:3001", "127.0.0.1:3000", 403),
            ("127.0.0.1:3001", "127.0.0.2:3001", 403),
            ("127.0.0.1:3001", "10.0.0.7:3001", 403),
            ("127.0.0.1:3001", "[::1]:3001", 403),
            ("127.0.0.1:3001", "evil.example:3001", 403),
            ("127.0.0.1:3001", "127.0.0.1.evil.example:3001", 403),
            ("127.0.0.1:3001", "localhost.evil.example:3001", 403),
            ("127.0.0.1:3001", "127.0.0.1:3001@evil.example", 403),
            ("127.0.0.1:3001", "evil.example@127.0.0.1:3001", 403),
            ("127.0.0.1:3001", "[::1", 403),
            ("127.0.0.1:3001", "127.0.0.1:3001; host: 127.0.0.1:3001", 403),
            ("127.0.0.1:80", "127.0.0.1", 200),
            ("[::1]:3001", "[::1]:3001", 200),
            ("[::1]:3001", "localhost:3001", 200),
            ("10.0.0.7:3001", "10.0.0.7:3001", 200),
            ("10.0.0.7:3001", "localhost:3001", 403),
            ("0.0.0.0:3001", "10.0.0.7:3001", 200),
            ("0.0.0.0:3001", "10.0.0.7:8001", 200),
            ("0.0.0.0:3001", "evil.example:3001", 403),
        ] {
            assert_eq!(check(addr, None, &format!("/healthz; host: {host}")), status, "{addr} {host}");
        }
        assert_eq!(check("127.0.0.1:3001", None, "/healthz"), 403, "no host at all");
    }

    #[test]
    fn whatever_a_page_of_another_origin_asks_is_refused() {
        let asks = "/healthz; host: 127.0.0.1:3001";
        for (origin, status) in [
            ("http://127.0.0.1:3001", 200),
            ("http://127.0.0.1:3000", 403),
            ("http://localhost:3001", 403),
            ("https://127.0.0.1:3001", 403),
            ("http://evil.example", 403),
            ("null", 403),
            ("http://127.0.0.1:3001; origin: http://127.0.0.1:3001", 403),
        ] {
            assert_eq!(check("127.0.0.1:3001", None, &format!("{asks}; origin: {origin}")), status, "{origin}");
        }
        assert_eq!(check("127.0.0.1:3001", None, asks), 200, "no page sent it");
    }

    #[test]
    fn all_but_the_two_probes_need_the_token_and_without_one_nobody_has_it() {
        for (token, request, status) in [
            (Some("sesame"), "/status", 401),
            (Some("sesame"), "/status; authorization: Bearer sesame", 200),
            (Some("sesame"), "/status; authorization: bearer sesame", 200),
            (Some("sesame"), "/status; authorization: Bearer sesam", 401),
            (Some("sesame"), "/status; authorization: Basic sesame", 401),
            (Some("sesame"), "/healthz", 200),
            (Some("sesame"), "/readyz", 200),
            (None, "/healthz", 200),
            (None, "/readyz", 200),
            (None, "/status", 403),
            (None, "/status; authorization: Bearer ", 403),
        ] {
            assert_eq!(check("127.0.0.1:3001", token, &format!("{request}; host: 127.0.0.1:3001")), status, "{request}");
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        for (addr, token, fine) in [
            ("127.0.0.1:0", None, true),
            ("[::1]:0", None, true),
            ("0.0.0.0:0", None, false),
            ("0.0.0.0:0", Some("sesame"), true),
            ("192.168.1.2:0", Some(""), false),
            ("127.0.0.1:0", Some(""), false),
        ] {
            let fits = fits(addr.parse().expect("an address"), token);
            assert_eq!(fits.as_ref().err().map(Error::code), (!fine).then_some(Code::Usage), "{addr} {token:?}");
        }
    }
}
