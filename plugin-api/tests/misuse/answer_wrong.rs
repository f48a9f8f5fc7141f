use midair_plugin::{Ctx, Plugin, Request};

struct Link {
    url: String,
}

async fn show(_: Request, _: Ctx) -> Link {
    Link { url: "https://example.org".to_owned() }
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
