//! Which packages are plugins, and what are they made of?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cargo_metadata::{CrateType, DependencyKind, MetadataCommand, PackageId};

use super::cargo::{self, Cancel};
use super::made_of::{MadeOf, real};
use super::messages::{Diagnostic, cargos_words};
use super::package::{Package, package_of};
use super::record::Record;
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
    pub(super) groups: Vec<Group>,
    /// Where the project was found.
    here: PathBuf,
    /// By plugin: what its last build named.
    pub(super) made_of: BTreeMap<String, MadeOf>,
    pub(super) last_build: Option<SystemTime>,
}

/// The plugins of one workspace: one cargo command builds them all.
#[derive(Clone)]
pub(super) struct Group {
    root: PathBuf,
    /// Where cargo runs.
    folder: PathBuf,
    target: PathBuf,
    /// The plugin that is built into a folder of its own.
    apart: Option<String>,
    pub(super) plugins: Vec<Plugin>,
    /// All local packages that the plugins are made of, by their folder.
    packages: BTreeMap<PathBuf, Package>,
    /// Manifests of the workspaces that those packages belong to.
    workspaces: BTreeSet<PathBuf>,
}

#[derive(Clone)]
pub(super) struct Plugin {
    pub(super) name: String,
    id: PackageId,
    pub(super) manifest: PathBuf,
    /// The name of its library, by which cargo names the artifact.
    library: String,
    /// Plugins that it depends on.
    needs: Vec<String>,
    /// The folders of the packages that it is made of.
    packages: BTreeSet<PathBuf>,
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
            here: real(here),
            made_of: BTreeMap::new(),
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
        // What an earlier run knew, until a build tells it anew.
        let plugins = project.groups.iter().flat_map(|group| group.plugins.iter().map(|plugin| (group.builds_into(), plugin)));
        let known = plugins.map(|(target, plugin)| (plugin.name.clone(), Record::of(&target, &plugin.manifest).made_of));
        project.made_of = known.collect();
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
        let listed = self.made_of.values().flat_map(|made_of| &made_of.listed);
        let mut sources = Sources { listed: listed.cloned().collect(), ..Sources::default() };
        let mut packages = BTreeMap::new();
        for group in &self.groups {
            let parts = self.packages(group);
            sources.settings.extend(group.workspaces.iter().cloned());
            for root in parts.keys() {
                sources.settings.insert(root.join("Cargo.toml"));
                if !group.packages.contains_key(root) {
                    // One of these may be its workspace's.
                    let above = root.ancestors().skip(1).map(|above| above.join("Cargo.toml"));
                    sources.settings.extend(above.filter(|manifest| manifest.is_file()));
                }
            }
            packages.extend(parts);
            sources.settings.insert(group.root.join("Cargo.lock"));
            for above in group.folder.ancestors() {
                let settings =
                    ["rust-toolchain", "rust-toolchain.toml", ".cargo/config", ".cargo/config.toml"].map(|name| above.join(name));
                // Above the workspace those count that are there.
                sources.settings.extend(settings.into_iter().filter(|file| above.starts_with(&group.root) || file.is_file()));
            }
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
        let groups = self.group(&mut Survey::default(), &manifests).map_err(rejected)?;
        let before = std::mem::replace(&mut self.groups, groups);
        let plugins = self.plugins();
        self.made_of.retain(|plugin, _| plugins.contains(plugin));
        // A package that manifests named and name no more is no part, unless the next build says so.
        for (name, made_of) in &mut self.made_of {
            let of = |groups: &[Group]| -> BTreeSet<PathBuf> {
                groups
                    .iter()
                    .flat_map(|group| &group.plugins)
                    .filter(|plugin| plugin.name == *name)
                    .flat_map(|plugin| plugin.packages.clone())
                    .collect()
            };
            of(&before).difference(&of(&self.groups)).for_each(|gone| drop(made_of.packages.remove(gone)));
        }
        Ok(())
    }

    /// All local packages that the plugins of `group` are made of.
    pub(super) fn packages(&self, group: &Group) -> BTreeMap<PathBuf, Package> {
        let made_of =
            group.plugins.iter().filter_map(|plugin| self.made_of.get(&plugin.name)).flat_map(|made_of| &made_of.packages);
        made_of.chain(&group.packages).map(|(root, package)| (root.clone(), package.clone())).collect()
    }

    /// Whether a plugin is made of this file of a package, or its last build listed it.
    pub(super) fn is_part(&self, plugin: &Plugin, package: Option<&Package>, file: &Path) -> bool {
        let made_of = self.made_of.get(&plugin.name);
        let has = |package: &Package| {
            plugin.packages.contains(&package.root) || made_of.is_some_and(|made_of| made_of.packages.contains_key(&package.root))
        };
        package.is_some_and(has) || made_of.is_some_and(|made_of| file.ancestors().any(|at| made_of.listed.contains(at)))
    }

    /// The plugins that a change of these files may change: those made of a package that holds one, those whose last build listed
    /// one, and all of a workspace whose settings changed. If nobody knows a file, all.
    #[must_use]
    pub fn affected(&self, changed: &[PathBuf]) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        for file in changed {
            let mut known = false;
            for group in &self.groups {
                let packages = self.packages(group);
                let package = package_of(&packages, file);
                for plugin in &group.plugins {
                    if self.is_part(plugin, package, file) || is_beside(file, &group.root) {
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
        built
    }

    fn build_groups(
        &mut self,
        plugins: &BTreeSet<String>,
        cancel: &Cancel,
        say: &mut dyn FnMut(Diagnostic),
    ) -> Result<Option<Vec<Product>>> {
        let mut built = Vec::new();
        for group in &self.groups {
            let wanted: Vec<_> = group.plugins.iter().filter(|plugin| plugins.contains(&plugin.name)).collect();
            if wanted.is_empty() {
                continue;
            }
            let names = wanted.iter().map(|plugin| plugin.name.as_str()).collect::<Vec<_>>().join(", ");
            let started = SystemTime::now();
            let Some(ended) = cargo::run(self.build_command(group, &wanted), cancel, say)? else { return Ok(None) };
            let target = group.builds_into();
            if ended.transcript.finished != Some(true) || !ended.status.success() {
                let failure = ended.transcript.failure(&names, &ended.stderr);
                for plugin in &wanted {
                    let made_of = self.made_of.entry(plugin.name.clone()).or_default();
                    made_of.add_failed(&ended.transcript, &target, &group.root, started);
                }
                let needs = wanted.iter().find(|plugin| ended.transcript.failed_to_link() && !plugin.needs.is_empty());
                return Err(match needs {
                    Some(Plugin { name, needs, .. }) => failure.help(needs_a_plugin(name, needs)),
                    None => failure,
                });
            }
            for plugin in wanted {
                let library = ended.transcript.libraries.iter().find(|library| library.package == plugin.id).ok_or_else(|| {
                    Error::rejected(Code::Build, Stage::Build, &plugin.name, "cargo built no cdylib of it").help(WHAT_IS_A_PLUGIN)
                })?;
                self.made_of.insert(plugin.name.clone(), MadeOf::of_library(&library.path, &ended.transcript, &target));
                built.push(Product { plugin: plugin.name.clone(), artifact: library.path.clone(), fresh: library.fresh });
            }
        }
        Ok(Some(built))
    }

    fn build_command(&self, group: &Group, wanted: &[&Plugin]) -> std::process::Command {
        let options = &self.options;
        let mut command = cargo::command(&self.cargo(), &group.folder, &self.surroundings);
        let format = if options.ansi { "json-diagnostic-rendered-ansi" } else { "json" };
        command.arg("build").arg(format!("--message-format={format}")).arg("--target-dir").arg(group.builds_into());
        command.arg("--manifest-path").arg(&wanted[0].manifest).env("CARGO_BUILD_BUILD_DIR", group.builds_into());
        // In what it lists, only files that the build itself writes are then relative, and to this.
        command.env("CARGO_BUILD_DEP_INFO_BASEDIR", group.builds_into());
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
            let (mut packages, mut workspaces, mut needs) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
            let mut names = BTreeMap::new();
            while let Some(next) = rest.pop() {
                if !seen.insert(next.clone()) {
                    continue;
                }
                if !survey.packages.contains_key(&next) {
                    let asked = self.survey(survey, folder_of(&next), Some(&next));
                    match (asked, names.remove(&next)) {
                        (Ok(_), _) => {}
                        // Below a workspace that doesn't list it, say: a build may know better, and names what it is made of.
                        (Err(_), Some(name)) if next.is_file() => {
                            let root = folder_of(&next).to_owned();
                            let build_script = root.join("build.rs").is_file();
                            packages.insert(root.clone(), Package { name, root, build_script });
                            continue;
                        }
                        (Err(words), _) => return Err((next.display().to_string(), words)),
                    }
                }
                let found = survey.packages.get(&next).zip(survey.workspaces.get(&next));
                let (package, (root, _)) =
                    found.ok_or_else(|| (next.display().to_string(), "is no package any more".to_owned()))?;
                workspaces.insert(root.join("Cargo.toml"));
                let used = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
                for dependency in used {
                    let Some(path) = &dependency.path else { continue };
                    let manifest = real(&path.as_std_path().join("Cargo.toml"));
                    names.insert(manifest.clone(), dependency.name.clone());
                    rest.push(manifest);
                }
                if next != *manifest && why_no_plugin(package).is_none() {
                    needs.push(package.name.to_string());
                }
                let root = folder_of(&next).to_owned();
                let build_script = package.targets.iter().any(|target| target.is_custom_build());
                packages.insert(root.clone(), Package { name: package.name.to_string(), root, build_script });
            }
            let (package, (root, target)) = (&survey.packages[manifest], survey.workspaces[manifest].clone());
            if let Some(why) = why_no_plugin(package) {
                return Err((package.name.to_string(), why));
            }
            let (name, id) = (package.name.to_string(), package.id.clone());
            let library = package.targets.iter().find(|target| target.crate_types.contains(&CrateType::CDyLib));
            let library = library.map(|target| target.name.replace('-', "_")).unwrap_or_default();
            let folder = if self.here.starts_with(&root) { self.here.clone() } else { root.clone() };
            let made_of = packages.keys().cloned().collect();
            let plugin = Plugin { name, id, manifest: manifest.clone(), library, needs, packages: made_of };
            let empty = Group {
                root: root.clone(),
                folder,
                target,
                apart: None,
                plugins: Vec::new(),
                packages: BTreeMap::new(),
                workspaces: BTreeSet::new(),
            };
            let group = groups.entry(root).or_insert(empty);
            group.plugins.push(plugin);
            group.packages.extend(packages);
            group.workspaces.extend(workspaces);
        }
        Ok(set_apart(groups.into_values().collect()))
    }
}

/// Gives plugins whose library would replace that of another one a group and a folder of their own.
fn set_apart(groups: Vec<Group>) -> Vec<Group> {
    let mut taken = BTreeSet::new();
    let mut apart = Vec::new();
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|mut group| {
            let target = real(&group.target);
            let (stay, go) = std::mem::take(&mut group.plugins)
                .into_iter()
                .partition(|plugin| taken.insert((target.clone(), plugin.library.clone())));
            group.plugins = stay;
            apart.extend(go.into_iter().map(|plugin: Plugin| Group {
                apart: Some(plugin.name.clone()),
                plugins: vec![plugin],
                ..group.clone()
            }));
            group
        })
        .collect();
    groups.retain(|group| !group.plugins.is_empty());
    groups.extend(apart);
    groups
}

impl Group {
    /// A target folder of its own: a `cargo build` in a terminal and this one never wait for each other.
    pub(super) fn builds_into(&self) -> PathBuf {
        self.target.join(self.apart.as_ref().map_or_else(|| "midair".to_owned(), |plugin| format!("midair-{plugin}")))
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

fn needs_a_plugin(name: &str, needs: &[String]) -> String {
    let needs = needs.iter().map(|need| format!("`{need}`")).collect::<Vec<_>>().join(", ");
    format!(
        "plugin `{name}` depends on plugin {needs}, and a library can hold one plugin: both export what midair looks for.\n\
         Move what both need into a library without `midair_plugin::export!`, or put the export of the other one behind a feature\n\
         that only its own build switches on"
    )
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

fn shortest(here: &Path, folder: &Path) -> String {
    match folder.strip_prefix(here) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => folder.display().to_string(),
    }
}
