//! Do fifty edits of all kinds go live one after the other, with all state kept?
//!
//! What the plugin is made of is a [`Model`]; an edit changes the model, and files and expected answers both follow from it. After each
//! edit all answers are asked for, old and new.

use std::collections::{BTreeMap, BTreeSet};

use midair_tests::cargo;
use midair_tests::host::{Launch, Midair};
use midair_tests::project::{Kind, Project};
use serde_json::json;

/// A plugin that can be changed in every way that counts.
#[derive(Clone, Default)]
struct Model {
    body: usize,
    routes: BTreeSet<usize>,
    modules: BTreeMap<usize, &'static str>,
    included: usize,
    word: usize,
    fields: BTreeSet<usize>,
    clicks_are_text: bool,
}

enum Edit {
    Body,
    NewRoute,
    RemovedRoute,
    NewModule,
    RenamedFile,
    IncludedFile,
    PathDependency,
    AddedField,
    ChangedFieldType,
    TypePutBack,
}

use Edit::*;

/// Five rounds of ten, none in the order of the round before.
const EDITS: [Edit; 50] = [
    Body,
    NewRoute,
    NewModule,
    IncludedFile,
    PathDependency,
    AddedField,
    RenamedFile,
    RemovedRoute,
    ChangedFieldType,
    TypePutBack, //
    IncludedFile,
    Body,
    AddedField,
    NewRoute,
    ChangedFieldType,
    TypePutBack,
    PathDependency,
    NewModule,
    RenamedFile,
    RemovedRoute, //
    PathDependency,
    ChangedFieldType,
    TypePutBack,
    NewModule,
    Body,
    NewRoute,
    AddedField,
    IncludedFile,
    RemovedRoute,
    RenamedFile, //
    NewModule,
    RenamedFile,
    NewRoute,
    PathDependency,
    IncludedFile,
    RemovedRoute,
    Body,
    ChangedFieldType,
    TypePutBack,
    AddedField, //
    AddedField,
    NewRoute,
    RemovedRoute,
    ChangedFieldType,
    TypePutBack,
    Body,
    IncludedFile,
    NewModule,
    PathDependency,
    RenamedFile,
];

impl Model {
    fn apply(&mut self, edit: &Edit, step: usize) {
        match edit {
            Body => self.body = step,
            NewRoute => drop(self.routes.insert(step)),
            RemovedRoute => drop(self.routes.pop_last().expect("a route was added before")),
            NewModule => drop(self.modules.insert(step, "first")),
            RenamedFile => *self.modules.last_entry().expect("a module was added before").get_mut() = "renamed",
            IncludedFile => self.included = step,
            PathDependency => self.word = step,
            AddedField => drop(self.fields.insert(step)),
            ChangedFieldType => self.clicks_are_text = true,
            TypePutBack => self.clicks_are_text = false,
        }
    }

    fn files(&self) -> BTreeMap<String, String> {
        let Self { body, word, included, .. } = self;
        let each = |line: &dyn Fn(&usize) -> String, all: &BTreeSet<usize>| all.iter().map(line).collect::<String>();
        let modules: BTreeSet<usize> = self.modules.keys().copied().collect();
        let file = |module: &usize| format!("{}_{module}", self.modules[module]);
        let fields = each(&|field| format!("    #[serde(default)]\n    field_{field}: u32,\n"), &self.fields);
        let given = each(&|field| format!(", field_{field}: 0"), &self.fields);
        let routes = each(&|route| format!("        .get(\"/route/{route}\", |_, _| \"route {route}\")\n"), &self.routes);
        let module_routes =
            each(&|module| format!("        .get(\"/module/{module}\", |_, _| {}::TEXT)\n", file(module)), &modules);
        let clicks = if self.clicks_are_text { "String" } else { "u64" };
        let (zero, follow) = if self.clicks_are_text {
            ("String::new()", "link.clicks.push('x'); 0")
        } else {
            ("0", "link.clicks += 1; link.clicks")
        };
        let source = format!(
            "{mods}
use midair_plugin::{{Ctx, Json, Plugin, Request, Result}};
use serde::{{Deserialize, Serialize}};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {{
    Plugin::new()
        .table::<Link>(\"links\")
        .get(\"/\", |_, _| \"body {body}\")
        .get(\"/included\", |_, _| include_str!(\"../texts/included.txt\"))
        .get(\"/word\", |_, _| fifty_words::WORD)
        .get(\"/hit\", hit)
        .get(\"/links\", links)
        .post(\"/links/{{slug}}\", make)
        .get(\"/links/{{slug}}\", follow)
{routes}{module_routes}}}

#[derive(Serialize, Deserialize)]
struct Link {{
    url: String,
    clicks: {clicks},
{fields}}}

async fn hit(_: Request, ctx: Ctx) -> Result<String> {{
    Ok(ctx.counter(\"hits\").add(1).await?.to_string())
}}

async fn make(req: Request, ctx: Ctx) -> Result<()> {{
    let link = Link {{ url: req.text()?.to_owned(), clicks: {zero}{given} }};
    ctx.table::<Link>(\"links\").put(&req.param::<String>(\"slug\")?, &link).await?;
    Ok(())
}}

async fn follow(req: Request, ctx: Ctx) -> Result<String> {{
    let mut clicks = 0;
    let count = |link: &mut Link| clicks = {{ {follow} }};
    ctx.table::<Link>(\"links\").update(&req.param::<String>(\"slug\")?, count).await?;
    Ok(clicks.to_string())
}}

async fn links(_: Request, ctx: Ctx) -> Result<Json<Vec<(String, Link)>>> {{
    Ok(Json(ctx.table::<Link>(\"links\").scan(\"\").await?))
}}
",
            mods = each(&|module| format!("mod {};\n", file(module)), &modules),
        );
        let mut files = BTreeMap::from([
            ("fifty/src/lib.rs".to_owned(), source),
            ("fifty/texts/included.txt".to_owned(), format!("included {included}")),
            ("fifty_words/src/lib.rs".to_owned(), format!("pub const WORD: &str = \"word {word}\";\n")),
        ]);
        files.extend(modules.iter().map(|module| {
            // It says where it is: a file that is renamed and runs as before would be no change.
            let text = format!("pub(crate) const TEXT: &str = concat!(\"module {module} in \", module_path!());\n");
            (format!("fifty/src/{}.rs", file(module)), text)
        }));
        files
    }

    /// Saves what differs from `before`: files that are new or changed, the crate's root behind all that it names, then removals.
    fn save(&self, project: &Project, before: &BTreeMap<String, String>) {
        let files = self.files();
        let gone = before.iter().filter(|(path, _)| !files.contains_key(*path));
        let mut gone: Vec<_> = gone.collect();
        for (path, text) in files.iter().filter(|(path, text)| before.get(*path) != Some(*text)).rev() {
            match gone.iter().position(|(_, old)| *old == text) {
                Some(renamed) => project.rename(gone.remove(renamed).0, path),
                None => project.save(path, text),
            }
        }
        gone.iter().for_each(|(path, _)| project.remove(path));
    }

    /// What is wrong with what the host answers now, if anything is.
    fn misses(&self, midair: &Midair, last_step: usize) -> Option<String> {
        let mut expected = vec![
            ("/".to_owned(), 200, format!("body {}", self.body)),
            ("/included".to_owned(), 200, format!("included {}", self.included)),
            ("/word".to_owned(), 200, format!("word {}", self.word)),
        ];
        for step in 1..=last_step {
            let shown = |there: bool, text: &str| if there { (200, format!("{text} {step}")) } else { (404, String::new()) };
            let (status, body) = shown(self.routes.contains(&step), "route");
            expected.push((format!("/route/{step}"), status, body));
            let (status, mut body) = shown(self.modules.contains_key(&step), "module");
            if let Some(file) = self.modules.get(&step) {
                body += &format!(" in fifty::{file}_{step}");
            }
            expected.push((format!("/module/{step}"), status, body));
        }
        expected.into_iter().find_map(|(path, status, body)| {
            let answer = midair.get(&path);
            let fits = answer.status == status && (status == 404 || answer.body == body);
            (!fits).then(|| format!("{path}: expected {status} {body:?}, got {answer:?}"))
        })
    }
}

#[test]
fn fifty_edits_outside_the_repository_go_live_in_an_installed_midair_and_links_and_counters_stay() {
    let mut model = Model::default();
    let project = Project::packages(&[("fifty_words", Kind::Library, ""), ("fifty", Kind::Plugin, "")]);
    model.save(&project, &BTreeMap::new());
    let command = std::process::Command::new(cargo::installed_midair());
    let mut midair = Launch::of(command, "dev", &[&project.path("fifty")]).start();
    midair.published();
    let pid = midair.status()["pid"].clone();
    assert_eq!(pid, midair.pid());
    for slug in ["a", "b", "c"] {
        assert_eq!(midair.http().ask("POST", &format!("/links/{slug}"), &[], &format!("https://{slug}")).status, 200);
    }

    let mut generation = midair.get("/").generation();
    let (mut live, mut published) = (model.clone(), 0);
    for (step, edit) in (1..).zip(&EDITS) {
        let before = model.files();
        model.apply(edit, step);
        model.save(&project, &before);
        match edit {
            ChangedFieldType => {
                let rejected = midair.rejected("E_STATE");
                let reason = rejected["reason"].as_str().unwrap_or_default();
                for part in ["links", "\"a\"", "clicks", "string"] {
                    assert!(reason.contains(part), "step {step}: {part} is missing in {reason:?}");
                }
                assert_eq!(live.misses(&midair, step), None, "step {step}: the code before keeps serving");
                assert_eq!(midair.get("/").generation(), generation, "step {step}: no number was used up in sight");
            }
            TypePutBack => {
                // The very source of what serves: no new code need be published, but nothing may be refused.
                let outcome = midair.outcome();
                assert_ne!(outcome["event"], "rejected", "step {step}: {outcome}");
                assert_eq!(live.misses(&midair, step), None, "step {step}");
                generation = midair.get("/").generation();
            }
            _ => {
                // An edit of several files may be seen in parts.
                midair.published();
                while let Some(miss) = model.misses(&midair, step) {
                    midair.wait_for(&format!("step {step}: {miss}"), |event| event["event"] == "published");
                }
                let newer = midair.get("/").generation();
                assert!(newer > generation, "step {step}: {newer} after {generation}");
                (generation, published, live) = (newer, published + 1, model.clone());
            }
        }
        assert_eq!(midair.get("/hit").body, step.to_string(), "step {step}: the counter stays");
        assert_eq!(midair.get("/links/b").body, step.to_string(), "step {step}: clicks stay");
        let links = midair.get("/links").json();
        let urls: Vec<_> = links.as_array().expect("a list").iter().map(|link| &link[1]["url"]).collect();
        assert_eq!(urls, ["https://a", "https://b", "https://c"], "step {step}: links stay");
        if let Some(field) = live.fields.last() {
            assert_eq!(links[0][1][format!("field_{field}")], json!(0), "step {step}: an added field has its default");
        }
        assert_eq!(midair.status()["pid"], pid, "step {step}: the process stays");
    }
    assert_eq!(published, 40);
    assert!(midair.terminate().status.success());
}
