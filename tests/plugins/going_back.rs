//! Says its variant, and fails when it is asked to.

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new()
        .get("/", |_, _| midair_fixtures::variant())
        .get("/fail", |_, _| -> midair_plugin::Result<()> { Err(midair_plugin::Error::internal("always")) })
}
