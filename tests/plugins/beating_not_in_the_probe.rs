//! A job that tells if it runs where code is only tried.

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().every(std::time::Duration::from_millis(2), "rank", rank).selftest("waits", waits)
}

fn rank(ctx: midair_plugin::Ctx) {
    if ctx.is_probe() {
        ctx.error("it beats");
    }
}

fn waits(ctx: midair_plugin::Ctx) -> midair_plugin::Result<()> {
    ctx.sleep(std::time::Duration::from_millis(50)).wait()
}
