use midair_plugin::{Ctx, Plugin, Request};

async fn show(req: Request, _: Ctx) -> String {
    req.path().to_owned()
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
