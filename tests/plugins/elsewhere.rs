//! Says what its variant says behind the path, at that path.

use midair_fixtures::variant;

midair_plugin::export!(plugin);

fn plugin() -> midair_plugin::Plugin {
    let (path, text) = variant().split_once(' ').unwrap_or(("/", ""));
    midair_plugin::Plugin::new().get(path, move |_, _| text)
}
