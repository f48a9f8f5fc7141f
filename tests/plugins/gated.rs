//! Says the first word of its variant. Its start waits for the file `open` in the folder that is the second one, and fails if another one
//! starts meanwhile.

use std::fs;
use std::path::Path;

use midair_fixtures::word;
use midair_plugin::{Ctx, Plugin, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().init(init).get("/", |_, _| word(0))
}

fn init(ctx: Ctx) -> Result<()> {
    if ctx.is_probe() {
        return Ok(());
    }
    let gate = Path::new(word(1));
    fs::File::create_new(gate.join("here"))?;
    ctx.info("preparing");
    while !gate.join("open").exists() {
        std::thread::yield_now();
    }
    fs::remove_file(gate.join("here"))?;
    Ok(())
}
