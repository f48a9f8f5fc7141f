//! Do edits go live, and does building end, in projects that are built in unusual ways?

use std::fs;
use std::os::unix::fs::symlink;

use crate::dev::build::tests::{OWN_WORKSPACE, Yard};
use crate::dev::command::tests::Ledger;
use crate::dev::dev_loop::tests::develop;

const TIME: &str = "std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()";

/// A build script that says what it reads and writes `file` anew each time.
fn script(reads: &str, file: &str) -> String {
    format!(
        "fn main() {{ println!(\"cargo::rerun-if-changed={reads}\"); std::fs::write({file}, format!(\"pub const MADE: u128 = {{}};\", {TIME})).unwrap(); }}\n"
    )
}

fn number(code: &str) -> String {
    format!("#[unsafe(no_mangle)]\npub extern \"C\" fn number() -> u128 {{ {code} }}\n")
}

/// Nothing is built by itself after what was said last.
fn rests(ledger: &Ledger) {
    ledger.reload();
    ledger.expect(&["building shop: reload", "built", "swap shop"]);
}

#[test]
fn what_the_build_writes_is_no_source_though_its_folder_is_a_link() {
    let yard = Yard::new();
    yard.plugin("shop", OWN_WORKSPACE);
    fs::create_dir(yard.path("elsewhere")).expect("a folder");
    symlink(yard.path("elsewhere"), yard.path("shop/target")).expect("a link");
    yard.write("shop/build.rs", &script("src/lib.rs", "std::path::Path::new(&std::env::var(\"OUT_DIR\").unwrap()).join(\"made.rs\")"));
    let code = |more: &str| format!("include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n{}", number(&format!("MADE + {more}")));
    yard.write("shop/src/lib.rs", &code("1"));
    develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
        ledger.expect(&["building shop: start", "built", "swap shop"]);
        rests(ledger);
        yard.write("shop/src/lib.rs", &code("2"));
        ledger.expect(&["building shop: saved src/lib.rs", "built", "swap shop"]);
        rests(ledger);
    });
}

#[test]
fn a_build_script_that_writes_a_source_runs_for_what_it_reads_alone() {
    let yard = Yard::new();
    yard.plugin("shop", OWN_WORKSPACE);
    yard.write("shop/proto.txt", "1");
    yard.write("shop/src/made.rs", "pub const MADE: u128 = 0;");
    yard.write("shop/build.rs", &script("proto.txt", "\"src/made.rs\""));
    yard.write("shop/src/lib.rs", &format!("mod made;\n{}", number("made::MADE")));
    develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
        ledger.until("swap shop");
        for proto in ["2", "3"] {
            // What the script wrote is found dirty, during the build or after it, and built.
            ledger.reload();
            ledger.until("building shop: reload");
            ledger.until("swap shop");
            let made = || fs::read_to_string(yard.path("shop/src/made.rs")).expect("a source");
            let before = made();
            ledger.reload();
            ledger.until("building shop: reload");
            ledger.until("swap shop");
            assert_eq!(made(), before);
            yard.write("shop/proto.txt", proto);
            ledger.until("building shop: saved src/made.rs");
            ledger.until("swap shop");
            assert_ne!(made(), before);
        }
    });
}

#[test]
fn building_that_causes_itself_ends_after_five_builds_and_the_writer_is_named() {
    let yard = Yard::new();
    yard.plugin("shop", OWN_WORKSPACE);
    yard.write("shop/src/made.rs", "pub const MADE: u128 = 0;");
    // It runs in each build.
    yard.write("shop/build.rs", &script("no-such-file", "\"src/made.rs\""));
    let code = |more: &str| format!("mod made;\n{}", number(&format!("made::MADE + {more}")));
    yard.write("shop/src/lib.rs", &code("1"));
    develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
        for trigger in ["start", "saved src/lib.rs"] {
            ledger.until(&format!("building shop: {trigger}"));
            let mut builds = 0;
            let warning = loop {
                let next = ledger.next();
                match next.strip_prefix("warning ") {
                    Some(warning) => break warning.to_owned(),
                    None => builds += u32::from(next == "building shop: saved src/made.rs"),
                }
            };
            // Two of them are cancelled, as a person's edit would cancel them.
            assert!((5..=7).contains(&builds), "{builds}");
            assert_eq!(
                warning,
                "src/made.rs differs after each of 5 builds that nobody's edit caused, written by the build script of package `shop`: \
                 nothing more is built until a source is saved. What a build script makes belongs into OUT_DIR"
            );
            assert!(ledger.is_quiet());
            yard.write("shop/src/lib.rs", &code("2"));
        }
    });
}
