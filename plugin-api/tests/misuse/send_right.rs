use std::sync::Arc;
use std::time::Duration;

use midair_plugin::{Ctx, Plugin, Request, Result};

async fn show(_: Request, ctx: Ctx) -> Result<String> {
    let text = Arc::new("held across an await".to_owned());
    ctx.sleep(Duration::from_millis(1)).await?;
    Ok(text.to_string())
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
