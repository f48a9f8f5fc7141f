//! How do the handlers of WebSockets behave, without a host?

use midair_plugin::test::App;
use midair_plugin::{Closed, Conn, Ctx, Message, Pinned, Plugin, Request, Result, Socket, StatusCode};

async fn open(conn: Conn, _: Ctx) -> Result<StatusCode> {
    if conn.request().header("authorization").is_none() {
        return Ok(StatusCode::UNAUTHORIZED);
    }
    conn.join(&conn.request().param::<String>("room")?).await?;
    Ok(StatusCode::OK)
}

async fn message(conn: Conn, message: Message, ctx: Ctx) -> Result<()> {
    let seen = conn.state::<u64>().get().await?.unwrap_or(0) + 1;
    conn.state::<u64>().put(&seen).await?;
    if message == Message::from("bye") {
        return conn.close(4000, "as you wish").await;
    }
    let to = ctx.room("blue").except(conn.id()).send(message).await?;
    conn.send(format!("{seen} to {to} of {}", ctx.room("blue").len().await?)).await
}

fn close(conn: Conn, closed: Closed, ctx: Ctx) {
    let seen = conn.state::<u64>().get().wait().expect("it is there");
    ctx.info(format!("{} {} after {seen:?}", closed.code, closed.reason));
}

fn chat() -> App {
    App::new(Plugin::new().socket("/chat/{room}", Socket::new().open(open).message(message).close(close)))
}

fn enter(app: &App) -> midair_plugin::test::TestSocket {
    let request = Request::build("GET", "/chat/blue").header("authorization", "yes").finish();
    app.open(request).expect("it is accepted")
}

#[test]
fn a_socket_keeps_its_state_and_its_rooms_and_hears_of_its_end() {
    let app = chat();
    let (one, two) = (enter(&app), enter(&app));
    one.send("hello");
    two.send(vec![7_u8]);
    assert_eq!(one.received(), [Message::from("1 to 1 of 2"), Message::from(vec![7])]);
    assert_eq!(two.received(), [Message::from("hello"), Message::from("1 to 1 of 2")]);
    two.send("bye");
    assert_eq!(two.closed(), Some(Closed { code: 4000, reason: "as you wish".to_owned() }));
    one.send("alone");
    assert_eq!(one.received(), [Message::from("2 to 0 of 1")]);
    let gone = app.ctx().socket(two.id()).send("late").wait().expect_err("it has ended");
    assert_eq!(gone.status(), 410);
    two.close(1000, "");
    one.close(1000, "done");
    let log: Vec<String> = app.log().into_iter().map(|(_, line)| line).collect();
    assert_eq!(log, ["4000 as you wish after Some(2)", "1000 done after Some(2)"]);
}

#[test]
fn a_socket_is_refused_as_its_handler_says_and_where_there_is_none() {
    let app = chat();
    let status = |target| app.open(Request::build("GET", target).finish()).expect_err("it is refused").status();
    assert_eq!((status("/chat/blue"), status("/nowhere")), (StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND));
}

#[test]
fn a_pinned_socket_receives_until_the_end() {
    async fn sum(socket: Pinned, ctx: Ctx) -> Result<()> {
        let mut sum = 0;
        while let Some(message) = socket.recv().await? {
            sum += message.text()?.parse::<i32>()?;
            socket.send(sum.to_string()).await?;
        }
        ctx.info(format!("{sum} in the end"));
        Ok(())
    }
    let app = App::new(Plugin::new().socket_pinned("/sum", sum));
    let socket = app.socket("/sum");
    socket.send("3");
    socket.send("4");
    assert_eq!(socket.received(), [Message::from("3"), Message::from("7")]);
    socket.close(1000, "");
    assert_eq!(app.log()[0].1, "7 in the end");
    let broken = app.socket("/sum");
    broken.send("no number");
    assert_eq!(broken.closed().map(|closed| closed.code), Some(1011));
}
