//! Counts the messages of each WebSocket, and sends numbered events; says its variant with each.

use midair_fixtures::variant;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use midair_plugin::sse::{Event, Sse};
use midair_plugin::{Conn, Ctx, IntoResponse, Message, Plugin, Request, Result, Socket, Stream};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .socket("/count", Socket::new().message(count))
        .get("/events", |_: Request, ctx: Ctx| Sse::new(Events { ctx, sent: 0, pause: None }).into_response())
        .post("/end", |_: Request, ctx: Ctx| ctx.counter("end").add(1).wait().map(|_| ()))
}

/// Numbered events, until the end.
struct Events {
    ctx: Ctx,
    sent: u64,
    pause: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
}

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        if let Some(pause) = &mut self.pause
            && pause.as_mut().poll(context)?.is_pending()
        {
            return Poll::Pending;
        }
        if self.ctx.counter("end").get().wait()? > 0 {
            return Poll::Ready(None);
        }
        self.sent += 1;
        self.pause = Some(Box::pin(self.ctx.clone().sleep(Duration::from_millis(100))));
        Poll::Ready(Some(Ok(Event::new(format!("{} {}", variant(), self.sent)))))
    }
}

async fn count(conn: Conn, message: Message, _: Ctx) -> Result<()> {
    let seen = conn.state::<u64>().get().await?.unwrap_or(0) + 1;
    conn.state::<u64>().put(&seen).await?;
    conn.send(format!("{} {} {seen}", variant(), message.text()?)).await
}
