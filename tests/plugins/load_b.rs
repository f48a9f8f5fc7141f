//! Tells its variant.

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().get("/b", |_, _| midair_fixtures::variant())
}
