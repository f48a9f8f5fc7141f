//! Values of all kinds: bytes, numbers as keys, floats.

use midair_plugin::{Ctx, Plugin, Request, Result};
use serde::{Deserialize, Serialize};

midair_plugin::export!(plugin);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: String,
    #[serde(with = "raw")]
    raw: Vec<u8>,
    by_number: std::collections::BTreeMap<u32, f64>,
}

mod raw {
    pub(super) fn serialize<S: serde::Serializer>(raw: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(raw)
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Raw;
        impl serde::de::Visitor<'_> for Raw {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, raw: &[u8]) -> Result<Vec<u8>, E> {
                Ok(raw.to_vec())
            }
        }
        from.deserialize_bytes(Raw)
    }
}

fn thing(n: u32) -> Thing {
    Thing { name: format!("thing {n}"), raw: vec![n as u8, 0, 255], by_number: [(n, f64::from(n) / 2.0)].into() }
}

fn plugin() -> Plugin {
    Plugin::new().table::<Thing>("things").post("/make/{count}", make).get("/right", right)
}

async fn make(req: Request, ctx: Ctx) -> Result<()> {
    for n in 0..req.param::<u32>("count")? {
        ctx.table::<Thing>("things").put(&format!("{n:05}/é"), &thing(n)).await?;
    }
    ctx.counter("made").add(1).await?;
    Ok(())
}

async fn right(_: Request, ctx: Ctx) -> Result<String> {
    let things = ctx.table::<Thing>("things").scan("").await?;
    let right =
        things.iter().enumerate().filter(|(n, (key, found))| *key == format!("{n:05}/é") && *found == thing(*n as u32)).count();
    Ok(format!("{right} of {}", things.len()))
}
