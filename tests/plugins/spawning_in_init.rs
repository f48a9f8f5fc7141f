//! Spawns in `init` what writes into the file that its variant names second; the variant `bad` fails then.

use std::io::Write;

use midair_fixtures::word;
use midair_plugin::{Ctx, Error, Plugin, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| word(0)).init(init)
}

fn init(ctx: Ctx) -> Result<()> {
    drop(ctx.spawn_free("first", |ctx| async move {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(word(1)).expect("a file");
        writeln!(file, "{} {}", word(0), std::process::id()).expect("it can be written");
        ctx.info(format!("first ran on {}", word(0)));
    }));
    if word(0) == "bad" { Err(Error::internal("as asked")) } else { Ok(()) }
}
