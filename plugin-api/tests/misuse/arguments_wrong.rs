use midair_plugin::{Plugin, Request};

async fn show(req: Request) -> String {
    req.path().to_owned()
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
