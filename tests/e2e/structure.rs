//! Is the host built as ARCHITECTURE.md says?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use midair_tests::{edit_to_live, repository};

type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_core_alone_brings_no_runtime_no_http_server_no_watcher_and_no_command_line() {
    let args = ["tree", "-p", "midair", "--no-default-features", "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new("cargo").current_dir(repository::root()).args(args).output().expect("cargo starts");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("arc-swap") && names.contains("midair-plugin"), "it is the tree of the core: {names:?}");
    for unwanted in ["tokio", "axum", "hyper", "notify", "clap"] {
        let found: Vec<_> = names.iter().filter(|name| name.split('-').next() == Some(unwanted)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn the_library_a_plugin_depends_on_brings_no_runtime() {
    let args = ["tree", "-p", "midair-plugin", "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new("cargo").current_dir(repository::root()).args(args).output().expect("cargo starts");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.lines().any(|line| line.starts_with("serde ")), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!tree.lines().any(|line| line.starts_with("tokio")), "{tree}");
}

#[test]
fn the_arrows_between_the_rooms_of_the_host_are_those_of_architecture_md() {
    let told = told(&repository::read("ARCHITECTURE.md"));
    let found = found(&repository::root().join("host/src"));
    assert!(!told.is_empty(), "ARCHITECTURE.md has a section `## Arrows`");
    let mut wrong = Vec::new();
    for (room, uses) in &found {
        match told.get(room) {
            None => wrong.push(format!("the room `{room}` isn't in the section `## Arrows`")),
            Some(allowed) => {
                wrong.extend(uses.difference(allowed).map(|used| format!("`{room}` uses `{used}`, against the arrows")))
            }
        }
    }
    for (room, allowed) in &told {
        match found.get(room) {
            None => wrong.push(format!("the section `## Arrows` names `{room}`, which isn't there")),
            Some(uses) => wrong.extend(allowed.difference(uses).map(|unused| format!("`{room}` may use `{unused}`, but doesn't"))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the section `## Arrows` says: lines such as `- `room` -> `a`, `b``.
fn told(page: &str) -> Arrows {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix("Arrows\n")).unwrap_or_default();
    let names = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rooms = section.lines().filter(|line| line.starts_with("- `"));
    rooms
        .flat_map(|line| {
            let (rooms, uses) = line.split_once("->").unwrap_or((line, ""));
            names(rooms).into_iter().map(move |room| (room, names(uses).into_iter().collect()))
        })
        .collect()
}

/// Each room, a file or folder beside lib.rs, and the other rooms that its code names, tests apart.
fn found(source: &Path) -> Arrows {
    let mut arrows = Arrows::new();
    for entry in fs::read_dir(source).expect("the host's sources").flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        if matches!(name.as_str(), "lib" | "main") {
            continue;
        }
        let mut uses = BTreeSet::new();
        walk(&entry.path(), &mut |text| uses.extend(rooms_used(text)));
        uses.remove(&name);
        arrows.insert(name, uses);
    }
    arrows
}

fn walk(path: &Path, see: &mut impl FnMut(&str)) {
    if path.is_dir() {
        fs::read_dir(path).expect("a folder").flatten().for_each(|entry| walk(&entry.path(), see));
    } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
        see(&fs::read_to_string(path).expect("a source file"));
    }
}

/// The names behind `crate::` up to the tests, which close a file; comments apart.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut rooms = BTreeSet::new();
    for (place, mention) in code.match_indices("crate::") {
        let is_whole = !code[..place].ends_with(|before: char| before == '$' || before.is_alphanumeric() || before == '_');
        let rest = &code[place + mention.len()..];
        let items = match rest.strip_prefix('{') {
            Some(group) => at_depth_zero(group),
            None => vec![rest],
        };
        let name = |item: &str| item.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
        // Rooms are modules; what begins with a capital is an item that lib.rs names.
        rooms.extend(items.into_iter().filter(|_| is_whole).map(name).filter(|name| name.starts_with(char::is_lowercase)));
    }
    rooms
}

/// The items of `{a, b::{c, d}}` behind the first brace: `a`, `b::{c, d}`.
fn at_depth_zero(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(&group[start..place]);
                start = place + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items
}

#[test]
fn arrows_are_read_from_code_and_page() {
    let code = "
//! Of crate::nothing.
use crate::error::{Code, Error};
use crate::{event::Bus, swap::{Host, load::Library}};
use crate::Host;
fn f() { crate::build::go(); $crate::no(); mycrate::no(); }
#[cfg(test)]
mod tests { use crate::watch; }
";
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(rooms_used(code), names(&["error", "event", "swap", "build"]));
    let page = "# x\n## Arrows\nText.\n- `a` -> `b`, `c`\n- `b`\n## More\n- `d` -> `e`\n";
    assert_eq!(told(page), Arrows::from([("a".to_owned(), names(&["b", "c"])), ("b".to_owned(), names(&[]))]));
}

#[test]
fn the_bench_of_edit_to_live_still_runs() {
    let report = edit_to_live::measure(midair_tests::cargo::midair(), 4, &[]);
    assert!(report.contains("edit -> live") && report.contains("cargo build"), "{report}");
}
