//! What does a request get?
//!
//! From a method and a path to an HTTP answer, whoever carries it: admission, the route, the handler, and what the host says itself
//! where no handler does. No sockets here, no runtime and no time.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use midair_abi::stream::Pieces;

use crate::call::body::Body;
use crate::call::context::Reaches;
use crate::call::invocation::{Answer, Call};
use crate::call::refusal::{self, NoRoute};
use crate::call::request::RequestParts;
use crate::live::comparison::{Sample, Side};
#[cfg(feature = "http")]
use crate::live::generation::Generation;
use crate::live::lease::Lease;
use crate::live::slot::Slot;
use crate::live::snapshot::{Compared, Snapshot, Target};
#[cfg(feature = "http")]
use crate::plugin::exports::HandlerInfo;

/// An answer whose body may still lie in the plugin's memory, or is still to be made; it holds what that needs.
pub(crate) type Answered = Response<Body>;

/// The body of a request.
pub(crate) enum Asked {
    /// It has been read.
    Whole(Bytes),
    /// The handler asks for it piece by piece.
    #[cfg(feature = "http")]
    InPieces(Pieces),
}

/// A request that was admitted to a snapshot and has a handler there.
pub(crate) struct Admitted {
    call: Arc<Call>,
    params: Vec<(String, String)>,
}

/// Admits a request to what serves now: from here on it sees one snapshot, whatever is published.
///
/// # Errors
///
/// The answer of the host itself, where no handler is to be asked.
pub(crate) fn admit(slot: &Slot, method: &Method, path: &str) -> Result<Admitted, Box<Answered>> {
    let lease = slot.admit();
    if lease.snapshot().generations().is_empty() {
        return Err(Box::new(own(StatusCode::SERVICE_UNAVAILABLE, "no plugin serves yet")));
    }
    match refusal::routed(lease.snapshot(), method.as_str(), path) {
        Ok((target, params)) => match lease.snapshot().compared(target) {
            None => Ok(Admitted { call: Call::admit(lease, target), params }),
            Some(compared) => Ok(drawn(compared, (lease, target, params), method, path)),
        },
        Err(NoRoute::OtherMethods(allow)) => Err(Box::new(other_methods(method, &allow))),
        Err(NoRoute::Upgrade) => Err(Box::new(upgrade(path))),
        Err(NoRoute::NotText) => Err(Box::new(own(StatusCode::BAD_REQUEST, "the path isn't UTF-8"))),
        Err(no_route) => Err(Box::new(own(no_route.status(), &no_route.text(path)))),
    }
}

/// Admits a request to one of two codes that are being compared, by lot, if the one before has a handler for it too.
fn drawn(
    Compared { comparison, back }: Compared,
    (lease, target, params): (Lease<Snapshot>, Target, Vec<(String, String)>),
    method: &Method,
    path: &str,
) -> Admitted {
    let plugin = |snapshot: &Snapshot, target: Target| snapshot.generations()[target.generation].plugin().to_owned();
    let before = refusal::routed(&back, method.as_str(), path).ok();
    // Where it leads to another plugin now, that one isn't what is compared.
    let before = before.filter(|(before, _)| plugin(&back, *before) == plugin(lease.snapshot(), target));
    let Some((before, before_params)) = before else { return Admitted { call: Call::admit(lease, target), params } };
    let sample = Sample::draw(comparison);
    match sample.side() {
        Side::New => Admitted { call: Call::admit_sample(lease, target, sample), params },
        Side::Before => Admitted { call: Call::admit_sample(Lease::on(back), before, sample), params: before_params },
    }
}

impl Admitted {
    /// A request that was admitted elsewhere, to upgrade.
    #[cfg(feature = "http")]
    pub(crate) fn of(call: Arc<Call>, params: Vec<(String, String)>) -> Self {
        Self { call, params }
    }

    /// Whose handler it is.
    #[cfg(feature = "http")]
    pub(crate) fn generation(&self) -> &Generation {
        self.call.generation()
    }

    /// What the handler says about itself.
    #[cfg(feature = "http")]
    pub(crate) fn handler(&self) -> Option<&HandlerInfo> {
        self.call.info()
    }

    /// The call, to tell what became of it.
    #[cfg(feature = "http")]
    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Runs the handler. Dropping the future drops the handler's, on its own generation's code.
    pub(crate) async fn answer(self, head: request::Parts, body: Asked, peer: Option<SocketAddr>) -> Answered {
        let Self { call, params } = self;
        let (body, rest): (Bytes, Option<Pieces>) = match body {
            Asked::Whole(body) => (body, None),
            #[cfg(feature = "http")]
            Asked::InPieces(rest) => (Bytes::new(), Some(rest)),
        };
        let dev = call.generation().host().dev;
        let parts = RequestParts {
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            method: head.method,
            params,
            headers: head.headers,
            body,
            peer,
        };
        let shown = |text: String| if dev { text } else { "internal error".to_owned() };
        match call.invoke(parts, rest).await {
            Answer::Response(reply) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                for (name, value) in reply.headers() {
                    // What HTTP doesn't allow can't come from this crate's friendly layer; another's is left out.
                    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
                        && !is_framing(&name)
                    {
                        response.headers_mut().append(name, value);
                    }
                }
                response.map(|()| Body::of(reply))
            }
            Answer::Error { status, text } => {
                own(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &shown(text))
            }
            Answer::Panic(text) => own(StatusCode::INTERNAL_SERVER_ERROR, &shown(format!("the handler panicked: {text}"))),
        }
    }
}

/// Answers a request within this process.
pub(crate) async fn answer(slot: &Slot, request: Request<Bytes>) -> Answered {
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let answered = match admit(slot, &head.method, head.uri.path()) {
        Ok(admitted) => admitted.answer(head, Asked::Whole(body), None).await,
        Err(refusal) => *refusal,
    };
    if is_head { without_body(answered) } else { answered }
}

/// An answer with all of its body; one that breaks off, or isn't there, is an error in its place.
pub(crate) async fn gathered(answered: Answered) -> Response<Bytes> {
    let (head, body) = answered.into_parts();
    // The usual one, which waits for nothing.
    if let Body::Whole(body) = body {
        return Response::from_parts(head, body);
    }
    match Box::pin(body.gather()).await {
        Ok(body) => Response::from_parts(head, body),
        Err(broken) => {
            let status = StatusCode::from_u16(broken.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            own(status, &broken.to_string()).map(|body| if let Body::Whole(body) = body { body } else { Bytes::new() })
        }
    }
}

/// An answer without its body, as HEAD has it; its length stays told where it is known. A stream ends here.
pub(crate) fn without_body(mut answered: Answered) -> Answered {
    let bodiless = answered.status() == StatusCode::NO_CONTENT || answered.status() == StatusCode::NOT_MODIFIED;
    if let Body::Whole(body) = answered.body()
        && !bodiless
    {
        let length = HeaderValue::from(body.len());
        answered.headers_mut().insert(CONTENT_LENGTH, length);
    }
    answered.map(|_| Bytes::new().into())
}

/// An answer of the host itself.
pub(crate) fn own(status: StatusCode, text: &str) -> Answered {
    let mut response = Response::new(Body::Whole(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// 426.
fn upgrade(path: &str) -> Answered {
    let mut response = own(NoRoute::Upgrade.status(), &NoRoute::Upgrade.text(path));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// 405, or the answer to OPTIONS.
fn other_methods(method: &Method, allow: &str) -> Answered {
    let mut response = if *method == Method::OPTIONS {
        let mut response = Response::new(Body::Whole(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        own(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} isn't answered here, only {allow}"))
    };
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Whether a header says where an answer ends or what becomes of its connection. That is for whoever writes it: one that a handler copied
/// from elsewhere would cut this answer short, or run into the next.
fn is_framing(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE].contains(name) || name == "keep-alive"
}
