//! Does it hold with a real cargo?

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use expect_test::{Expect, expect};

use super::*;
use crate::error::Code;

/// A folder with cargo projects that goes with the test.
pub(crate) struct Yard(PathBuf);

impl Yard {
    pub(crate) fn new() -> Yard {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let name = format!("midair-build-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let yard = Yard(fs::canonicalize(std::env::temp_dir()).expect("a temp folder").join(name));
        yard.write("api/Cargo.toml", "[package]\nname = \"midair-plugin\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n");
        yard.write("api/src/lib.rs", "");
        yard
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// A plugin in `folder` with a workspace of its own unless `extra` says otherwise.
    pub(crate) fn plugin(&self, folder: &str, extra: &str) {
        let name = Path::new(folder).file_name().expect("a name").display();
        let up = "../".repeat(folder.split('/').count());
        self.write(
            &format!("{folder}/Cargo.toml"),
            &format!(
                "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nmidair-plugin = {{ path = \"{up}api\" }}\n{extra}"
            ),
        );
        self.write(&format!("{folder}/src/lib.rs"), "#[unsafe(no_mangle)]\npub extern \"C\" fn one() -> u32 { 1 }\n");
    }

    pub(crate) fn find(&self, paths: &[&str]) -> Result<Project, crate::error::Error> {
        let paths: Vec<_> = paths.iter().map(|path| self.path(path)).collect();
        Project::find(&paths, &Options { cargo_args: vec!["--offline".into()], ..Options::default() })
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) const OWN_WORKSPACE: &str = "[workspace]\n";

fn all(project: &Project) -> BTreeSet<String> {
    project.plugins().into_iter().collect()
}

fn build(project: &mut Project) -> String {
    let (wanted, mut said) = (all(project), Vec::new());
    let built = project.build(&wanted, &Cancel::default(), &mut |diagnostic| said.push(diagnostic.level));
    let told = match built {
        Ok(Some(products)) => products
            .iter()
            .map(|product| format!("{} {}", product.plugin, if product.fresh { "fresh" } else { "compiled" }))
            .collect::<Vec<_>>()
            .join(", "),
        Ok(None) => "cancelled".into(),
        Err(error) => format!("{} {}: {}", error.code(), error.subject(), error.reason()),
    };
    [vec![told], said].concat().join(" | ")
}

fn refused(yard: &Yard, paths: &[&str], expected: &Expect) {
    let Err(error) = yard.find(paths) else { panic!("{paths:?} is no plugin") };
    assert_eq!(error.code(), Code::Usage);
    let text = format!("{error}\n{}", error.help_text().unwrap_or_default());
    expected.assert_eq(&text.replace(&yard.0.display().to_string(), "/yard"));
}

#[test]
fn what_is_no_plugin_is_refused_with_the_reason() {
    let yard = Yard::new();
    yard.write("w/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"3\"\n");
    yard.plugin("w/a", "");
    yard.plugin("w/b", "");
    yard.write("broken/Cargo.toml", "[package\n");
    yard.write("file.txt", "");
    refused(
        &yard,
        &["w"],
        &expect![[r#"
        /yard/w: there are 2 plugins in this workspace: `a`, `b`
        say which:

            midair dev /yard/w/a
            midair dev /yard/w/b

        or serve several at once:

            midair dev /yard/w/a /yard/w/b
    "#]],
    );
    refused(
        &yard,
        &["api"],
        &expect![[r#"
            /yard/api: package `midair-plugin` is no plugin: it builds no cdylib and doesn't depend on midair-plugin
            a plugin is a package with this in its Cargo.toml:

                [lib]
                crate-type = ["cdylib"]

                [dependencies]
                midair-plugin = { path = "path/to/midair/plugin-api" }
        "#]],
    );
    refused(
        &yard,
        &["file.txt"],
        &expect![[r#"
        /yard/file.txt: is neither the folder of a package nor a Cargo.toml
    "#]],
    );
    refused(
        &yard,
        &["nowhere"],
        &expect![[r#"
        /yard/nowhere: can't be opened
    "#]],
    );
    let Err(error) = yard.find(&["broken"]) else { panic!("it is broken") };
    assert!(error.to_string().contains("unclosed table"), "{error}");
}

#[test]
fn the_way_of_a_plugin_through_edits() {
    let yard = Yard::new();
    yard.write("part/Cargo.toml", "[package]\nname = \"part\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n");
    yard.write("part/src/lib.rs", "pub const TWO: u32 = 2;\n");
    yard.plugin("shop", "part = { path = \"../part\" }\n[workspace]\n");
    yard.write("my words.txt", "hello");
    let body = |body: &str| format!("#[unsafe(no_mangle)]\npub extern \"C\" fn one() -> u32 {{ {body} }}\n");
    yard.write("shop/src/lib.rs", &body("part::TWO + include_str!(\"../../my words.txt\").len() as u32"));
    let mut project = yard.find(&["shop"]).expect("a plugin");

    expect!["shop compiled"].assert_eq(&build(&mut project));
    expect!["shop fresh"].assert_eq(&build(&mut project));

    let sources = project.sources();
    let roots: Vec<_> = sources.packages.iter().map(|package| package.root.clone()).collect();
    assert_eq!(roots, ["api", "part", "shop"].map(|name| yard.path(name)));
    assert!(sources.listed.contains(&yard.path("my words.txt")), "{:?}", sources.listed);
    assert!(sources.settings.contains(&yard.path("shop/Cargo.lock")));
    assert!(!yard.path("shop/target/debug").exists(), "it builds in a folder of its own");

    yard.write("shop/src/lib.rs", &body("\"no number\""));
    expect!["E_BUILD shop: 1 error in shop, first: mismatched types (src/lib.rs:2) | error | failure-note"]
        .assert_eq(&build(&mut project));

    // Renamed in with a stamp from before the last build, cargo alone would miss it.
    yard.write("older.rs", &body("let unused = 1; part::TWO"));
    File::options()
        .append(true)
        .open(yard.path("older.rs"))
        .expect("a file")
        .set_modified(SystemTime::now() - Duration::from_secs(3600))
        .expect("a stamp");
    yard.write("shop/src/lib.rs", &body("3"));
    expect!["shop compiled"].assert_eq(&build(&mut project));
    fs::rename(yard.path("older.rs"), yard.path("shop/src/lib.rs")).expect("a rename");
    expect!["shop fresh"].assert_eq(&build(&mut project));
    project.distrust(&[yard.path("shop/src/lib.rs")]);
    expect!["shop compiled | warning"].assert_eq(&build(&mut project));
    expect!["shop fresh"].assert_eq(&build(&mut project));

    let manifest = fs::read_to_string(yard.path("shop/Cargo.toml")).expect("a manifest");
    yard.write("shop/Cargo.toml", "[package\n");
    let error = project.refresh().expect_err("a broken manifest");
    assert_eq!(error.code(), Code::Build);
    assert!(error.reason().contains("unclosed table"), "{error:?}");
    assert_eq!(project.plugins(), ["shop"]);
    yard.write("shop/Cargo.toml", &manifest.replace("part = { path = \"../part\" }\n", ""));
    project.refresh().expect("a good manifest");
    assert_eq!(project.sources().packages.len(), 2);
    yard.write("shop/src/lib.rs", &body("4"));
    expect!["shop compiled"].assert_eq(&build(&mut project));
}

#[test]
fn plugins_of_several_workspaces_are_affected_by_what_they_are_made_of() {
    let yard = Yard::new();
    yard.write("w/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"3\"\n");
    yard.plugin("w/a", "");
    yard.plugin("w/b", "");
    yard.plugin("c", OWN_WORKSPACE);
    let project = yard.find(&["w/a", "w/b/Cargo.toml", "c"]).expect("three plugins");
    assert_eq!(project.plugins(), ["c", "a", "b"]);
    for (file, affected) in [
        ("w/a/src/lib.rs", "a"),
        ("w/Cargo.lock", "a b"),
        ("api/src/lib.rs", "a b c"),
        ("c/.cargo/config.toml", "c"),
        ("x", "a b c"),
    ] {
        assert_eq!(Vec::from_iter(project.affected(&[yard.path(file)])).join(" "), affected, "{file}");
    }
    assert_eq!(Vec::from_iter(project.affected(&[yard.path("w/a/x"), yard.path("c/x")])).join(" "), "a c");
}
