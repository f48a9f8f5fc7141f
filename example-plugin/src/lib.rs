//! A link shortener. Run `cargo run -- dev`, make some links, then change this file and save: the links stay.

use std::time::Duration;

use midair_plugin::{
    Conn, Ctx, Html, IntoResponse, Json, Message, Plugin, Redirect, Request, Response, Result, Socket, StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .table::<Link>("links")
        .get(
            "/",
            |_, _| "POST /links {\"url\": \"https://..\"} makes a short link, GET /stats counts, GET /live shows it in a browser\n",
        )
        .post("/links", create)
        .get("/links", list)
        .delete("/links/{slug}", remove)
        .get("/stats", stats)
        .get("/live", |_, _| Html(LIVE))
        .socket("/live", Socket::new().open(watch))
        .every(Duration::from_secs(1), "live", push)
        .get("/{slug}", follow)
}

/// Lives in the host, through every swap. A field that is added later needs `#[serde(default)]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Link {
    url: String,
    clicks: u64,
}

#[derive(Deserialize)]
struct NewLink {
    url: String,
    slug: Option<String>,
}

const LONGEST_URL: usize = 2_000;
const LONGEST_SLUG: usize = 40;
const RESERVED: [&str; 3] = ["links", "stats", "live"];

async fn create(req: Request, ctx: Ctx) -> Result<Response> {
    let NewLink { url, slug } = match req.json() {
        Ok(new) => new,
        Err(error) => return refuse(error.status(), error.to_string()),
    };
    if !(url.starts_with("http://") || url.starts_with("https://")) || url.contains(char::is_whitespace) {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, "`url` must be an http or https address");
    }
    if url.len() > LONGEST_URL {
        return refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("`url` is longer than {LONGEST_URL} bytes"));
    }
    let link = Link { url, clicks: 0 };
    let links = ctx.table::<Link>("links");
    let slug = match slug {
        Some(slug) if !is_slug(&slug) => {
            let rule = format!("`slug` takes 1 to {LONGEST_SLUG} letters, digits, - and _, and isn't one of {RESERVED:?}");
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, rule);
        }
        Some(slug) if !links.insert(&slug, &link).await? => {
            return refuse(StatusCode::CONFLICT, format!("the slug {slug} is taken"));
        }
        Some(slug) => slug,
        None => loop {
            let slug = short(ctx.counter("made").add(1).await?);
            if links.insert(&slug, &link).await? {
                break slug;
            }
        },
    };
    ctx.info(format!("{slug} leads to {}", link.url));
    Ok((StatusCode::CREATED, Json(json!({ "slug": slug }))).into_response())
}

async fn follow(req: Request, ctx: Ctx) -> Result<Response> {
    let slug: String = req.param("slug")?;
    match ctx.table::<Link>("links").update(&slug, |link| link.clicks += 1).await? {
        Some(link) => Ok(Redirect::temporary(link.url).into_response()),
        None => refuse(StatusCode::NOT_FOUND, format!("no link {slug}")),
    }
}

#[derive(Deserialize)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(req: Request, ctx: Ctx) -> Result<Response> {
    let page: Page = match req.query() {
        Ok(page) => page,
        Err(error) => return refuse(error.status(), error.to_string()),
    };
    let limit = page.limit.unwrap_or(50).clamp(1, 1_000);
    let links = ctx.table::<Link>("links").page(page.after.as_deref(), limit).await?;
    let next = (links.len() == limit).then(|| links.last().map(|(slug, _)| slug.clone())).flatten();
    let links: Vec<_> = links.iter().map(|(slug, link)| json!({ "slug": slug, "url": link.url, "clicks": link.clicks })).collect();
    Ok(Json(json!({ "links": links, "next": next })).into_response())
}

async fn stats(_: Request, ctx: Ctx) -> Result<Response> {
    Ok(Json(count(&ctx).await?).into_response())
}

async fn count(ctx: &Ctx) -> Result<Value> {
    let mut links = ctx.table::<Link>("links").scan("").await?;
    links.sort_by_key(|(_, link)| std::cmp::Reverse(link.clicks));
    let clicks: u64 = links.iter().map(|(_, link)| link.clicks).sum();
    let top: Vec<_> = links.iter().take(10).map(|(slug, link)| json!({ "slug": slug, "clicks": link.clicks })).collect();
    Ok(json!({ "links": links.len(), "clicks": clicks, "top": top }))
}

const LIVE: &str = "<!doctype html><meta charset=utf-8><title>live</title><h1>Live</h1><pre></pre><script>
new WebSocket(location.href.replace('http', 'ws')).onmessage = message => document.querySelector('pre').textContent = message.data
</script>";

/// The connection is the host's: it stays open through every swap.
async fn watch(conn: Conn, _: Ctx) -> Result<()> {
    conn.join("live").await
}

/// Every second, by the code that serves then: change what `count` counts, save, and look at an open page.
async fn push(ctx: Ctx) -> Result<()> {
    let text = serde_json::to_string_pretty(&count(&ctx).await?)?;
    ctx.room("live").send(Message::Text(text)).await?;
    Ok(())
}

async fn remove(req: Request, ctx: Ctx) -> Result<Response> {
    let slug: String = req.param("slug")?;
    if ctx.table::<Link>("links").remove(&slug).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        refuse(StatusCode::NOT_FOUND, format!("no link {slug}"))
    }
}

/// An error as this service words it: JSON with one field.
fn refuse(status: StatusCode, reason: impl Into<String>) -> Result<Response> {
    Ok((status, Json(json!({ "error": reason.into() }))).into_response())
}

fn is_slug(slug: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=LONGEST_SLUG).contains(&slug.len()) && slug.chars().all(plain) && !RESERVED.contains(&slug)
}

/// A number in letters: 1 is b, 26 is ba.
fn short(number: i64) -> String {
    let (mut rest, mut letters) = (number.unsigned_abs(), Vec::new());
    loop {
        letters.push(b'a' + (rest % 26) as u8);
        rest /= 26;
        if rest == 0 {
            break letters.iter().rev().map(|letter| *letter as char).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use midair_plugin::test::App;

    fn make(app: &App, url: &str, slug: Option<&str>) -> (u16, Value) {
        let response = app.post("/links", &json!({ "url": url, "slug": slug }));
        (response.status().as_u16(), response.json().expect("JSON"))
    }

    #[test]
    fn a_link_is_made_followed_counted_and_removed() {
        let app = App::new(plugin());
        assert_eq!(make(&app, "https://example.org", None), (201, json!({ "slug": "b" })));
        let response = app.get("/b");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["location"]),
            (307, &"https://example.org".parse().expect("a header"))
        );
        let stats: Value = app.get("/stats").json().expect("JSON");
        assert_eq!(stats, json!({ "links": 1, "clicks": 1, "top": [{ "slug": "b", "clicks": 1 }] }));
        assert_eq!(app.delete("/links/b").status(), 204);
        assert_eq!((app.get("/b").status(), app.delete("/links/b").status()), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    }

    #[test]
    fn whoever_watches_is_told_the_statistics() {
        let app = App::new(plugin());
        make(&app, "https://example.org", Some("home"));
        let page = app.socket("/live");
        assert_eq!(app.get("/home").status(), 307);
        app.run_job("live").expect("it runs");
        let [Message::Text(text)] = &page.received()[..] else { panic!("one message") };
        let told: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!((&told["clicks"], &told["top"][0]["slug"]), (&json!(1), &json!("home")));
    }

    #[test]
    fn what_makes_no_link_is_refused_with_a_reason() {
        let app = App::new(plugin());
        let long = format!("https://{}", "x".repeat(LONGEST_URL));
        for (url, slug, status) in [
            ("ftp://x", None, 422),
            ("https://a b", None, 422),
            (&long, None, 422),
            ("https://x", Some("no spaces"), 422),
            ("https://x", Some("stats"), 422),
            ("https://x", Some("ok"), 201),
            ("https://x", Some("ok"), 409),
        ] {
            assert_eq!(make(&app, url, slug).0, status, "{url} {slug:?}");
        }
    }

    #[test]
    fn links_are_listed_by_slug_page_by_page() {
        let app = App::new(plugin());
        for slug in ["c", "a", "b"] {
            make(&app, "https://x", Some(slug));
        }
        let page = |target: &str| -> Vec<String> {
            let page: Value = app.get(target).json().expect("JSON");
            page["links"].as_array().expect("a list").iter().map(|link| link["slug"].as_str().expect("text").to_owned()).collect()
        };
        assert_eq!(page("/links?limit=2"), ["a", "b"]);
        assert_eq!(page("/links?limit=2&after=b"), ["c"]);
        assert_eq!(app.get("/links?limit=few").status(), 400);
    }
}
