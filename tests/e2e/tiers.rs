//! Is everything run that isn't run each time?

use std::fs;

use midair_tests::repository;

/// The tests of a source file that are ignored: their names and why.
fn ignored(source: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = source.lines().collect();
    let is_ignored = |line: &str| line.trim_start().strip_prefix("#[ignore = \"")?.strip_suffix("\"]").map(str::to_owned);
    let name = |at: usize| lines[at..].iter().find_map(|line| Some(line.trim_start().strip_prefix("fn ")?.split_once('(')?.0));
    let each = lines.iter().enumerate().filter_map(|(at, line)| Some((name(at)?.to_owned(), is_ignored(line)?)));
    each.collect()
}

#[test]
fn what_is_ignored_is_run_by_tests_long_or_says_who_runs_it() {
    let long = repository::read("tests/long");
    let names: Vec<&str> = long.split_whitespace().collect();
    let files = fs::read_dir(repository::root().join("tests/e2e")).expect("a folder").flatten();
    let mut count = 0;
    for path in files.map(|file| file.path()) {
        let module = path.file_stem().and_then(|stem| stem.to_str()).expect("a plain name").to_owned();
        for (test, why) in ignored(&fs::read_to_string(&path).expect("a source file")) {
            let test = format!("{module}::{test}");
            let Some(name) = why.strip_prefix("tests/long ") else {
                assert_eq!(why, "a part of fault_2, which starts it in children", "{test}");
                continue;
            };
            assert!(names.contains(&format!("{name})").as_str()), "{test} is to be run by `tests/long {name}`, which there is not");
            assert!(names.iter().any(|prefix| prefix.contains("::") && test.starts_with(prefix)), "tests/long runs no {test}");
            count += 1;
        }
    }
    assert!(count > 0, "the pattern finds them");
}
