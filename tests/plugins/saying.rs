//! Says its variant at `/`.

use midair_fixtures::variant;

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    midair_plugin::Plugin::new().get("/", |_, _| variant())
}
