//! Emits and asks a service where there is nobody.

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().on("said", said).selftest("speaks", speaks)
}

fn said(_: u32, ctx: midair_plugin::Ctx) {
    ctx.error("it is heard");
}

fn speaks(ctx: midair_plugin::Ctx) -> midair_plugin::Result<()> {
    ctx.emit("said", &1).wait()?;
    ctx.service("mailer").call::<_, ()>(&1).wait()
}
