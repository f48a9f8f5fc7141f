use midair_plugin::{Ctx, Error, Plugin, Request, Result};

fn show(req: Request, _: Ctx) -> Result<String> {
    Ok(req.header("accept").ok_or_else(|| Error::bad_request("no accept"))?.to_owned())
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
