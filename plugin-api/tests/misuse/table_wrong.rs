use midair_plugin::Plugin;

struct Link;

fn main() {
    let _ = Plugin::new().table::<Link>("links");
}
