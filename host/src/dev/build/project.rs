//! Which packages are plugins, and what are they made of?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cargo_metadata::{CrateType, DependencyKind, MetadataCommand, PackageId};

use super::cargo::{self, Cancel};
use super::messages::{Diagnostic, cargos_words, listed_files};
use super::staleness;
use super::surroundings::Surroundings;
use crate::error::{Code, Error, Result, Stage};

/// How to call cargo.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Build with the release profile.
    pub release: bool,
    /// Build with this profile.
    pub profile: Option<String>,
    /// Features to switch on.
    pub features: Vec<String>,
    /// Further arguments for `cargo build`.
    pub cargo_args: Vec<String>,
    /// The cargo to call; the one in `PATH` if not given.
    pub cargo: Option<PathBuf>,
    /// Let the compiler render its diagnostics with colours.
    pub ansi: bool,
}

/// The plugins to build and what they are made of.
///
/// # Threads
///
/// It blocks while cargo runs. No plugin code runs inside; build scripts and procedural macros do, in processes of their own.
pub struct Project {
    options: Options,
    surroundings: Surroundings,
    groups: Vec<Group>,
    /// By plugin: the files that its last build listed.
    listed: BTreeMap<String, BTreeSet<PathBuf>>,
    last_build: Option<SystemTime>,
}

/// The plugins of one workspace: one cargo command builds them all.
#[derive(Clone)]
struct Group {
    root: PathBuf,
    target: PathBuf,
    plugins: Vec<Plugin>,
    /// All local packages that the plugins are made of, by their folder.
    packages: BTreeMap<PathBuf, Package>,
    /// Manifests of the workspaces that those packages belong to.
    workspaces: BTreeSet<PathBuf>,
}

#[derive(Clone)]
struct Plugin {
    name: String,
    id: PackageId,
    manifest: PathBuf,
    /// The folders of the packages that it is made of.
    packages: BTreeSet<PathBuf>,
}

/// A local package that a plugin is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// As in its manifest.
    pub name: String,
    /// The folder of its manifest.
    pub root: PathBuf,
    /// Whether it has a build script, which may read any file of it.
    pub build_script: bool,
}

/// What a project is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The packages of the plugins and their path dependencies.
    pub packages: Vec<Package>,
    /// Manifests, lock files, toolchain files and cargo's configuration, whether or not they exist.
    pub settings: BTreeSet<PathBuf>,
    /// What the last builds listed; a folder stands for all that is in it.
    pub listed: BTreeSet<PathBuf>,
}

/// What a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The plugin's package.
    pub plugin: String,
    /// The cdylib that cargo wrote.
    pub artifact: PathBuf,
    /// Whether cargo had nothing to compile for it.
    pub fresh: bool,
}

impl Project {
    /// Finds the plugins at `paths`, each a package's folder or its Cargo.toml; without any, the one plugin of the workspace around
    /// the current folder.
    ///
    /// # Errors
    ///
    /// All are fatal E_USAGE: no plugin, several to choose from, a path that is none and why, or what cargo said.
    pub fn find(paths: &[PathBuf], options: &Options) -> Result<Project> {
        let here = std::env::current_dir().map_err(|error| usage("", "the current folder is gone").caused_by(error))?;
        Self::find_from(&here, paths, options)
    }

    fn find_from(here: &Path, paths: &[PathBuf], options: &Options) -> Result<Project> {
        let mut project = Project {
            options: options.clone(),
            surroundings: Surroundings::of_this_process(),
            groups: Vec::new(),
            listed: BTreeMap::new(),
            last_build: None,
        };
        let mut survey = Survey::default();
        let mut manifests = BTreeSet::new();
        if paths.is_empty() {
            let root = project.survey(&mut survey, here, None).map_err(|words| usage("", words).help(WHAT_IS_A_PLUGIN))?;
            manifests.insert(the_one_plugin(here, &survey, &root)?);
        }
        for path in paths {
            let manifest = manifest_at(here, path)?;
            let failed = |words| usage(path.display().to_string(), words);
            let root = project.survey(&mut survey, folder_of(&manifest), Some(&manifest)).map_err(failed)?;
            match survey.packages.get(&manifest) {
                Some(package) => match why_no_plugin(package) {
                    None => manifests.insert(manifest),
                    Some(why) => return Err(failed(why).help(WHAT_IS_A_PLUGIN)),
                },
                None => manifests.insert(the_one_plugin(here, &survey, &root)?),
            };
        }
        project.groups = project.group(&mut survey, &manifests).map_err(|(subject, words)| usage(subject, words))?;
        let names = project.plugins();
        if let Some(twice) = names.iter().find(|name| names.iter().filter(|other| other == name).count() > 1) {
            return Err(usage(twice, "two plugins have this name").help("rename one of them"));
        }
        Ok(project)
    }

    /// The names of the plugins, in one order.
    #[must_use]
    pub fn plugins(&self) -> Vec<String> {
        self.groups.iter().flat_map(|group| &group.plugins).map(|plugin| plugin.name.clone()).collect()
    }

    /// The folder in which cargo builds and beside which data of a development run is at home: the target folder of the first plugin.
    #[must_use]
    pub fn target(&self) -> Option<&Path> {
        self.groups.first().map(|group| group.target.as_path())
    }

    /// The folder of the workspace of the first plugin.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.groups.first().map(|group| group.root.as_path())
    }

    /// A plugin's manifest that is gone, if one is.
    #[must_use]
    pub fn missing_manifest(&self) -> Option<&Path> {
        let manifests = self.groups.iter().flat_map(|group| &group.plugins).map(|plugin| plugin.manifest.as_path());
        manifests.into_iter().find(|manifest| !manifest.exists())
    }

    /// A path as one would write it in the workspace it belongs to.
    #[must_use]
    pub fn short<'a>(&self, path: &'a Path) -> &'a Path {
        self.groups.iter().find_map(|group| path.strip_prefix(&group.root).ok()).unwrap_or(path)
    }

    /// Everything the plugins are made of.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let mut sources = Sources { listed: self.listed.values().flatten().cloned().collect(), ..Sources::default() };
        let mut packages = BTreeMap::new();
        for group in &self.groups {
            packages.extend(group.packages.clone());
            sources.settings.extend(group.workspaces.iter().cloned());
            sources.settings.extend(group.packages.keys().map(|root| root.join("Cargo.toml")));
            let beside = ["Cargo.lock", "rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"];
            sources.settings.extend(beside.map(|name| group.root.join(name)));
        }
        sources.packages = packages.into_values().collect();
        sources
    }

    /// Asks cargo anew what the plugins are made of. Call it when a manifest changed.
    ///
    /// # Errors
    ///
    /// E_BUILD with cargo's words; what was known before stays.
    pub fn refresh(&mut self) -> Result<()> {
        let rejected = |(subject, words): (String, String)| Error::rejected(Code::Build, Stage::Build, subject, words);
        let manifests: BTreeSet<_> =
            self.groups.iter().flat_map(|group| &group.plugins).map(|plugin| plugin.manifest.clone()).collect();
        self.groups = self.group(&mut Survey::default(), &manifests).map_err(rejected)?;
        let plugins = self.plugins();
        self.listed.retain(|plugin, _| plugins.contains(plugin));
        Ok(())
    }

    /// The plugins that a change of these files may change: those made of a package that holds one, those whose last build listed
    /// one, and all of a workspace whose settings changed. If nobody knows a file, all.
    #[must_use]
    pub fn affected(&self, changed: &[PathBuf]) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        for file in changed {
            let mut known = false;
            for group in &self.groups {
                let package = group.package_of(file);
                for plugin in &group.plugins {
                    let is_part = package.is_some_and(|package| plugin.packages.contains(&package.root));
                    let is_listed =
                        self.listed.get(&plugin.name).is_some_and(|listed| file.ancestors().any(|at| listed.contains(at)));
                    if is_part || is_listed || is_beside(file, &group.root) {
                        known = true;
                        affected.insert(plugin.name.clone());
                    }
                }
            }
            if !known {
                return self.plugins().into_iter().collect();
            }
        }
        affected
    }

    /// Makes sure that cargo sees these changes, which it judges by time stamps alone. Call it before a build.
    pub fn distrust(&self, changed: &[PathBuf]) {
        let Some(last_build) = self.last_build else { return };
        // What the last build read has to be built anew in any case: there its stamps needn't be asked.
        let is_listed = |file: &PathBuf| self.listed.values().any(|files| files.contains(file));
        for file in changed.iter().filter(|file| is_listed(file) || staleness::is_doubtful(file, last_build)) {
            for group in &self.groups {
                let forget = |package: &Package| staleness::forget(&group.builds_into(), &package.name, &package.root, file);
                let is_rust = file.extension().is_some_and(|extension| extension == "rs");
                match group.package_of(file).filter(|_| is_rust) {
                    Some(package) => forget(package),
                    // Any package may have read it.
                    None => group.packages.values().for_each(forget),
                }
            }
        }
    }

    /// Who wrote `file` in the last build, as far as it can be told: a build script that ran at that time, or what else may write.
    #[must_use]
    pub fn writer_of(&self, file: &Path) -> String {
        let changed = fs::metadata(file).and_then(|about| about.modified()).ok();
        let ran = |group: &Group| staleness::script_that_ran(&group.builds_into(), changed?);
        match self.groups.iter().find_map(ran) {
            Some(package) => format!("the build script of package `{package}`"),
            None => "something that runs in the build".to_owned(),
        }
    }

    /// Builds these plugins, workspace by workspace, and tells what came out; `None` if `cancel` was fired.
    ///
    /// # Errors
    ///
    /// E_BUILD: cargo failed, after its diagnostics were said.
    pub fn build(
        &mut self,
        plugins: &BTreeSet<String>,
        cancel: &Cancel,
        say: &mut dyn FnMut(Diagnostic),
    ) -> Result<Option<Vec<Product>>> {
        let built = self.build_groups(plugins, cancel, say);
        self.last_build = Some(SystemTime::now());
        let Some(built) = built? else { return Ok(None) };
        let mut products = Vec::new();
        for (product, listed) in built {
            self.listed.insert(product.plugin.clone(), listed);
            products.push(product);
        }
        Ok(Some(products))
    }

    fn build_groups(
        &self,
        plugins: &BTreeSet<String>,
        cancel: &Cancel,
        say: &mut dyn FnMut(Diagnostic),
    ) -> Result<Option<Vec<Listed>>> {
        let mut built = Vec::new();
        for group in &self.groups {
            let wanted: Vec<_> = group.plugins.iter().filter(|plugin| plugins.contains(&plugin.name)).collect();
            if wanted.is_empty() {
                continue;
            }
            let names = wanted.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>().join(", ");
            let Some(ended) = cargo::run(self.build_command(group, &wanted), cancel, say)? else { return Ok(None) };
            if ended.transcript.finished != Some(true) || !ended.status.success() {
                return Err(ended.transcript.failure(&names, &ended.stderr));
            }
            for plugin in wanted {
                let library = ended.transcript.libraries.iter().find(|library| library.package == plugin.id).ok_or_else(|| {
                    Error::rejected(Code::Build, Stage::Build, &plugin.name, "cargo built no cdylib of it").help(WHAT_IS_A_PLUGIN)
                })?;
                let dep_info = fs::read_to_string(library.path.with_extension("d")).unwrap_or_default();
                // What the build itself writes is no source, by whatever links the target folder is reached.
                let target = real(&group.target);
                let is_source = |file: &PathBuf| !file.starts_with(&target);
                let listed = listed_files(&dep_info).iter().map(|file| real(&group.root.join(file))).filter(is_source).collect();
                built.push((Product { plugin: plugin.name.clone(), artifact: library.path.clone(), fresh: library.fresh }, listed));
            }
        }
        Ok(Some(built))
    }

    fn build_command(&self, group: &Group, wanted: &[&Plugin]) -> std::process::Command {
        let options = &self.options;
        let mut command = cargo::command(&self.cargo(), &group.root, &self.surroundings);
        let format = if options.ansi { "json-diagnostic-rendered-ansi" } else { "json" };
        command.arg("build").arg(format!("--message-format={format}")).arg("--target-dir").arg(group.builds_into());
        command.arg("--manifest-path").arg(&wanted[0].manifest).env("CARGO_BUILD_BUILD_DIR", group.builds_into());
        for plugin in wanted {
            command.arg("-p").arg(&plugin.id.repr);
        }
        if options.release {
            command.arg("--release");
        }
        if let Some(profile) = &options.profile {
            command.arg("--profile").arg(profile);
        }
        if !options.features.is_empty() {
            command.arg("--features").arg(options.features.join(","));
        }
        command.args(&options.cargo_args);
        command
    }

    fn cargo(&self) -> PathBuf {
        self.options.cargo.clone().unwrap_or_else(|| "cargo".into())
    }

    /// Asks cargo about the workspace around `folder` or of `manifest`. Nothing is resolved: no lock file is written, nothing fetched.
    fn survey(&self, survey: &mut Survey, folder: &Path, manifest: Option<&Path>) -> Result<PathBuf, String> {
        let mut question = MetadataCommand::new();
        question.cargo_path(self.cargo()).no_deps();
        if let Some(manifest) = manifest {
            question.manifest_path(manifest);
        }
        let mut command = cargo::command(&self.cargo(), folder, &self.surroundings);
        command.args(question.cargo_command().get_args());
        let output = command.output().map_err(|error| format!("{} can't be started: {error}", self.cargo().display()))?;
        if !output.status.success() {
            return Err(cargos_words(&String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let metadata = text.lines().find(|line| line.starts_with('{')).map(MetadataCommand::parse);
        let metadata = metadata.and_then(Result::ok).ok_or("`cargo metadata` can't be understood")?;
        let root = real(metadata.workspace_root.as_std_path());
        let target = metadata.target_directory.as_std_path().to_owned();
        for package in metadata.packages {
            let manifest = real(package.manifest_path.as_std_path());
            survey.workspaces.insert(manifest.clone(), (root.clone(), target.clone()));
            survey.packages.insert(manifest, package);
        }
        Ok(root)
    }

    /// Sorts plugins by workspace and finds what they are made of. An error is what it is about and cargo's words.
    fn group(&self, survey: &mut Survey, manifests: &BTreeSet<PathBuf>) -> Result<Vec<Group>, (String, String)> {
        let mut groups: BTreeMap<PathBuf, Group> = BTreeMap::new();
        for manifest in manifests {
            let (mut rest, mut seen) = (vec![manifest.clone()], BTreeSet::new());
            let mut packages = BTreeMap::new();
            let mut workspaces = BTreeSet::new();
            while let Some(next) = rest.pop() {
                if !seen.insert(next.clone()) {
                    continue;
                }
                if !survey.packages.contains_key(&next) {
                    self.survey(survey, folder_of(&next), Some(&next)).map_err(|words| (next.display().to_string(), words))?;
                }
                let found = survey.packages.get(&next).zip(survey.workspaces.get(&next));
                let (package, (root, _)) =
                    found.ok_or_else(|| (next.display().to_string(), "is no package any more".to_owned()))?;
                workspaces.insert(root.join("Cargo.toml"));
                let used = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
                rest.extend(used.filter_map(|dependency| Some(real(&dependency.path.as_ref()?.as_std_path().join("Cargo.toml")))));
                let root = folder_of(&next).to_owned();
                let build_script = package.targets.iter().any(|target| target.is_custom_build());
                packages.insert(root.clone(), Package { name: package.name.to_string(), root, build_script });
            }
            let (package, (root, target)) = (&survey.packages[manifest], survey.workspaces[manifest].clone());
            if let Some(why) = why_no_plugin(package) {
                return Err((package.name.to_string(), why));
            }
            let (name, id) = (package.name.to_string(), package.id.clone());
            let plugin = Plugin { name, id, manifest: manifest.clone(), packages: packages.keys().cloned().collect() };
            let empty =
                Group { root: root.clone(), target, plugins: Vec::new(), packages: BTreeMap::new(), workspaces: BTreeSet::new() };
            let group = groups.entry(root).or_insert(empty);
            group.plugins.push(plugin);
            group.packages.extend(packages);
            group.workspaces.extend(workspaces);
        }
        Ok(groups.into_values().collect())
    }
}

/// A product and the files it was made of.
type Listed = (Product, BTreeSet<PathBuf>);

impl Group {
    /// A target folder of its own: a `cargo build` in a terminal and this one never wait for each other.
    fn builds_into(&self) -> PathBuf {
        self.target.join("midair")
    }

    fn package_of(&self, file: &Path) -> Option<&Package> {
        file.ancestors().find_map(|above| self.packages.get(above))
    }
}

/// Packages by manifest, as cargo told.
#[derive(Default)]
struct Survey {
    packages: BTreeMap<PathBuf, cargo_metadata::Package>,
    /// The workspace's root and target folder of each.
    workspaces: BTreeMap<PathBuf, (PathBuf, PathBuf)>,
}

const WHAT_IS_A_PLUGIN: &str = "a plugin is a package with this in its Cargo.toml:\n\n    [lib]\n    crate-type = [\"cdylib\"]\n\n    [dependencies]\n    midair-plugin = { path = \"path/to/midair/plugin-api\" }\n";

fn usage(subject: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::fatal(Code::Usage, subject, reason)
}

/// Why a package is no plugin, or `None` if it is one.
fn why_no_plugin(package: &cargo_metadata::Package) -> Option<String> {
    let builds = package.targets.iter().any(|target| target.crate_types.contains(&CrateType::CDyLib));
    let is_normal = |dependency: &&cargo_metadata::Dependency| dependency.kind == DependencyKind::Normal;
    let depends = package.dependencies.iter().filter(is_normal).any(|dependency| dependency.name == "midair-plugin");
    match (builds, depends) {
        (true, true) => None,
        (false, true) => Some(format!("package `{}` is no plugin: it builds no cdylib", package.name)),
        (true, false) => Some(format!("package `{}` is no plugin: it doesn't depend on midair-plugin", package.name)),
        (false, false) => {
            Some(format!("package `{}` is no plugin: it builds no cdylib and doesn't depend on midair-plugin", package.name))
        }
    }
}

/// The only plugin of a workspace.
fn the_one_plugin(here: &Path, survey: &Survey, root: &Path) -> Result<PathBuf> {
    let is_plugin =
        |manifest: &&PathBuf| survey.workspaces[*manifest].0 == root && why_no_plugin(&survey.packages[*manifest]).is_none();
    let plugins: Vec<_> = survey.packages.keys().filter(is_plugin).collect();
    match plugins.as_slice() {
        [] => Err(usage(root.display().to_string(), "there is no plugin in this workspace").help(WHAT_IS_A_PLUGIN)),
        [one] => Ok((*one).clone()),
        several => {
            let names: Vec<_> = several.iter().map(|manifest| format!("`{}`", survey.packages[*manifest].name)).collect();
            let paths: Vec<_> = several.iter().map(|manifest| shortest(&real(here), folder_of(manifest))).collect();
            let mut help = "say which:\n\n".to_owned();
            for path in &paths {
                help.push_str(&format!("    midair dev {path}\n"));
            }
            help.push_str(&format!("\nor serve several at once:\n\n    midair dev {}\n", paths.join(" ")));
            let reason = format!("there are {} plugins in this workspace: {}", several.len(), names.join(", "));
            Err(usage(root.display().to_string(), reason).help(help))
        }
    }
}

fn manifest_at(here: &Path, path: &Path) -> Result<PathBuf> {
    let failed = |reason: &str| usage(path.display().to_string(), reason);
    let at = fs::canonicalize(here.join(path)).map_err(|error| failed("can't be opened").caused_by(error))?;
    if at.is_dir() {
        let manifest = at.join("Cargo.toml");
        return if manifest.is_file() { Ok(manifest) } else { Err(failed("has no Cargo.toml").help(WHAT_IS_A_PLUGIN)) };
    }
    if at.ends_with("Cargo.toml") {
        return Ok(at);
    }
    let error = failed("is neither the folder of a package nor a Cargo.toml");
    let is_library = at.extension().is_some_and(|extension| extension == "so");
    Err(if is_library { error.help(format!("to serve a built artifact: midair run {}", path.display())) } else { error })
}

fn folder_of(manifest: &Path) -> &Path {
    manifest.parent().unwrap_or(manifest)
}

/// Whether `file` stands beside a workspace's manifest, as all its settings do.
fn is_beside(file: &Path, root: &Path) -> bool {
    file.parent().is_some_and(|parent| parent == root || parent == root.join(".cargo"))
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => path.to_owned(),
    }
}

fn shortest(here: &Path, folder: &Path) -> String {
    match folder.strip_prefix(here) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => folder.display().to_string(),
    }
}
