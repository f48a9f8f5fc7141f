//! An error with a cause that not everybody should read.

use midair_plugin::{Plugin, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| -> Result<String> { Ok("secret".parse::<u32>()?.to_string()) })
}
