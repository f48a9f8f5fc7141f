//! What does a user edit?
//!
//! A [`Project`] is a workspace of its own in a temporary folder outside the repository, as a user would have it. All projects share one
//! target folder and the repository's lock file, so that what they depend on is compiled once.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use tempfile::TempDir;

use crate::{cargo, repository};

/// A workspace of plugins that a test may edit.
pub struct Project {
    root: TempDir,
    packages: Vec<String>,
}

impl Project {
    /// One plugin: its package is the workspace's root, `source` its `src/lib.rs`. Packages of one name would overwrite each other's
    /// artifacts, so each test takes a name of its own.
    #[must_use]
    pub fn plugin(name: &str, source: &str) -> Self {
        let project = Self::empty();
        project.save("Cargo.toml", &format!("{}\n{PROFILE}[workspace]\n", manifest(name, "")));
        project.save("src/lib.rs", source);
        project.with(name)
    }

    /// Several packages, each in a folder of its name: `(name, kind, source)`. A library comes before the plugins that use it: they all
    /// depend on it.
    #[must_use]
    pub fn packages(packages: &[(&str, Kind, &str)]) -> Self {
        let mut project = Self::empty();
        let libraries: String = (packages.iter().filter(|(_, kind, _)| *kind == Kind::Library))
            .map(|(name, ..)| format!("{name} = {{ path = \"../{name}\" }}\n"))
            .collect();
        for (name, kind, source) in packages {
            let text = match kind {
                Kind::Plugin => manifest(name, &libraries),
                Kind::Library => format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
            };
            project.save(&format!("{name}/Cargo.toml"), &text);
            project.save(&format!("{name}/src/lib.rs"), source);
            project = project.with(name);
        }
        let members: Vec<_> = packages.iter().map(|(name, ..)| *name).collect();
        project.save("Cargo.toml", &format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n{PROFILE}"));
        project
    }

    /// A copy of the repository's example plugin in a workspace of its own, under the name `name`.
    #[must_use]
    pub fn example(name: &str) -> Self {
        let project = Self::empty();
        let root = repository::root().display();
        let workspace = repository::read("Cargo.toml")
            .lines()
            .filter(|line| !line.starts_with("default-members"))
            .map(|line| if line.starts_with("members") { "members = [\"plugin\"]\n".to_owned() } else { format!("{line}\n") })
            .collect::<String>()
            .replace("path = \"", &format!("path = \"{root}/"));
        project.save("Cargo.toml", &workspace);
        project.save(
            "plugin/Cargo.toml",
            &repository::read("example-plugin/Cargo.toml").replace("\"example-plugin\"", &format!("{name:?}")),
        );
        project.save("plugin/src/lib.rs", &repository::read("example-plugin/src/lib.rs"));
        project.with(name)
    }

    fn empty() -> Self {
        let root = tempfile::Builder::new().prefix("midair-e2e-").tempdir().expect("a folder for the project");
        let project = Self { root, packages: Vec::new() };
        project.save("Cargo.lock", &repository::read("Cargo.lock"));
        project
    }

    fn with(mut self, package: &str) -> Self {
        self.packages.push(package.to_owned());
        self
    }

    /// Lets its plugins depend on a copy of midair-plugin whose midair-abi differs: in each `(file, from, to)` of its sources.
    #[must_use]
    pub fn with_another_border(self, edits: &[(&str, &str, &str)]) -> Self {
        copy(&repository::root().join("plugin-api"), &self.path("border"));
        let workspace = repository::read("Cargo.toml");
        let from_workspace = |name: &str| {
            let line = workspace.lines().find(|line| line.split(' ').next() == Some(name));
            line.unwrap_or_else(|| panic!("the workspace says nothing of {name}")).to_owned()
        };
        let inherited = |line: &str| match (line.strip_suffix(".workspace = true"), line.split_once(" = { workspace = true, ")) {
            (Some(name), _) => from_workspace(name),
            (None, None) => line.to_owned(),
            // What is said beside is added to what the workspace says.
            (None, Some((name, more))) => {
                let said = from_workspace(name);
                let (_, said) = said.split_once(" = ").unwrap_or_default();
                let said = said
                    .strip_prefix("{ ")
                    .map_or_else(|| format!("version = {said}"), |said| said.trim_end_matches(" }").to_owned());
                format!("{name} = {{ {said}, {more}")
            }
        };
        for folder in ["", "abi/"] {
            let manifest = repository::read(&format!("plugin-api/{folder}Cargo.toml"));
            // Neither its tests nor its lints matter here.
            let needed = manifest.split("[dev-dependencies]").next().unwrap_or_default();
            let needed: String = needed.lines().map(|line| inherited(line) + "\n").collect();
            self.save(&format!("border/{folder}Cargo.toml"), &needed.replace("\"plugin-api/abi\"", "\"abi\""));
        }
        for (file, from, to) in edits {
            self.edit(&format!("border/abi/src/{file}"), from, to);
        }
        let api = format!("path = {:?}", repository::root().join("plugin-api"));
        self.edit("Cargo.toml", &api, "path = \"border\"");
        self
    }

    /// The same with a feature of midair-plugin and further dependencies, as they stand in a manifest.
    #[must_use]
    #[track_caller]
    pub fn with_dependencies(self, feature: &str, dependencies: &str) -> Self {
        let api = format!("{:?}", repository::root().join("plugin-api"));
        self.edit("Cargo.toml", &api, &format!("{api}, features = [{feature:?}]"));
        self.edit("Cargo.toml", "serde_json = \"1\"\n", &format!("serde_json = \"1\"\n{dependencies}\n"));
        self
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Saves a file as careful editors do: whole, under a temporary name, then renamed into place.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    #[track_caller]
    pub fn save(&self, path: &str, text: &str) {
        save(&self.path(path), text);
    }

    /// Saves a file by writing over it.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    #[track_caller]
    pub fn save_in_place(&self, path: &str, text: &str) {
        let mut file = fs::File::create(self.path(path)).expect("the file can be opened");
        file.write_all(text.as_bytes()).expect("the file can be written");
    }

    /// A file's text.
    ///
    /// # Panics
    ///
    /// If it can't be read.
    #[must_use]
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Saves a file with `from` replaced by `to`.
    ///
    /// # Panics
    ///
    /// If `from` isn't in it.
    #[track_caller]
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{path} has no {from:?}");
        self.save(path, &text.replace(from, to));
    }

    /// Renames a file or folder.
    ///
    /// # Panics
    ///
    /// If it can't be renamed.
    #[track_caller]
    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("it can be renamed");
    }

    /// Removes a file.
    ///
    /// # Panics
    ///
    /// If it can't be removed.
    #[track_caller]
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("it can be removed");
    }

    /// Builds its plugins and copies the artifacts to `folder`, which is made. The artifacts' paths, by the packages' order.
    ///
    /// # Panics
    ///
    /// If they don't build.
    #[track_caller]
    pub fn build_to(&self, folder: &Path) -> Vec<PathBuf> {
        self.build_with(Command::new("cargo"), &repository::shared_target().join("midair"), folder)
    }

    /// The same as a release would be.
    ///
    /// # Panics
    ///
    /// If they don't build.
    #[track_caller]
    pub fn build_optimised(&self, folder: &Path) -> Vec<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "3").env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false");
        self.build_with(cargo, &repository::shared_target().join("optimised"), folder)
    }

    /// The same with another cargo and target folder.
    ///
    /// # Panics
    ///
    /// If they don't build.
    #[track_caller]
    pub fn build_with(&self, cargo: Command, target: &Path, folder: &Path) -> Vec<PathBuf> {
        // Packages of one name end at one path: each build is copied before the next begins, also in another process that builds there, as
        // cargo's own lock would have it wait anyway.
        fs::create_dir_all(target).expect("the folder can be made");
        let turn = fs::File::create(target.join("midair-tests.lock")).expect("a file can be made");
        turn.lock().expect("a file can be locked");
        // Nor does cargo tell projects apart whose packages have one name: what lay here before the last of them was built would count as
        // built.
        touch(self.root());
        let kept = self.kept(&cargo, target);
        let built = match &kept {
            Some(kept) if kept.is_dir() => files_in(kept),
            _ => cargo::cdylibs(cargo, self.root(), target),
        };
        fs::create_dir_all(folder).expect("the folder can be made");
        let wanted = self.packages.iter().map(|package| format!("lib{}.so", package.replace('-', "_")));
        let found = wanted.filter_map(|name| built.iter().find(|path| path.ends_with(&name)));
        let copy = |path: &PathBuf| {
            let to = folder.join(path.file_name().expect("an artifact is a file"));
            fs::copy(path, &to).expect("an artifact can be copied");
            to
        };
        let copies: Vec<PathBuf> = found.map(copy).collect();
        if let Some(kept) = kept.filter(|kept| !kept.is_dir()) {
            keep(&copies, &kept);
        }
        drop(turn);
        copies
    }

    /// Where that which is built of these very files by this very command is kept, if `MIDAIR_KEPT` names a folder for it: who runs one test
    /// again and again needn't wait for the same builds each time.
    fn kept(&self, cargo: &Command, target: &Path) -> Option<PathBuf> {
        let folder = PathBuf::from(std::env::var_os("MIDAIR_KEPT")?);
        let mut hasher = DefaultHasher::new();
        format!("{cargo:?} {target:?}").hash(&mut hasher);
        hash_files(self.root(), self.root(), &mut hasher);
        Some(folder.join(format!("{:016x}", hasher.finish())))
    }
}

/// Has all sources below look newer than anything that was built.
fn touch(folder: &Path) {
    for path in files_in(folder) {
        if path.is_dir() {
            touch(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = fs::File::options().append(true).open(&path).expect("it can be opened");
            file.set_modified(SystemTime::now()).expect("its time can be set");
        }
    }
}

/// Copies these into `kept`, all or none.
fn keep(files: &[PathBuf], kept: &Path) {
    let draft = kept.with_extension("draft");
    fs::create_dir_all(&draft).expect("the folder can be made");
    for file in files {
        fs::copy(file, draft.join(file.file_name().expect("an artifact is a file"))).expect("an artifact can be copied");
    }
    fs::rename(&draft, kept).expect("it can be renamed");
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    files.sort();
    files
}

fn hash_files(root: &Path, folder: &Path, hasher: &mut DefaultHasher) {
    for path in files_in(folder) {
        if path.is_dir() {
            hash_files(root, &path, hasher);
        } else {
            path.strip_prefix(root).expect("it lies there").hash(hasher);
            fs::read(&path).expect("it can be read").hash(hasher);
        }
    }
}

/// What a package is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plugin.
    Plugin,
    /// A library that all plugins of the project use.
    Library,
}

impl Drop for Project {
    fn drop(&mut self) {
        // Another project of the same name may be built at this moment: nothing is taken from under cargo's hands.
        let turn = fs::File::create(repository::shared_target().join("midair/midair-tests.lock"));
        let _turn = turn.and_then(|turn| turn.lock().map(|()| turn));
        // The folder's name is new each time, so cargo would keep what it compiled for ever.
        for folder in ["midair/debug/incremental", "midair/debug/.fingerprint", "midair/debug/deps"] {
            let Ok(entries) = fs::read_dir(repository::shared_target().join(folder)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().replace('-', "_");
                let ours = |package: &String| {
                    let package = package.replace('-', "_");
                    let rest = name.strip_prefix(&package).or_else(|| name.strip_prefix(&format!("lib{package}")));
                    // Behind the name there is a hash or nothing, and not the rest of another name that begins with this one.
                    let hash = rest.and_then(|rest| rest.split('.').next());
                    hash.is_some_and(|hash| {
                        hash.is_empty() || (hash.starts_with('_') && hash.len() > 10 && !hash[1..].contains('_'))
                    })
                };
                if self.packages.iter().any(ours) {
                    // What stays behind costs disk only.
                    let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
                }
            }
        }
    }
}

/// The repository's own development profile: with another one all that plugins depend on would be compiled twice.
const PROFILE: &str = "[profile.dev]\ndebug = \"line-tables-only\"\n";

fn manifest(name: &str, more: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\n\
         midair-plugin = {{ path = {:?} }}\nserde = {{ version = \"1\", features = [\"derive\"] }}\nserde_json = \"1\"\n{more}",
        repository::root().join("plugin-api")
    )
}

/// Writes a file by rename, with the folders above it.
///
/// # Panics
///
/// If it can't be written.
#[track_caller]
pub fn save(path: &Path, bytes: impl AsRef<[u8]>) {
    let folder = path.parent().expect("a file is in a folder");
    fs::create_dir_all(folder).expect("the folder can be made");
    let mut draft = tempfile::NamedTempFile::new_in(folder).expect("a draft beside the file");
    draft.write_all(bytes.as_ref()).expect("the draft can be written");
    draft.persist(path).expect("the draft can be renamed");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read").flatten() {
        let to = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &to),
            _ => drop(fs::copy(entry.path(), to).expect("a file can be copied")),
        }
    }
}
