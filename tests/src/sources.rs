//! Which files of a crate name which others?
//!
//! Read from the text of its sources, tests apart: `use` trees and paths, resolved to the file that they lead to. A folder's `mod.rs` stands for the
//! folder; what it only re-exports of the files in it is no arrow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of a crate.
pub struct Module {
    /// Its text up to its tests.
    pub code: String,
}

/// The files of a crate below `lib.rs` and `main.rs`, by module path: `resources/state` for `resources/state/mod.rs`.
pub type Modules = BTreeMap<PathBuf, Module>;

/// Which file names which.
pub type Arrows = BTreeSet<(PathBuf, PathBuf)>;

/// Reads the files below `source`; files named `tests.rs` are left out.
///
/// # Panics
///
/// If they can't be read.
#[must_use]
pub fn modules(source: &Path) -> Modules {
    let mut modules = Modules::new();
    collect(source, source, &mut modules);
    modules
}

fn collect(root: &Path, folder: &Path, modules: &mut Modules) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, modules);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let within = path.strip_prefix(root).expect("it lies there").with_extension("");
            let name = match within.file_name().and_then(|name| name.to_str()) {
                Some("lib" | "main" | "tests") => continue,
                Some("mod") => within.parent().expect("a file lies in a folder").to_owned(),
                _ => within,
            };
            modules.insert(name, Module { code: without_tests(&fs::read_to_string(&path).expect("a source file")) });
        }
    }
}

/// What stands before a file's modules of tests.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_test = line.starts_with("#[cfg(test") || line.starts_with("#[cfg(all(test");
        let opens = lines.peek().is_some_and(|next| next.contains("mod ") && next.contains('{'));
        if is_test && opens {
            break;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// The arrows between these files.
#[must_use]
pub fn arrows(modules: &Modules) -> Arrows {
    let mut arrows = Arrows::new();
    for (from, module) in modules {
        let code: String =
            module.code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
        for (path, is_exported) in paths(&code) {
            let to = resolve(modules, from, &path);
            let inside = |to: &PathBuf| is_exported && to.starts_with(from);
            arrows.extend(to.filter(|to| to != from && !inside(to)).map(|to| (from.clone(), to)));
        }
    }
    arrows
}

/// The paths in this code, each with whether it is only re-exported.
fn paths(code: &str) -> Vec<(Vec<String>, bool)> {
    let (mut found, mut rest, mut line_start) = (Vec::new(), String::new(), true);
    // Statements of `use` are trees; all else is read word by word.
    let mut at = 0;
    while at < code.len() {
        let tail = &code[at..];
        if line_start && let Some((exported, tree, length)) = use_statement(tail) {
            found.extend(expand(tree).into_iter().map(|path| (path, exported)));
            at += length;
            continue;
        }
        let letter = tail.chars().next().unwrap_or_default();
        line_start = letter == '\n' || (line_start && letter == ' ');
        rest.push(letter);
        at += letter.len_utf8();
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = rest.split(|c: char| !is_word(c) && c != '$' && c != '.');
    for word in words.filter(|word| word.contains("::") && !word.starts_with(['$', '.', ':'])) {
        // Behind a point there is a method, before it a value.
        let path = word.rsplit('.').next().unwrap_or_default();
        let path: Vec<String> = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if path.len() > 1 {
            found.push((path, false));
        }
    }
    found
}

/// A `use` at the start of this text: whether it is `pub`, its tree, and its length.
fn use_statement(text: &str) -> Option<(bool, &str, usize)> {
    let (exported, behind) = match text.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => (true, rest.split_once(") ")?.1),
        Some(rest) => (true, rest.strip_prefix(' ')?),
        None => (false, text),
    };
    let tree = behind.strip_prefix("use ")?;
    let end = tree.find(';')?;
    Some((exported, &tree[..end], text.len() - tree.len() + end + 1))
}

/// The paths of a `use` tree: `a::{b, c::{self, d}}` has `a::b`, `a::c::self` and `a::c::d`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((before, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|name| name.trim().to_owned()).collect()];
    };
    let prefix: Vec<String> = before.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = &group[start..at];
                start = at + 1;
                if !item.trim().is_empty() {
                    paths.extend(expand(item).into_iter().map(|path| [prefix.clone(), path].concat()));
                }
            }
            _ => {}
        }
    }
    paths
}

/// The file that a path in the file `from` leads to, if it is one of these.
fn resolve(modules: &Modules, from: &Path, path: &[String]) -> Option<PathBuf> {
    let mut names = path.iter().map(String::as_str).peekable();
    let mut to = match *names.peek()? {
        "crate" => PathBuf::new(),
        "self" | "super" => from.to_owned(),
        child if modules.contains_key(&from.join(child)) => from.to_owned(),
        _ => return None,
    };
    for name in names {
        match name {
            "crate" | "self" => {}
            "super" => drop(to.pop()),
            name if modules.contains_key(&to.join(name)) => to.push(name),
            // What the folder's own file has, or a name that only `lib.rs` knows.
            _ => break,
        }
    }
    modules.contains_key(&to).then_some(to)
}

/// The sets of files that name each other, directly or by way of others.
#[must_use]
pub fn circles(arrows: &Arrows) -> Vec<BTreeSet<PathBuf>> {
    let reach = |start: &PathBuf, forward: bool| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(at) = next.pop() {
            for (from, to) in arrows {
                let (here, there) = if forward { (from, to) } else { (to, from) };
                if *here == at && seen.insert(there.clone()) {
                    next.push(there.clone());
                }
            }
        }
        seen
    };
    let mut circles = Vec::new();
    let mut done = BTreeSet::new();
    for (start, _) in arrows {
        if done.insert(start.clone()) {
            let circle: BTreeSet<PathBuf> = reach(start, true).intersection(&reach(start, false)).cloned().collect();
            done.extend(circle.iter().cloned());
            if !circle.is_empty() {
                circles.push(circle);
            }
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Modules {
        files.iter().map(|(path, text)| (PathBuf::from(path), Module { code: without_tests(text) })).collect()
    }

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        arrows(&modules(files)).iter().map(|(from, to)| format!("{} -> {}", from.display(), to.display())).collect()
    }

    #[test]
    fn arrows_are_read_from_trees_and_paths_and_not_from_tests_and_comments() {
        let code = "
//! Of crate::ground.
use std::fmt;
use crate::report::{event::Bus, error::{self, Error}};
fn f() { crate::sys::now(); x.super_it(); $crate::ground::no(); mycrate::ground(); }
#[cfg(test)]
mod tests { use crate::swap; }
";
        let files =
            [("a", code), ("ground", ""), ("report", ""), ("report/event", ""), ("report/error", ""), ("sys", ""), ("swap", "")];
        assert_eq!(found(&files), ["a -> report/error", "a -> report/event", "a -> sys"]);
    }

    #[test]
    fn a_folder_stands_for_what_it_re_exports_and_its_files_may_name_it() {
        let files = [
            ("probe", "mod child;\npub(crate) use child::run;\n"),
            ("probe/child", "use super::Probe;\nuse super::wire::{self, Line};\n"),
            ("probe/wire", ""),
            ("host", "fn f() { probe::no(); }\nuse crate::probe::run;\n"),
        ];
        assert_eq!(found(&files), ["host -> probe", "probe/child -> probe", "probe/child -> probe/wire"]);
        let calls = [("probe", "mod child;\nfn f() { child::run(); }\n"), ("probe/child", "use super::Probe;\n")];
        assert_eq!(found(&calls), ["probe -> probe/child", "probe/child -> probe"]);
    }

    #[test]
    fn circles_are_found_however_long() {
        let round = [("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "use crate::a::A;\nuse crate::d::D;"), ("d", "")];
        let names = ["a", "b", "c"].map(PathBuf::from);
        assert_eq!(circles(&arrows(&modules(&round))), [BTreeSet::from(names)]);
        assert!(circles(&arrows(&modules(&round[..2]))).is_empty());
    }
}
