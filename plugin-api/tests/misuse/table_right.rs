use midair_plugin::Plugin;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Link;

fn main() {
    let _ = Plugin::new().table::<Link>("links");
}
