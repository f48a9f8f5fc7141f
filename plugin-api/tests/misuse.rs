//! What does the compiler say to a plugin's author who got something wrong?
//!
//! Each file in `misuse/` that fails has a twin beside it that differs in the mistake alone and compiles: as a part of this test.

#![expect(dead_code, reason = "the twins are compiled, not run")]

use std::collections::BTreeSet;

macro_rules! twins {
    ($($name:ident = $path:literal;)+) => {
        $(#[path = $path] mod $name;)+
        const TWINS: &[&str] = &[$($path),+];
    };
}

twins! {
    answer = "misuse/answer_right.rs";
    arguments = "misuse/arguments_right.rs";
    export = "misuse/export_right.rs";
    question_mark = "misuse/question_mark_right.rs";
    send = "misuse/send_right.rs";
    table = "misuse/table_right.rs";
}

#[test]
fn a_mistake_is_told_in_the_authors_words() {
    // Nothing but mistakes: of these, what they depend on is checked and not built.
    trybuild::TestCases::new().compile_fail("tests/misuse/*_wrong.rs");
}

#[test]
fn each_mistake_has_a_twin_that_compiles() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/misuse")).expect("the folder of the mistakes");
    let names = files.map(|file| file.expect("one of its files").file_name().to_string_lossy().into_owned());
    let mistakes: BTreeSet<_> = names.filter_map(|name| Some(name.strip_suffix("_wrong.rs")?.to_owned())).collect();
    let name = |path: &&str| path.trim_start_matches("misuse/").trim_end_matches("_right.rs").to_owned();
    assert_eq!(mistakes, TWINS.iter().map(name).collect());
}
