use midair_plugin::Plugin;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new().get("/", |_, _| "hello")
}

fn main() {}
