//! One of two plugins that share their host's routes: each variant has others.

use std::path::Path;

use midair_fixtures::word;
use midair_plugin::{Error, Plugin, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let plugin = Plugin::new();
    match word(0) {
        "a" => plugin
            .get("/a", |_, _| "a")
            .init(|_| if Path::new(word(1)).exists() { Err(Error::internal("poisoned")) } else { Ok(()) }),
        "a1" => plugin.get("/a", |_, _| "a1").get("/old", |_, _| "old"),
        "a2" => plugin.get("/a", |_, _| -> Result<&'static str> { Err(Error::internal("always")) }),
        "b" => plugin.get("/b", |_, _| "b"),
        "b1" => plugin.get("/b", |_, _| "b1"),
        "b2" => plugin.get("/b", |_, _| "b2").get("/new", |_, _| "new"),
        "b3" => plugin.get("/b", |_, _| "b3").get("/old", |_, _| "b3"),
        other => panic!("there is no variant {other:?}"),
    }
}
