//! Who may ask the admin listener?
//!
//! A browser on this machine can be made to send requests here by any web page. A page that posts gives itself away by its `Origin`; one
//! that had its own name point at this address (DNS rebinding) by the name in `Host`. Beyond loopback a token is asked for. All this is
//! decided from headers alone, so it knows no socket.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::report::error::{Code, Error, Result};

/// The rules of one listener.
pub(super) struct Gate {
    token: Option<blake3::Hash>,
}

/// Why a request is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

impl Gate {
    /// The rules for a listener at `addr`.
    ///
    /// # Errors
    ///
    /// Wrong usage: an address that isn't loopback without a token, or an empty token.
    pub(super) fn new(addr: SocketAddr, token: Option<&str>) -> Result<Self> {
        let problem = match token {
            Some("") => "the admin token is empty",
            None if !addr.ip().is_loopback() => "the admin address can be reached from other machines, so it needs a token",
            _ => return Ok(Self { token: token.map(|token| blake3::hash(token.as_bytes())) }),
        };
        Err(Error::fatal(Code::Usage, addr.to_string(), problem)
            .help("set MIDAIR_ADMIN_TOKEN, or pass --admin-token TOKEN, or choose an address such as --admin 127.0.0.1:3001"))
    }

    /// Whether a request may pass. `/healthz` and `/readyz` need no token: they say nothing but yes or no.
    pub(super) fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> std::result::Result<(), Refusal> {
        let refuse = |status, reason| Err(Refusal { status, reason });
        let host = text(headers.get(header::HOST));
        if !host.is_some_and(names_no_domain) {
            return refuse(StatusCode::FORBIDDEN, "the Host header must be an ip address or localhost");
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && method != Method::GET
            && method != Method::HEAD
            && text(Some(origin)).and_then(|origin| origin.strip_prefix("http://")) != host
        {
            return refuse(StatusCode::FORBIDDEN, "web pages of other origins may not change anything here");
        }
        if let Some(token) = self.token
            && !matches!(path, "/healthz" | "/readyz")
            && bearer(headers).is_none_or(|given| blake3::hash(given.as_bytes()) != token)
        {
            // Hashes of equal length are compared, and blake3 compares them in constant time.
            return refuse(StatusCode::UNAUTHORIZED, "this needs the header `Authorization: Bearer TOKEN` with the right token");
        }
        Ok(())
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

fn names_no_domain(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    ip.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers.get(header::AUTHORIZATION))?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `request` is `METHOD PATH`, then `Name: value` by semicolon. Answers `200` for a pass.
    fn check(token: Option<&str>, request: &str) -> u16 {
        let mut parts = request.split("; ");
        let (method, path) = parts.next().expect("a request line").split_once(' ').expect("method and path");
        let headers = parts
            .map(|part| {
                let (name, value) = part.split_once(": ").expect("a header");
                (name.parse::<header::HeaderName>().expect("a name"), value.parse().expect("a value"))
            })
            .collect();
        let gate = Gate::new("127.0.0.1:3001".parse().expect("an address"), token).expect("a gate");
        gate.check(&method.parse().expect("a method"), path, &headers).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_name_in_host_is_refused_since_it_may_have_been_rebound() {
        for (host, status) in [
            ("127.0.0.1:3001", 200),
            ("localhost", 200),
            ("LOCALHOST:3001", 200),
            ("[::1]:3001", 200),
            ("10.0.0.7:80", 200),
            ("evil.example:3001", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("localhost@evil.example", 403),
            ("[::1", 403),
        ] {
            assert_eq!(check(None, &format!("GET /status; host: {host}")), status, "{host}");
        }
        assert_eq!(check(None, "GET /status"), 403, "no host at all");
    }

    #[test]
    fn a_post_of_another_origin_is_refused() {
        let post = "POST /reload; host: 127.0.0.1:3001";
        for (origin, status) in [
            ("http://127.0.0.1:3001", 200),
            ("http://127.0.0.1:3000", 403),
            ("https://127.0.0.1:3001", 403),
            ("http://evil.example", 403),
            ("null", 403),
        ] {
            assert_eq!(check(None, &format!("{post}; origin: {origin}")), status, "{origin}");
        }
        assert_eq!(check(None, post), 200, "no page sent it");
        assert_eq!(check(None, "GET /status; host: 127.0.0.1:3001; origin: null"), 200, "reading is kept from pages by browsers");
    }

    #[test]
    fn where_there_is_a_token_all_but_the_two_probes_need_it() {
        for (request, status) in [
            ("GET /status; host: 127.0.0.1", 401),
            ("GET /status; host: 127.0.0.1; authorization: Bearer sesame", 200),
            ("GET /status; host: 127.0.0.1; authorization: bearer sesame", 200),
            ("GET /status; host: 127.0.0.1; authorization: Bearer sesam", 401),
            ("GET /status; host: 127.0.0.1; authorization: Basic sesame", 401),
            ("GET /healthz; host: 127.0.0.1", 200),
            ("GET /readyz; host: 127.0.0.1", 200),
            ("GET /healthz; host: evil.example", 403),
        ] {
            assert_eq!(check(Some("sesame"), request), status, "{request}");
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
            let gate = Gate::new(addr.parse().expect("an address"), token);
            assert_eq!(gate.as_ref().err().map(Error::code), (!fine).then_some(Code::Usage), "{addr} {token:?}");
        }
    }
}
