//! What did cargo and the compiler say?
//!
//! Reads no file and starts nothing: messages go in, diagnostics and the story of the build come out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use cargo_metadata::diagnostic::DiagnosticLevel;
use cargo_metadata::{CrateType, Message, PackageId, Target, diagnostic};

use super::package::Package;
use crate::error::{Code, Error, Stage};

/// What the compiler said about one spot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// `error`, `warning`, `note` and so on.
    pub level: String,
    /// The message without its place.
    pub message: String,
    /// All of it, as the compiler renders it.
    pub rendered: String,
}

/// A library that came out of a build.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) package: PackageId,
    pub(super) path: PathBuf,
    pub(super) fresh: bool,
}

type Unit = (PackageId, String, String);

/// A build as it is told, message by message.
#[derive(Default)]
pub(super) struct Transcript {
    pub(super) libraries: Vec<Library>,
    pub(super) finished: Option<bool>,
    /// All local packages that take part in the build, by their folder.
    pub(super) packages: BTreeMap<PathBuf, Package>,
    /// The files that errors name, as the compiler names them.
    pub(super) named: BTreeSet<String>,
    pub(super) failing: Vec<String>,
    errors: usize,
    first_error: Option<String>,
    /// What was said of units whose fate isn't known. A unit that turns out fresh only repeats what was said when it was compiled.
    waiting: HashMap<Unit, Vec<Diagnostic>>,
    failed: Vec<Unit>,
}

impl Transcript {
    pub(super) fn hear(&mut self, message: Message, say: &mut dyn FnMut(Diagnostic)) {
        match message {
            Message::CompilerMessage(said) => {
                let root = said.target.src_path.as_std_path().ancestors().find(|above| above.join("Cargo.toml").is_file());
                self.hear_package(&said.package_id, root.map(Path::to_owned), false);
                self.hear_compiler(unit(said.package_id, &said.target), said.target.name, said.message, say)
            }
            Message::CompilerArtifact(artifact) => {
                let root = artifact.manifest_path.parent().map(|root| root.as_std_path().to_owned());
                self.hear_package(&artifact.package_id, root, artifact.target.is_custom_build());
                let waiting = self.waiting.remove(&unit(artifact.package_id.clone(), &artifact.target));
                if !artifact.fresh {
                    waiting.into_iter().flatten().for_each(&mut *say);
                }
                if artifact.target.crate_types.contains(&CrateType::CDyLib) {
                    // A cdylib that is an rlib too comes with several files.
                    let is_shared = |path: &&cargo_metadata::camino::Utf8PathBuf| {
                        path.extension()
                            == Path::new(std::env::consts::DLL_SUFFIX).file_name().and_then(|name| name.to_str()?.strip_prefix('.'))
                    };
                    if let Some(path) = artifact.filenames.iter().find(is_shared) {
                        self.libraries.push(Library { package: artifact.package_id, path: path.into(), fresh: artifact.fresh });
                    }
                }
            }
            Message::BuildFinished(end) => {
                self.finished = Some(end.success);
                self.waiting.drain().flat_map(|(_, said)| said).for_each(say);
            }
            _ => {}
        }
    }

    fn hear_package(&mut self, id: &PackageId, root: Option<PathBuf>, build_script: bool) {
        let Some(name) = local_name(&id.repr) else { return };
        let Some(root) = root.and_then(|root| std::fs::canonicalize(root).ok()) else { return };
        let new = Package { name: name.to_owned(), root: root.clone(), build_script };
        self.packages.entry(root).or_insert(new).build_script |= build_script;
    }

    fn hear_compiler(&mut self, unit: Unit, target: String, said: diagnostic::Diagnostic, say: &mut dyn FnMut(Diagnostic)) {
        // The compiler's own summaries: cargo leaves them out too.
        if said.message.starts_with("aborting due to")
            || said.message.ends_with("warning emitted")
            || said.message.ends_with("warnings emitted")
        {
            return;
        }
        let level = match said.level {
            DiagnosticLevel::Ice => "error",
            DiagnosticLevel::Error => "error",
            DiagnosticLevel::Warning => "warning",
            DiagnosticLevel::FailureNote => "failure-note",
            DiagnosticLevel::Help => "help",
            _ => "note",
        };
        if level == "error" {
            self.errors += 1;
            name_files(&said, &mut self.named);
            self.first_error.get_or_insert_with(|| spot(&said));
            if !self.failing.contains(&target) {
                self.failing.push(target);
            }
            if !self.failed.contains(&unit) {
                self.failed.push(unit.clone());
            }
        }
        let rendered = said.rendered.unwrap_or_else(|| said.message.clone());
        let heard = Diagnostic { level: level.to_owned(), message: said.message, rendered };
        if self.failed.contains(&unit) {
            self.waiting.remove(&unit).into_iter().flatten().for_each(&mut *say);
            say(heard);
        } else {
            self.waiting.entry(unit).or_default().push(heard);
        }
    }

    /// Whether all was compiled, and the linker refused it.
    pub(super) fn failed_to_link(&self) -> bool {
        self.first_error.as_ref().is_some_and(|error| error.starts_with("linking with"))
    }

    /// Why the build failed, from what was said, or from cargo's own words if the compiler said nothing.
    pub(super) fn failure(&self, plugins: &str, stderr: &str) -> Error {
        let rejected = |subject: String, reason: String| Error::rejected(Code::Build, Stage::Build, subject, reason);
        if let Some(first) = &self.first_error {
            let plural = if self.errors == 1 { "error" } else { "errors" };
            let reason = format!("{} {plural} in {}, first: {first}", self.errors, self.failing.join(", "));
            return rejected(plugins.to_owned(), reason);
        }
        if let Some(signal) = killed_by(stderr) {
            return rejected(plugins.to_owned(), format!("the compiler was killed by signal {signal}"));
        }
        rejected(plugins.to_owned(), cargos_words(stderr))
    }
}

fn unit(package: PackageId, target: &Target) -> Unit {
    (package, target.name.clone(), format!("{:?}", target.kind))
}

/// The name of a package that lies in a folder, out of its id; none if it comes from a registry or a repository.
fn local_name(id: &str) -> Option<&str> {
    let (place, rest) = id.strip_prefix("path+")?.split_once('#')?;
    Some(rest.split_once('@').map_or_else(|| place.rsplit('/').next().unwrap_or(place), |(name, _)| name))
}

/// The files that an error is about: where it is, and what couldn't be read.
fn name_files(said: &diagnostic::Diagnostic, named: &mut BTreeSet<String>) {
    named.extend(said.spans.iter().map(|span| span.file_name.clone()).filter(|name| !name.starts_with('<')));
    if said.message.starts_with("couldn't read") || said.message.starts_with("file not found") {
        named.extend(said.message.split('`').skip(1).step_by(2).filter(|word| word.contains(['/', '.'])).map(str::to_owned));
    }
    said.children.iter().for_each(|child| name_files(child, named));
}

/// The message with its place, such as `mismatched types (src/lib.rs:12)`.
fn spot(said: &diagnostic::Diagnostic) -> String {
    match said.spans.iter().find(|span| span.is_primary) {
        Some(span) => format!("{} ({}:{})", said.message, span.file_name, span.line_start),
        None => said.message.clone(),
    }
}

/// The signal's number and name out of cargo's `(signal: 9, SIGKILL: kill)`.
fn killed_by(stderr: &str) -> Option<String> {
    let (_, after) = stderr.split_once("(signal: ")?;
    let (number, after) = after.split_once(", ")?;
    let name: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
    Some(format!("{number} ({name})"))
}

/// cargo's errors without its progress, at most twenty lines of them.
pub(super) fn cargos_words(stderr: &str) -> String {
    let mut lines: Vec<_> = stderr.lines().map(str::trim_end).skip_while(|line| !line.starts_with("error")).take(20).collect();
    if lines.is_empty() {
        lines = stderr.lines().rev().take(20).collect();
        lines.reverse();
    }
    let words = lines.join("\n");
    let words = words.trim().strip_prefix("error: ").unwrap_or(words.trim());
    if words.is_empty() { "cargo failed and said nothing".to_owned() } else { words.to_owned() }
}

/// The files that cargo's dep-info lists. In it a space within a name is escaped, and nothing else is.
pub(super) fn listed_files(dep_info: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in dep_info.lines() {
        let Some((_, list)) = line.split_once(": ") else { continue };
        let mut name = String::new();
        for word in list.split(' ') {
            name.push_str(word);
            if name.ends_with('\\') {
                name.pop();
                name.push(' ');
            } else if !name.is_empty() {
                files.push(PathBuf::from(std::mem::take(&mut name)));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(lines: &[String]) -> (Transcript, Vec<String>) {
        let (mut transcript, mut said) = (Transcript::default(), Vec::new());
        for message in Message::parse_stream(lines.join("\n").as_bytes()) {
            transcript.hear(message.expect("a line"), &mut |diagnostic| said.push(diagnostic.rendered));
        }
        (transcript, said)
    }

    #[test]
    fn a_package_in_a_folder_is_known_by_its_id() {
        for (id, name) in [
            ("path+file:///w/shop#0.1.0", Some("shop")),
            ("path+file:///w/fix#memo-map@0.3.3", Some("memo-map")),
            ("registry+https://github.com/rust-lang/crates.io-index#libc@0.2.1", None),
        ] {
            assert_eq!(local_name(id), name, "{id}");
        }
    }

    const TARGET: &str =
        r#""target":{"kind":["cdylib"],"crate_types":["cdylib"],"name":"shop","src_path":"/w/src/lib.rs","edition":"2024"}"#;

    fn compiler(level: &str, message: &str, line: u32) -> String {
        let span = format!(
            r#"{{"file_name":"src/lib.rs","byte_start":0,"byte_end":0,"line_start":{line},"line_end":{line},"column_start":1,"column_end":1,"is_primary":true,"text":[]}}"#
        );
        format!(
            r#"{{"reason":"compiler-message","package_id":"shop",{TARGET},"message":{{"message":"{message}","code":null,"level":"{level}","spans":[{span}],"children":[],"rendered":"{level}: {message}"}}}}"#
        )
    }

    fn artifact(fresh: bool) -> String {
        let profile = r#"{"opt_level":"0","debug_assertions":true,"overflow_checks":true,"test":false}"#;
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"shop",{TARGET},"profile":{profile},"features":[],"filenames":["/t/libshop.rlib","/t/libshop.so"],"executable":null,"fresh":{fresh}}}"#
        )
    }

    #[test]
    fn errors_are_said_as_rendered_and_counted() {
        let lines = [
            compiler("warning", "unused import", 1),
            compiler("error", "mismatched types", 12),
            compiler("error", "no such method", 14),
            compiler("error", "aborting due to 2 previous errors; 1 warning emitted", 0),
            r#"{"reason":"build-finished","success":false}"#.to_owned(),
        ];
        let (transcript, said) = hear(&lines);
        assert_eq!(said, ["warning: unused import", "error: mismatched types", "error: no such method"]);
        assert_eq!(transcript.finished, Some(false));
        let error = transcript.failure("shop", "");
        assert_eq!((error.code(), error.stage()), (Code::Build, Stage::Build));
        assert_eq!(error.reason(), "2 errors in shop, first: mismatched types (src/lib.rs:12)");
    }

    #[test]
    fn warnings_are_said_of_what_was_really_compiled() {
        for (fresh, expected) in [(false, vec!["warning: unused"]), (true, vec![])] {
            let (transcript, said) = hear(&[compiler("warning", "unused", 1), artifact(fresh)]);
            assert_eq!(said, expected);
            assert_eq!(
                (transcript.libraries[0].path.as_path(), transcript.libraries[0].fresh),
                (Path::new("/t/libshop.so"), fresh)
            );
        }
    }

    #[test]
    fn without_a_diagnostic_cargos_own_words_are_the_reason() {
        for (stderr, reason) in [
            (
                "   Compiling x\nerror: failed to parse manifest at `/w/Cargo.toml`\n\nCaused by:\n  expected `=`\n",
                "failed to parse manifest at `/w/Cargo.toml`\n\nCaused by:\n  expected `=`",
            ),
            (
                "error: could not compile `shop` (lib)\n\nCaused by:\n  process didn't exit successfully: `rustc --crate-name shop` (signal: 9, SIGKILL: kill)\n",
                "the compiler was killed by signal 9 (SIGKILL)",
            ),
            ("   Blocking\nwhat?", "Blocking\nwhat?"),
            ("", "cargo failed and said nothing"),
        ] {
            assert_eq!(Transcript::default().failure("shop", stderr).reason(), reason);
        }
    }

    #[test]
    fn dep_info_lists_files_with_spaces_in_their_names() {
        let text = "/t/my\\ lib.so: /w/src/lib.rs /w/two\\ words\\ x.txt /w/src/a.rs\n";
        assert_eq!(listed_files(text), ["/w/src/lib.rs", "/w/two words x.txt", "/w/src/a.rs"].map(PathBuf::from));
        assert!(listed_files("/t/a.so:\n").is_empty());
    }
}
