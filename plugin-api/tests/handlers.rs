//! What do handlers get, and what becomes of what they return? Seen through `test::App`, as plugin authors see it.

use std::time::Duration;

use midair_plugin::test::App;
use midair_plugin::{Bytes, Ctx, Error, Html, IntoResponse, Json, Level, Plugin, Redirect, Request, Response, Result, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Deserialize)]
struct At {
    shelf: u32,
    item: String,
}

fn plugin() -> Plugin {
    Plugin::new()
        .get("/text", |_, _| "text")
        .get("/string", |_, _| "string".to_owned())
        .get("/bytes", |_, _| Bytes::from_static(b"\x01"))
        .get("/vec", |_, _| vec![1_u8, 2])
        .get("/html", |_, _| Html("<p>"))
        .get("/unit", |_, _| ())
        .get("/json", |_, _| Json(Order { item: "pen".to_owned(), count: 2 }))
        .get("/status", |_, _| (StatusCode::IM_A_TEAPOT, "short and stout"))
        .get("/headers", |_, _| (StatusCode::OK, [("x-one", "1"), ("x-two", "2")], "both"))
        .get("/bad-header", |_, _| ([("x bad", "1")], "never"))
        .get("/to", |_, _| Redirect::to("/text"))
        .get("/moved", |_, _| Redirect::permanent("/text"))
        .get("/broken", |_, _| -> Result<String> { Ok("x".parse::<u8>()?.to_string()) })
        .get("/refused", |_, _| -> Result<&str> { Err(Error::new(StatusCode::FORBIDDEN, "not you")) })
        .get("/either/{yes}", |req: Request, _| -> Result<&str, (StatusCode, &str)> {
            if req.path() == "/either/yes" { Ok("yes") } else { Err((StatusCode::CONFLICT, "no")) }
        })
        .get("/shelf/{shelf}/{item}", |req: Request, _| -> Result<String> {
            let At { shelf, item } = req.params()?;
            Ok(format!("{shelf} {item}"))
        })
        .get("/number/{n}", |req: Request, _| -> Result<String> { Ok((req.param::<i32>("n")? + 1).to_string()) })
        .get("/missing/{n}", |req: Request, _| -> Result<String> { req.param("m") })
        .get("/query", |req: Request, _| -> Result<Json<Order>> { Ok(Json(req.query()?)) })
        .post("/json", |req: Request, _| -> Result<Json<Order>> { Ok(Json(req.json()?)) })
        .post("/form", |req: Request, _| -> Result<Json<Order>> { Ok(Json(req.form()?)) })
        .post("/echo", |req: Request, _| -> Result<String> {
            Ok(format!("{} {} {:?} {:?}", req.method(), req.text()?, req.header("X-Seen"), req.headers().get("x-seen")))
        })
        .put("/put", |_, _| "put")
        .patch("/patch", |_, _| "patch")
        .route("PURGE", "/purge", |_, _| "purged")
}

fn said(response: &Response) -> (u16, String) {
    (response.status().as_u16(), response.text())
}

#[test]
fn results_become_the_answers_that_their_types_say() {
    let app = App::new(plugin());
    for (path, status, kind, body) in [
        ("/text", 200, "text/plain; charset=utf-8", "text"),
        ("/string", 200, "text/plain; charset=utf-8", "string"),
        ("/bytes", 200, "application/octet-stream", "\u{1}"),
        ("/vec", 200, "application/octet-stream", "\u{1}\u{2}"),
        ("/html", 200, "text/html; charset=utf-8", "<p>"),
        ("/unit", 200, "", ""),
        ("/json", 200, "application/json", r#"{"item":"pen","count":2}"#),
        ("/status", 418, "text/plain; charset=utf-8", "short and stout"),
        ("/headers", 200, "text/plain; charset=utf-8", "both"),
        ("/bad-header", 500, "text/plain; charset=utf-8", "invalid HTTP header name"),
        ("/to", 303, "", ""),
        ("/moved", 308, "", ""),
        ("/broken", 500, "text/plain; charset=utf-8", "invalid digit found in string"),
        ("/refused", 403, "text/plain; charset=utf-8", "not you"),
        ("/either/yes", 200, "text/plain; charset=utf-8", "yes"),
        ("/either/no", 409, "text/plain; charset=utf-8", "no"),
    ] {
        let response = app.get(path);
        let found = response.headers().get("content-type").map_or("", |kind| kind.to_str().expect("text"));
        assert_eq!((said(&response), found), ((status, body.to_owned()), kind), "{path}");
    }
    assert_eq!(app.get("/headers").headers()["x-two"], "2");
    assert_eq!(app.get("/to").headers()["location"], "/text");
}

#[test]
fn what_a_request_says_is_typed_and_a_misfit_is_told_to_the_client() {
    let app = App::new(plugin());
    for (path, status, body) in [
        ("/shelf/7/a%20pen", 200, "7 a pen"),
        ("/shelf/x/pen", 400, "the path doesn't fit: invalid digit found in string"),
        ("/number/41", 200, "42"),
        ("/number/x", 400, "`x` in the path isn't a valid n: invalid digit found in string"),
        ("/missing/1", 500, "the route has no parameter `{m}`"),
        ("/query?item=pen&count=2", 200, r#"{"item":"pen","count":2}"#),
        ("/query?item=pen", 400, "the query doesn't fit: missing field `count`"),
        ("/query?item=%ff&count=2", 400, "the query isn't UTF-8"),
        ("/nowhere", 404, ""),
        ("/put", 405, ""),
    ] {
        assert_eq!(said(&app.get(path)), (status, body.to_owned()), "{path}");
    }
}

#[test]
fn bodies_are_read_as_what_they_say_they_are() {
    let app = App::new(plugin());
    let post = |path: &str, kind: &str, body: &'static str| {
        said(&app.send(Request::build("POST", path).header("content-type", kind).body(body).finish()))
    };
    for (path, kind, body, status, answer) in [
        ("/json", "application/json; charset=utf-8", r#"{"item":"pen","count":2}"#, 200, r#"{"item":"pen","count":2}"#),
        ("/json", "application/problem+json", r#"{"item":"pen","count":2}"#, 200, r#"{"item":"pen","count":2}"#),
        ("/json", "text/plain", "{}", 415, "expected a body with `content-type: application/json`"),
        ("/json", "application/json", "{", 400, "the body doesn't fit: EOF while parsing an object at line 1 column 1"),
        ("/json", "application/json", "{} {}", 422, "the body doesn't fit: missing field `item` at line 1 column 2"),
        ("/form", "application/x-www-form-urlencoded", "item=a+pen&count=2", 200, r#"{"item":"a pen","count":2}"#),
        ("/form", "application/x-www-form-urlencoded", "item=%ff&count=2", 400, "the form isn't UTF-8"),
        ("/form", "application/x-www-form-urlencoded", "item=pen", 422, "the form doesn't fit: missing field `count`"),
        ("/form", "application/json", "{}", 415, "expected a body with `content-type: application/x-www-form-urlencoded`"),
    ] {
        assert_eq!(post(path, kind, body), (status, answer.to_owned()), "{path} {kind} {body}");
    }
    let (status, text) = post("/json", "application/json", r#"{"item":"pen","count":"two"}"#);
    assert_eq!(status, 422);
    assert!(text.starts_with("the body doesn't fit: count: invalid type: string"), "{text}");
    let echo = app.send(Request::build("POST", "/echo").header("x-seen", "yes").body("hi").finish());
    assert_eq!(echo.text(), r#"POST hi Some("yes") Some("yes")"#);
    let text = |method: &str, path: &str| app.send(Request::build(method, path).finish()).text();
    assert_eq!([text("PUT", "/put"), text("PATCH", "/patch"), text("PURGE", "/purge")], ["put", "patch", "purged"]);
    assert_eq!(app.send(Request::build("GET", "/").header("a b", "c").finish()).status(), 500);
}

#[test]
fn a_handler_sleeps_logs_and_asks_another_route() {
    async fn outer(_: Request, ctx: Ctx) -> Result<String> {
        ctx.sleep(Duration::from_millis(1)).await?;
        ctx.warn("asking");
        let inner = ctx.call(Request::build("POST", "/inner").json(&json!({ "n": 1 })).finish()?).await?;
        let absent = ctx.call(Request::build("GET", "/absent").finish()?).await?;
        let broken = ctx.call(Request::build("GET", "/broken").finish()?).await;
        Ok(format!("{} {} {}", inner.text(), absent.status(), broken.is_err()))
    }
    fn inner(req: Request, ctx: Ctx) -> Result<Response> {
        ctx.sleep(Duration::from_millis(1)).wait()?;
        Ok((StatusCode::CREATED, Json(req.json::<serde_json::Value>()?)).into_response())
    }
    let broken = |_, _| -> Result<&'static str> { Err(Error::internal("broken")) };
    let app = App::new(Plugin::new().get("/outer", outer).post("/inner", inner).get("/broken", broken));
    assert_eq!(app.get("/outer").text(), r#"{"n":1} 404 Not Found true"#);
    assert_eq!(app.log(), [(Level::Warn, "asking".to_owned())]);
}

#[test]
fn tables_cells_counters_and_batches_keep_what_they_are_told() -> Result<()> {
    let app = App::new(Plugin::new().init(|ctx| {
        ctx.cell("motto").set(&"first".to_owned()).wait()?;
        Ok(())
    }));
    let ctx = app.ctx();
    let order = |count| Order { item: "pen".to_owned(), count };
    let orders = ctx.table::<Order>("orders");
    assert!(orders.insert("a", &order(1)).wait()?);
    assert!(!orders.insert("a", &order(2)).wait()?);
    let (value, revision) = orders.entry("a").wait()?.expect("a value");
    assert_eq!(value, order(1));
    let newer = orders.compare_and_set("a", revision, &order(3)).wait()?.expect("it fits");
    assert!(newer > revision && orders.compare_and_set("a", revision, &order(4)).wait()?.is_none());
    assert_eq!(orders.update("a", |order| order.count += 1).wait()?, Some(order(4)));
    assert_eq!(orders.update("b", |order| order.count += 1).wait()?, None);

    let sold = ctx.counter("sold");
    let batch = |expected| ctx.batch().put_if(&orders, "b", expected, &order(9)).remove(&orders, "a").add(&sold, 5);
    assert!(!batch(77).commit().wait()? && orders.get("a").wait()?.is_some() && sold.get().wait()? == 0);
    assert!(batch(0).commit().wait()? && orders.get("a").wait()?.is_none() && sold.add(1).wait()? == 6);

    orders.put("c", &order(1)).wait()?;
    let keys = |rows: Vec<(String, Order)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(orders.scan("").wait()?), ["b", "c"]);
    assert_eq!((keys(orders.page(Some("b"), 5).wait()?), orders.count().wait()?), (vec!["c".to_owned()], 2));
    assert!(orders.remove("c").wait()? && !orders.remove("c").wait()?);

    let motto = ctx.cell::<String>("motto");
    assert_eq!(motto.update(|motto| motto.push('!')).wait()?, Some("first!".to_owned()));
    assert_eq!(ctx.table_of::<Order>("test", "orders").get("b").wait()?, Some(order(9)));
    Ok(())
}

#[test]
fn a_value_that_another_type_wrote_is_an_error_with_key_path_and_expectation() -> Result<()> {
    #[derive(Serialize, Deserialize)]
    struct Older {
        item: String,
        count: String,
    }
    let app = App::new(Plugin::new());
    app.ctx().table("orders").put("a", &Older { item: "pen".to_owned(), count: "two".to_owned() }).wait()?;
    let error = app.ctx().table::<Order>("orders").get("a").wait().expect_err("it can't be read").to_string();
    let misfit = "at `count` can't be read as `handlers::Order`: invalid type: string \"two\", expected u32";
    assert_eq!(error, format!("orders[\"a\"] {misfit}"));
    Ok(())
}

#[test]
fn selftests_and_smokes_run_on_demand_and_the_first_that_fails_is_named() {
    fn orders(ctx: Ctx) -> Result<()> {
        let answer = ctx.call(Request::build("GET", "/probed").finish()?).wait()?;
        if answer.text() == "true" { Ok(()) } else { Err(Error::internal(format!("is_probe is {}", answer.text()))) }
    }
    let probed = || Plugin::new().get("/probed", |_, ctx: Ctx| ctx.is_probe().to_string()).selftest("orders", orders);
    let app = App::new(probed().smoke("GET /probed", 200).smoke("GET /nowhere", 404));
    app.selftest();
    assert_eq!(app.get("/probed").text(), "false");
    let fails = |plugin: Plugin| {
        let app = App::new(plugin);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| app.selftest())).expect_err("it fails");
        panic.downcast_ref::<String>().expect("text").clone()
    };
    assert_eq!(fails(probed().smoke("GET /probed", 201)), "the smoke GET /probed is answered 200, not 201: true");
    let broken = probed().selftest("stock", |_| Err(Error::internal("no stock")));
    assert_eq!(fails(broken), "the self-test stock: no stock");
}

#[test]
#[should_panic(expected = "smoke(\"/healthz\"): write a method and a path, such as GET /healthz")]
fn a_smoke_that_is_no_request_is_told_where_it_is_written() {
    let _ = Plugin::new().smoke("/healthz", 200);
}
