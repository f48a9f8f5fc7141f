//! What becomes of bodies in pieces? Seen through `test::App`, as plugin authors see it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use midair_plugin::sse::{Event, Sse};
use midair_plugin::test::App;
use midair_plugin::{Ctx, Error, File, IntoResponse, Plugin, Request, Response, Result, StatusCode, Stream};

/// What is in it, then the end.
struct Given<T>(VecDeque<T>);

impl<T: Unpin> Stream for Given<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn given<T: Unpin, const N: usize>(items: [T; N]) -> Given<T> {
    Given(items.into())
}

fn plugin() -> Plugin {
    Plugin::new()
        .get("/two", |_, _| (StatusCode::CREATED, [("x-own", "yes")], Response::stream(given([Ok::<_, Error>("one "), Ok("two")]))))
        .get("/broken", |_, _| Response::stream(given([Ok("one"), Err(Error::internal("no more"))])))
        .get("/events", |_, _| Sse::new(given([Ok::<_, Error>(Event::new("a")), Ok(Event::new("b").id("2"))])))
        .get("/file", |_, _| File::open("/srv/manual.pdf"))
        .post("/sizes", sizes)
        .streamed()
        .post("/whole", |req: Request, _| req.body().len().to_string())
        .post("/pass/{to}", pass)
        .streamed()
}

async fn sizes(mut req: Request, _: Ctx) -> Result<String> {
    let mut sizes = Vec::new();
    while let Some(piece) = req.chunk().await? {
        sizes.push(piece.len());
    }
    Ok(format!("{sizes:?}"))
}

async fn pass(mut req: Request, ctx: Ctx) -> Result<impl IntoResponse> {
    let to = format!("/{}", req.param::<String>("to")?);
    ctx.call(Request::build("POST", &to).stream(req.body_stream()).finish()?).await
}

#[test]
fn a_streamed_answer_comes_in_pieces_or_as_one() {
    let app = App::new(plugin());
    let answer = app.get("/two");
    assert_eq!(
        (answer.status(), answer.headers()["x-own"].to_str().ok(), answer.text().as_str()),
        (StatusCode::CREATED, Some("yes"), "")
    );
    assert_eq!(answer.bytes().wait().expect("a body"), "one two");
    let broken = app.get("/broken").bytes().wait().expect_err("it breaks off");
    assert_eq!(broken.to_string(), "no more");
    assert_eq!(app.get("/events").bytes().wait().expect("events"), "data: a\n\ndata: b\nid: 2\n\n");
    let file = app.get("/file");
    assert_eq!(file.file_path().and_then(|path| path.to_str()), Some("/srv/manual.pdf"));
    assert!(file.bytes().wait().is_err(), "the host reads it");
}

#[test]
fn a_streamed_request_comes_as_it_is_sent_and_another_one_whole() {
    let app = App::new(plugin());
    let post =
        |to: &str| app.send(Request::build("POST", to).stream(given([Ok::<_, Error>("four"), Ok("seventy")])).finish()).text();
    assert_eq!((post("/sizes"), post("/whole")), ("[4, 7]".to_owned(), "11".to_owned()));
    assert_eq!((post("/pass/sizes"), post("/pass/whole")), ("[4, 7]".to_owned(), "11".to_owned()));
    let whole = app.send(Request::build("POST", "/sizes").body("whole").finish());
    assert_eq!(whole.text(), "[5]", "what is there comes as one piece");
    let broken = given([Ok("four"), Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, "enough"))]);
    let answer = app.send(Request::build("POST", "/pass/sizes").stream(broken).finish());
    assert_eq!((answer.status().as_u16(), answer.text().as_str()), (413, "enough"));
}

#[test]
#[should_panic(expected = "write the route first")]
fn what_is_said_of_no_route_is_told() {
    drop(Plugin::new().streamed());
}
