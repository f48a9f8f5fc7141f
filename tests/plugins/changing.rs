//! A job that each variant has otherwise, and declarations that make no sense.

use std::time::Duration;

use midair_plugin::Plugin;

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    let every = |plugin: Plugin, period| plugin.every(period, "rank", |_| ());
    let task = |plugin: Plugin| plugin.task("rank", |_| async {});
    let plugin = Plugin::new();
    match midair_fixtures::variant() {
        "hourly" => every(plugin, Duration::from_secs(3600)),
        "often" => every(plugin, Duration::from_millis(3)),
        "no period" => every(plugin, Duration::ZERO),
        "two jobs" => every(every(plugin, Duration::from_secs(9)), Duration::from_secs(9)),
        "two tasks" => task(task(plugin)),
        "two tables" => plugin.table::<u64>("rank").table::<String>("rank"),
        _ => plugin,
    }
}
