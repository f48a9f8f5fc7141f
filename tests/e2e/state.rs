//! What becomes of a plugin's state, and of its start, when its code is replaced?

use midair_tests::host::Launch;
use midair_tests::project::Project;
use serde_json::json;

/// A plugin with one table, a cell, a counter and an `init` hook.
fn source(value: &str, init: &str) -> String {
    format!(
        "
use midair_plugin::{{Ctx, Json, Plugin, Request, Result}};
use serde::{{Deserialize, Serialize}};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {{
    Plugin::new()
        .table::<Cart>(\"carts\")
        .init(init)
        .get(\"/carts/{{key}}\", get)
        .post(\"/carts/{{key}}\", put)
        .get(\"/hits\", hits)
        .get(\"/started\", started)
}}

{value}

fn init(ctx: Ctx) -> Result<()> {{
    {init}
    #[allow(unreachable_code)]
    {{
        ctx.counter(\"started\").add(1).wait()?;
        Ok(())
    }}
}}

async fn get(req: Request, ctx: Ctx) -> Result<Json<Option<Cart>>> {{
    Ok(Json(ctx.table::<Cart>(\"carts\").get(&req.param::<String>(\"key\")?).await?))
}}

async fn put(req: Request, ctx: Ctx) -> Result<()> {{
    ctx.table::<Cart>(\"carts\").put(&req.param::<String>(\"key\")?, &req.json::<Cart>()?).await?;
    Ok(())
}}

fn hits(_: Request, ctx: Ctx) -> Result<String> {{
    Ok(ctx.counter(\"hits\").add(1).wait()?.to_string())
}}

fn started(_: Request, ctx: Ctx) -> Result<String> {{
    Ok(ctx.counter(\"started\").get().wait()?.to_string())
}}
"
    )
}

const CART: &str = "#[derive(Serialize, Deserialize)]\nstruct Cart { items: Vec<Item> }\n\n\
                    #[derive(Serialize, Deserialize)]\nstruct Item { name: String, count: u32 }";

#[test]
fn fault_33_a_value_that_new_code_cannot_read_refuses_it_with_key_path_and_expectation() {
    let project = Project::plugin("carts", &source(CART, ""));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    let cart = json!({ "items": [{ "name": "tea", "count": 2 }, { "name": "milk", "count": 1 }] });
    assert_eq!(midair.http().post("/carts/ann", &cart).status, 200);

    project.save("src/lib.rs", &source(&CART.replace("count: u32", "count: String"), ""));
    let reason = midair.rejected("E_STATE")["reason"].as_str().unwrap_or_default().to_owned();
    for part in ["carts", "ann", "items[0].count", "string"] {
        assert!(reason.contains(part), "{part} is missing in {reason:?}");
    }
    assert_eq!(midair.get("/carts/ann").json(), cart);

    project.save("src/lib.rs", &source(&CART.replace("count: u32", "#[serde(default)] note: String, count: u64"), ""));
    midair.published();
    let newer = json!({ "items": [{ "name": "tea", "note": "", "count": 2 }, { "name": "milk", "note": "", "count": 1 }] });
    assert_eq!(midair.get("/carts/ann").json(), newer);
}

#[test]
fn an_undeclared_table_that_cannot_be_read_is_an_error_of_the_request_that_reads_it() {
    let undeclared = |value: &str| source(value, "").replace("\n        .table::<Cart>(\"carts\")", "");
    let project = Project::plugin("undeclared", &undeclared(CART));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    assert_eq!(midair.http().post("/carts/ann", &json!({ "items": [{ "name": "tea", "count": 2 }] })).status, 200);
    project.save("src/lib.rs", &undeclared(&CART.replace("count: u32", "count: String")));
    midair.published();
    let answer = midair.get("/carts/ann");
    assert_eq!(answer.status, 500);
    assert!(["ann", "items[0].count", "string"].iter().all(|part| answer.body.contains(part)), "{answer:?}");
}

#[test]
fn fault_13_g6_an_init_that_fails_or_panics_is_refused_and_what_it_wrote_never_happened() {
    let project = Project::plugin("inits", &source(CART, ""));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    assert_eq!((midair.get("/started").body.as_str(), midair.get("/hits").body.as_str()), ("1", "1"));
    let generation = midair.get("/started").generation();
    for (what, init, words) in [
        (
            "an error",
            "ctx.counter(\"started\").add(100).wait()?; return Err(midair_plugin::Error::internal(\"no stock\"));",
            "no stock",
        ),
        ("an error of std", "let _: u32 = \"many\".parse()?;", "invalid digit"),
        ("a panic", "ctx.counter(\"started\").add(100).wait()?; panic!(\"at the start\");", "at the start"),
    ] {
        project.save("src/lib.rs", &source(CART, init));
        let rejected = midair.rejected("E_INIT");
        assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{what}: {rejected}");
        let answer = midair.get("/started");
        assert_eq!((answer.body.as_str(), answer.generation()), ("1", generation), "{what}");
    }
    project.save("src/lib.rs", &source(CART, "ctx.counter(\"mended\").add(1).wait()?;"));
    midair.published();
    assert_eq!((midair.get("/started").body.as_str(), midair.get("/hits").body.as_str()), ("2", "2"));
}

#[test]
fn a_plugin_whose_constructor_function_panics_is_refused() {
    let project = Project::plugin("constructs", &source(CART, ""));
    let mut midair = Launch::dev(&[project.root()]).start();
    midair.published();
    project.edit("src/lib.rs", "Plugin::new()\n", "if true { panic!(\"while put together\") }\n    Plugin::new()\n");
    let rejected = midair.wait_for("rejected", |event| event["event"] == "rejected");
    assert!(rejected["reason"].as_str().is_some_and(|reason| reason.contains("while put together")), "{rejected}");
    assert_eq!(midair.get("/hits").body, "1");
}
