//! A job that panics in one of its variants.

use std::time::Duration;

use midair_fixtures::variant;
use midair_plugin::Plugin;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().every(Duration::from_millis(2), "rank", |_| assert!(variant() != "panics", "on purpose"))
}
