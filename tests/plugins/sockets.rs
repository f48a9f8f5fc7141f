//! WebSockets with state, rooms and streams; variant 3 has no `/gone`.

use midair_fixtures::variant;
use midair_plugin::{Closed, Conn, Ctx, Error, Message, Pinned, Plugin, Result, Socket, StatusCode};
use serde::{Deserialize, Serialize};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let plugin = Plugin::new()
        .get("/len/{room}", |req: midair_plugin::Request, ctx: Ctx| async move {
            Ok::<_, Error>(ctx.room(&req.param::<String>("room")?).len().await?.to_string())
        })
        .socket("/chat/{room}", Socket::new().open(open).message(message).close(close))
        .socket_pinned("/stream", stream);
    if variant() != "3" { plugin.socket("/gone", Socket::new().message(message).close(close)) } else { plugin }
}

#[derive(Default, Serialize, Deserialize)]
struct Seen {
    messages: u64,
}

async fn open(conn: Conn, _: Ctx) -> Result<StatusCode> {
    let room: String = conn.request().param("room")?;
    match room.as_str() {
        "forbidden" => Err(Error::new(StatusCode::UNAUTHORIZED, "not for you")),
        "broken" => panic!("in open"),
        "stuck" => std::future::pending().await,
        _ => {
            conn.join(&room).await?;
            Ok(StatusCode::OK)
        }
    }
}

async fn message(conn: Conn, message: Message, ctx: Ctx) -> Result<()> {
    let mut seen = conn.state::<Seen>().get().await?.unwrap_or_default();
    seen.messages += 1;
    conn.state::<Seen>().put(&seen).await?;
    let room: String = conn.request().param("room").unwrap_or_default();
    let Ok(text) = message.text() else { return conn.send(message).await };
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "panic" => panic!("in message"),
        "fail" => Err(Error::internal("on purpose")),
        "all" => ctx.room(&room).except(conn.id()).send(format!("{} {rest}", variant())).await.map(drop),
        "close" => {
            conn.send("last").await?;
            conn.close(4001, rest).await
        }
        // Each waits until somebody says so, and says nothing.
        "hold" => {
            while ctx.counter("gate").get().await? == 0 {
                ctx.sleep(std::time::Duration::from_millis(2)).await?;
            }
            Ok(())
        }
        "release" => ctx.counter("gate").add(1).await.map(drop),
        // Large messages to a room until nobody in it takes any more.
        "flood" => {
            let mut sent = 0;
            while ctx.room(rest).send(vec![7; 64 << 10]).await? > 0 && sent < 10_000 {
                sent += 1;
            }
            conn.send(format!("{sent}")).await
        }
        "stuck" => {
            conn.send("before").await?;
            std::future::pending().await
        }
        "fill" => {
            for _ in 0..500 {
                conn.send(vec![7; 64 << 10]).await?;
            }
            ctx.info("filled");
            Ok(())
        }
        _ => conn.send(format!("{} {} {text}", variant(), seen.messages)).await,
    }
}

async fn close(conn: Conn, closed: Closed, ctx: Ctx) -> Result<()> {
    let seen = conn.state::<Seen>().get().await?.unwrap_or_default();
    let in_rooms = ctx.room(&conn.request().param::<String>("room").unwrap_or_default()).len().await?;
    ctx.info(format!("closed {} {:?} after {}, {in_rooms} left", closed.code, closed.reason, seen.messages));
    if closed.code == 4002 { std::future::pending().await } else { Ok(()) }
}

async fn stream(socket: Pinned, ctx: Ctx) -> Result<()> {
    while let Some(message) = socket.recv().await? {
        if message == Message::from("end") {
            return Ok(());
        }
        socket.send(format!("{} {}", variant(), message.text()?)).await?;
    }
    ctx.info("the stream ended");
    Ok(())
}
