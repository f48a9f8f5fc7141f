use midair_plugin::{Ctx, Json, Plugin, Request};
use serde::Serialize;

#[derive(Serialize)]
struct Link {
    url: String,
}

async fn show(_: Request, _: Ctx) -> Json<Link> {
    Json(Link { url: "https://example.org".to_owned() })
}

fn main() {
    let _ = Plugin::new().get("/", show);
}
