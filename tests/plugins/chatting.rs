//! Says something in `init` and from a task, and takes both of whoever says them, but for one variant.

use midair_plugin::{Ctx, Plugin, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let plugin = Plugin::new().init(init);
    let plugin = (0..4).fold(plugin, |plugin, number| plugin.task(&format!("says {number}"), says));
    if midair_fixtures::variant() != "takes none" {
        plugin.on("by.init", |_: u64, _| ()).on("by.task", |_: u64, _| ())
    } else {
        plugin
    }
}

fn init(ctx: Ctx) -> Result<()> {
    ctx.emit("by.init", &1_u64).wait()
}

async fn says(ctx: Ctx) {
    for number in 0..5_u64 {
        ctx.emit("by.task", &number).await.expect("it is taken");
    }
}
