//! Do edits go live, and does building end, in projects that are built in unusual ways?

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use crate::dev::build::Cancel;
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
    yard.write(
        "shop/build.rs",
        &script("src/lib.rs", "std::path::Path::new(&std::env::var(\"OUT_DIR\").unwrap()).join(\"made.rs\")"),
    );
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

/// Moves a file over another one, with a stamp from before anything was built.
fn move_over(yard: &Yard, path: &str, content: &str) {
    yard.write("draft", content);
    let draft = File::options().append(true).open(yard.path("draft")).expect("a file");
    draft.set_modified(SystemTime::now() - Duration::from_secs(100_000)).expect("a stamp");
    fs::rename(yard.path("draft"), yard.path(path)).expect("a rename");
}

/// The last library of that name holds a text.
fn holds(yard: &Yard, library: &str, text: &str) -> bool {
    let library = fs::read(yard.path(library)).expect("a library");
    library.windows(text.len()).any(|window| window == text.as_bytes())
}

fn text(code: &str) -> String {
    format!("#[unsafe(no_mangle)]\npub extern \"C\" fn text() -> *const u8 {{ ({code}).as_ptr() }}\n")
}

const SHOP: &str = "shop/target/midair/debug/libshop.so";

#[test]
fn a_source_with_an_older_stamp_that_came_while_nothing_watched_is_built() {
    let yard = Yard::new();
    yard.write("part/Cargo.toml", "[package]\nname = \"part\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n");
    yard.write("words.txt", "words-one");
    yard.plugin("shop", "part = { path = \"../part\" }\n[workspace]\n");
    let part = |word: &str| format!("pub const WORD: &str = \"part-{word}\";");
    let shop = |word: &str| {
        text(&format!("concat!(\"shop-{word}\", include_str!(\"../../words.txt\"))"))
            + "pub static PART: &str = part::WORD;\n#[unsafe(no_mangle)]\npub extern \"C\" fn part() -> *const u8 { std::hint::black_box(PART).as_ptr() }\n"
    };
    yard.write("part/src/lib.rs", &part("one"));
    yard.write("shop/src/lib.rs", &shop("one"));
    let start = |fresh: &str| {
        develop(yard.find(&["shop"]).expect("a plugin"), |ledger| ledger.until("swap shop"));
        for text in ["part", "shop", "words"].map(|what| format!("{what}-{fresh}")) {
            assert!(holds(&yard, SHOP, &text), "{text}");
        }
    };
    start("one");
    for (number, word) in ["two", "three"].into_iter().enumerate() {
        move_over(&yard, "part/src/lib.rs", &part(word));
        move_over(&yard, "shop/src/lib.rs", &shop(word));
        move_over(&yard, "words.txt", &format!("words-{word}"));
        // Another run is killed when cargo has built, say, and nothing was noted.
        if number == 1 {
            fs::remove_dir_all(yard.path("shop/target/midair/.midair-sources")).expect("a removal");
        }
        start(word);
    }
}

/// A plugin with a dependency that is replaced by a folder, though not in its manifest's list of dependencies.
fn patched(yard: &Yard) {
    yard.write("fix/Cargo.toml", &fix("one"));
    yard.write("fix/src/lib.rs", "pub const WORD: &str = concat!(\"fix-one \", env!(\"CARGO_PKG_DESCRIPTION\"));");
    yard.plugin("shop", "memo-map = \"0.3\"\n[patch.crates-io]\nmemo-map = { path = \"../fix\" }\n[workspace]\n");
    yard.write("shop/src/lib.rs", &text("memo_map::WORD"));
}

fn fix(description: &str) -> String {
    format!("[package]\nname = \"memo-map\"\nversion = \"0.3.3\"\nedition = \"2021\"\ndescription = \"described-{description}\"\n")
}

#[test]
fn a_patched_crate_is_watched_with_its_manifest_and_new_files_and_an_older_stamp_is_built() {
    let yard = Yard::new();
    patched(&yard);
    develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
        ledger.until("swap shop");
        assert!(holds(&yard, SHOP, "fix-one described-one"));
        yard.write("fix/Cargo.toml", &fix("two"));
        ledger.until("swap shop");
        assert!(holds(&yard, SHOP, "described-two"));
        move_over(&yard, "fix/src/lib.rs", "pub const WORD: &str = \"fix-two\";");
        ledger.until("swap shop");
        assert!(holds(&yard, SHOP, "fix-two"));
        yard.write("fix/src/word.rs", "pub const WORD: &str = ;");
        yard.write("fix/src/lib.rs", "mod word; pub use word::WORD;");
        ledger.until("rejected E_BUILD");
        yard.write("fix/src/word.rs", "pub const WORD: &str = \"fix-three\";");
        ledger.until("swap shop");
        assert!(holds(&yard, SHOP, "fix-three"));
    });
    move_over(&yard, "fix/src/word.rs", "pub const WORD: &str = \"fix-four\";");
    develop(yard.find(&["shop"]).expect("a plugin"), |ledger| ledger.until("swap shop"));
    assert!(holds(&yard, SHOP, "fix-four"));
}

#[test]
fn a_dependency_that_cargo_alone_makes_sense_of_is_built_and_watched() {
    for workspace in ["members = []", "members = [\"libs/odd\", \"tools/gone\"]"] {
        let yard = Yard::new();
        yard.write("other/Cargo.toml", &format!("[workspace]\n{workspace}\n"));
        yard.write("other/libs/odd/Cargo.toml", "[package]\nname = \"odd\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
        yard.write("other/libs/odd/src/lib.rs", "pub const WORD: &str = \"odd-one\";");
        yard.plugin("shop", "odd = { path = \"../other/libs/odd\" }\n[workspace]\n");
        yard.write("shop/src/lib.rs", &text("odd::WORD"));
        develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
            ledger.until("swap shop");
            assert!(holds(&yard, SHOP, "odd-one"), "{workspace}");
            move_over(&yard, "other/libs/odd/src/lib.rs", "pub const WORD: &str = \"odd-two\";");
            ledger.until("swap shop");
            assert!(holds(&yard, SHOP, "odd-two"), "{workspace}");
        });
    }
}

#[test]
fn a_file_from_elsewhere_that_a_failed_build_names_is_watched() {
    for (code, broken) in [
        ("include!(\"../../shared/word.rs\");", None),
        ("include!(\"../../shared/word.rs\");", Some("pub const WORD: &str = ;")),
        ("#[path = \"../../shared/word.rs\"] mod word; use word::WORD;", Some("pub const WORD: &str = 5;")),
        ("#[path = \"../../shared/word.rs\"] mod word; use word::WORD;", None),
        // The error is elsewhere than what mends it.
        ("include!(\"../../shared/word.rs\");", Some("pub const WORD: u32 = 5;")),
    ] {
        let yard = Yard::new();
        yard.plugin("shop", OWN_WORKSPACE);
        yard.write("shop/src/lib.rs", &format!("{code}\n{}", text("WORD")));
        fs::create_dir(yard.path("shared")).expect("a folder");
        broken.into_iter().for_each(|broken| yard.write("shared/word.rs", broken));
        develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
            ledger.until("rejected E_BUILD");
            // When that is said the files may not be watched yet.
            ledger.reload();
            ledger.until("rejected E_BUILD");
            yard.write("shared/word.rs", "pub const WORD: &str = \"mended\";");
            ledger.until("swap shop");
            assert!(holds(&yard, SHOP, "mended"), "{code} {broken:?}");
        });
    }
}

#[test]
fn an_included_file_is_watched_wherever_cargo_lists_files_relative_to() {
    let yard = Yard::new();
    yard.plugin("shop", OWN_WORKSPACE);
    yard.write("shop/.cargo/config.toml", "[build]\ndep-info-basedir = \"..\"\n");
    yard.write("words.txt", "words-one");
    yard.write("shop/src/lib.rs", &text("include_str!(\"../../words.txt\")"));
    develop(yard.find(&["shop"]).expect("a plugin"), |ledger| {
        ledger.until("swap shop");
        ledger.reload();
        ledger.until("swap shop");
        yard.write("words.txt", "words-two");
        ledger.until("swap shop");
        assert!(holds(&yard, SHOP, "words-two"));
    });
}

#[test]
fn plugins_whose_libraries_have_one_name_keep_their_own_code() {
    let yard = Yard::new();
    yard.write("w/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"3\"\n");
    for name in ["a", "b"] {
        yard.plugin(&format!("w/{name}"), "");
        let manifest = fs::read_to_string(yard.path(&format!("w/{name}/Cargo.toml"))).expect("a manifest");
        yard.write(&format!("w/{name}/Cargo.toml"), &manifest.replace("[lib]", "[lib]\nname = \"same\""));
        yard.write(&format!("w/{name}/src/lib.rs"), &text(&format!("\"of-{name}\"")));
    }
    let paths = ["w/target/midair/debug/libsame.so", "w/target/midair-b/debug/libsame.so"];
    develop(yard.find(&["w/a", "w/b"]).expect("two plugins"), |ledger| {
        ledger.expect(&["building a b: start", "built", "swap a b"]);
        assert!(holds(&yard, paths[0], "of-a") && holds(&yard, paths[1], "of-b"));
        yard.write("w/b/src/lib.rs", &text("\"edited-b\""));
        ledger.expect(&["building b: saved b/src/lib.rs", "built", "swap b"]);
        assert!(holds(&yard, paths[0], "of-a") && holds(&yard, paths[1], "edited-b"));
    });
}

#[test]
fn a_plugin_that_depends_on_another_one_is_told_why_it_cannot_be_linked() {
    let yard = Yard::new();
    yard.plugin("base", OWN_WORKSPACE);
    let manifest = fs::read_to_string(yard.path("base/Cargo.toml")).expect("a manifest");
    yard.write("base/Cargo.toml", &manifest.replace("[\"cdylib\"]", "[\"rlib\", \"cdylib\"]"));
    let exports = "#[unsafe(no_mangle)]\npub extern \"C\" fn one() -> u32 { 1 }\n";
    yard.write("base/src/lib.rs", &format!("{exports}#[inline(never)]\npub fn two() -> u32 {{ one() + 1 }}\n"));
    yard.plugin("top", "base = { path = \"../base\" }\n[workspace]\n");
    yard.write(
        "top/src/lib.rs",
        &format!("{exports}#[unsafe(no_mangle)]\npub extern \"C\" fn three() -> u32 {{ base::two() + 1 }}\n"),
    );
    let mut project = yard.find(&["top"]).expect("a plugin");
    let built = project.build(&["top".to_owned()].into(), &Cancel::default(), &mut |_| {});
    let error = built.expect_err("two of one name");
    assert!(error.reason().contains("linking with"), "{error:?}");
    let help = error.help_text().unwrap_or_default();
    assert!(help.starts_with("plugin `top` depends on plugin `base`, and a library can hold one plugin"), "{help}");
}
