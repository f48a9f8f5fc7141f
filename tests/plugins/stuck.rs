//! Handlers that never return, at once or after a pause.

use midair_plugin::{Ctx, Plugin, Request};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| midair_fixtures::variant()).get("/stuck", stuck).get("/stuck-later", stuck_later)
}

fn stuck(_: Request, ctx: Ctx) -> &'static str {
    ctx.info("stuck");
    loop {
        std::hint::spin_loop()
    }
}

async fn stuck_later(_: Request, ctx: Ctx) -> &'static str {
    let _ = ctx.sleep(std::time::Duration::from_millis(1)).await;
    ctx.info("stuck");
    loop {
        std::hint::spin_loop()
    }
}
