//! What does the compiler say to a plugin's author who got something wrong?
//!
//! Each file in `misuse/` that fails has a twin beside it that differs in the mistake alone and compiles.

#[test]
fn a_mistake_is_told_in_the_authors_words_and_its_twin_compiles() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/misuse/*_wrong.rs");
    cases.pass("tests/misuse/*_right.rs");
}
