use midair_plugin::{Ctx, Plugin, Request, Result};

fn show(req: Request, _: Ctx) -> Result<String> {
    Ok(req.header("accept")?.to_owned())
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
