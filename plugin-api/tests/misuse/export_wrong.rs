use midair_plugin::Plugin;

midair_plugin::export!(plugin);

fn plugin(name: &str) -> Plugin {
    Plugin::new().get(name, |_, _| "hello")
}

fn main() {}
