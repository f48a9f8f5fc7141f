//! Writes pairs of values, whole batches and halves of them.

use midair_plugin::{Ctx, Json, Plugin, Request, Result};

midair_plugin::export!(plugin);

fn plugin() -> Plugin {
    Plugin::new()
        .table::<u64>("pairs")
        .post("/pair/{n}", pair)
        .post("/blocking/{n}", blocking)
        .get("/pairs", pairs)
        .post("/half/{n}", half)
        .post("/large/{size}", large)
        .get("/large", |_, ctx: Ctx| async move {
            let large = ctx.table::<Vec<u8>>("large");
            Ok::<_, midair_plugin::Error>(format!("{:?} {:?}", large.get("x").await?.map(|x| x.len()), large.get("beside").await?))
        })
}

async fn pair(req: Request, ctx: Ctx) -> Result<()> {
    let (n, pairs) = (req.param::<u64>("n")?, ctx.table::<u64>("pairs"));
    ctx.batch().put(&pairs, &format!("a{n}"), &n).put(&pairs, &format!("b{n}"), &n).commit().await?;
    Ok(())
}

fn blocking(req: Request, ctx: Ctx) -> Result<String> {
    let n = req.param::<u64>("n")?;
    ctx.table::<u64>("pairs").put(&format!("a{n}"), &n).wait()?;
    ctx.table::<u64>("pairs").put(&format!("b{n}"), &n).wait()?;
    Ok(format!("{:?}", ctx.table::<u64>("pairs").get(&format!("a{n}")).wait()?))
}

/// No value has this revision.
async fn half(req: Request, ctx: Ctx) -> Result<String> {
    let (n, pairs) = (req.param::<u64>("n")?, ctx.table::<u64>("pairs"));
    Ok(ctx.batch().put(&pairs, &format!("a{n}"), &n).put_if(&pairs, &format!("b{n}"), u64::MAX, &n).commit().await?.to_string())
}

async fn pairs(_: Request, ctx: Ctx) -> Result<Json<Vec<(String, u64)>>> {
    Ok(Json(ctx.table::<u64>("pairs").scan("").await?))
}

async fn large(req: Request, ctx: Ctx) -> Result<()> {
    let (large, size) = (ctx.table::<Vec<u8>>("large"), req.param::<usize>("size")?);
    ctx.batch().put(&large, "beside", &vec![size as u8]).put(&large, "x", &vec![7; size]).commit().await?;
    Ok(())
}
