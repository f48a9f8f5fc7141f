//! Starts a task that never ends with each request.

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().get("/", |_, ctx: midair_plugin::Ctx| {
        drop(ctx.spawn_free("waits", |_| std::future::pending::<()>()));
        midair_fixtures::variant()
    })
}
