//! Which handler answers a method and a path?
//!
//! A table is built whole, beside the one that serves, and is never changed. What clashes is told by both handlers' names.

use std::collections::BTreeMap;
use std::fmt;

/// A route as its plugin declares it.
#[derive(Clone, Debug)]
pub(crate) struct Route<T> {
    /// `GET`, `POST`, ..
    pub method: String,
    /// Literal segments, `{name}` for one segment, `{*rest}` for all that follow.
    pub path: String,
    /// How the handler is told apart in messages, such as `shop::create`.
    pub name: String,
    /// What answers.
    pub target: T,
}

/// The method of WebSockets in a table. No request can have it.
pub(crate) const UPGRADE: &str = "GET to upgrade";

/// All routes of a snapshot.
pub(crate) struct RouteTable<T> {
    router: matchit::Router<Vec<(String, T)>>,
}

/// What a method and a path lead to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// A handler, with the path's parameters by name, still percent-encoded.
    Handler(T, Vec<(String, String)>),
    /// Only a WebSocket is taken here.
    Upgrade,
    /// The path is known, the method isn't; the value of `Allow`.
    OtherMethods(String),
    /// Nothing answers here.
    Nothing,
}

/// Two handlers can't both be reached, or a path can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clash(String);

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Copy> RouteTable<T> {
    /// A table of all `routes`.
    ///
    /// # Errors
    ///
    /// Names the two routes that clash, or the one whose path can't be read.
    pub(crate) fn build(routes: impl IntoIterator<Item = Route<T>>) -> Result<Self, Clash> {
        let mut paths: BTreeMap<String, Vec<Route<T>>> = BTreeMap::new();
        for route in routes {
            let told = |route: &Route<T>| format!("{} {} of {}", route.method, route.path, route.name);
            if route.method != UPGRADE && (route.method.is_empty() || !route.method.bytes().all(|byte| byte.is_ascii_uppercase())) {
                return Err(Clash(format!("{}: a method is written in capitals, such as GET", told(&route))));
            }
            if !route.path.starts_with('/') {
                return Err(Clash(format!("{}: a path starts with /", told(&route))));
            }
            let here = paths.entry(route.path.clone()).or_default();
            if let Some(other) = here.iter().find(|other| other.method == route.method) {
                return Err(Clash(format!("{} and {} are the same route", told(other), told(&route))));
            }
            here.push(route);
        }
        let mut router = matchit::Router::new();
        for (path, routes) in &paths {
            let methods = routes.iter().map(|route| (route.method.clone(), route.target)).collect();
            router.insert(path, methods).map_err(|error| {
                let told = |path: &str| match paths.get(path).and_then(|routes| routes.first()) {
                    Some(route) => format!("{} of {}", route.path, route.name),
                    None => path.to_owned(),
                };
                match error {
                    matchit::InsertError::Conflict { with } => {
                        Clash(format!("{} and {} can't be told apart", told(&with), told(path)))
                    }
                    other => Clash(format!("{}: {other}", told(path))),
                }
            })?;
        }
        Ok(Self { router })
    }

    /// What answers `method` on `path`, which is percent-encoded. HEAD is answered by what answers GET.
    pub(crate) fn find(&self, method: &str, path: &str) -> Found<T> {
        let Ok(found) = self.router.at(path) else { return Found::Nothing };
        let by_method = |wanted: &str| found.value.iter().find(|(method, _)| method == wanted);
        let target = by_method(method).or_else(|| if method == "HEAD" { by_method("GET") } else { None });
        match target {
            Some((_, target)) => {
                Found::Handler(*target, found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            }
            None if (method == "GET" || method == "HEAD") && by_method(UPGRADE).is_some() => Found::Upgrade,
            None => {
                let mut methods: Vec<&str> =
                    found.value.iter().map(|(method, _)| method.as_str()).filter(|method| *method != UPGRADE).collect();
                if methods.contains(&"GET") {
                    methods.push("HEAD");
                }
                methods.push("OPTIONS");
                methods.sort_unstable();
                methods.dedup();
                Found::OtherMethods(methods.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[&str]) -> Result<RouteTable<usize>, String> {
        let route = |(target, text): (usize, &&str)| {
            let (method, path) = text.rsplit_once(' ').expect("a method and a path");
            Route { method: method.to_owned(), path: path.to_owned(), name: format!("h{target}"), target }
        };
        RouteTable::build(routes.iter().enumerate().map(route)).map_err(|clash| clash.to_string())
    }

    #[test]
    fn the_most_literal_route_answers() {
        let table = table(&["GET /", "GET /{slug}", "GET /stats", "POST /links", "GET /files/{*rest}"]).expect("a table");
        let handler = |target, params: &[(&str, &str)]| {
            Found::Handler(target, params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        for (request, found) in [
            ("GET /", handler(0, &[])),
            ("GET /stats", handler(2, &[])),
            ("GET /a%20b", handler(1, &[("slug", "a%20b")])),
            ("HEAD /stats", handler(2, &[])),
            ("GET /files/a/b", handler(4, &[("rest", "a/b")])),
            ("GET /a/b", Found::Nothing),
            ("POST /stats", Found::OtherMethods("GET, HEAD, OPTIONS".to_owned())),
            ("OPTIONS /links", Found::OtherMethods("OPTIONS, POST".to_owned())),
        ] {
            let (method, path) = request.split_once(' ').expect("a method and a path");
            assert_eq!(table.find(method, path), found, "{request}");
        }
    }

    #[test]
    fn a_socket_has_a_route_of_its_own_beside_that_of_get() {
        let table =
            table(&["GET to upgrade /chat/{room}", "GET to upgrade /both", "GET /both", "POST /chat/{room}"]).expect("a table");
        let params =
            |params: &[(&str, &str)]| params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(table.find(UPGRADE, "/chat/a"), Found::Handler(0, params(&[("room", "a")])));
        assert_eq!(table.find("GET", "/chat/a"), Found::Upgrade);
        assert_eq!(table.find("HEAD", "/chat/a"), Found::Upgrade);
        assert_eq!(table.find("PUT", "/chat/a"), Found::OtherMethods("OPTIONS, POST".to_owned()));
        assert_eq!(table.find(UPGRADE, "/both"), Found::Handler(1, params(&[])));
        assert_eq!(table.find("GET", "/both"), Found::Handler(2, params(&[])));
        let clash = self::table(&["GET to upgrade /a", "GET to upgrade /a"]).err();
        assert_eq!(clash.as_deref(), Some("GET to upgrade /a of h0 and GET to upgrade /a of h1 are the same route"));
    }

    #[test]
    fn a_clash_names_both_handlers() {
        let told = |routes| table(routes).err().unwrap_or_default();
        assert_eq!(told(&["GET /a", "GET /a"]), "GET /a of h0 and GET /a of h1 are the same route");
        assert_eq!(told(&["GET /{a}", "POST /{b}"]), "/{a} of h0 and /{b} of h1 can't be told apart");
        assert_eq!(told(&["GET a"]), "GET a of h0: a path starts with /");
        assert_eq!(told(&["get /"]), "get / of h0: a method is written in capitals, such as GET");
        assert!(told(&["GET /{a"]).starts_with("/{a of h0: "));
    }
}
