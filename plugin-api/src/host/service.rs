//! What does a custom host do for its plugins?
//!
//! A host of somebody's own offers functions by name. A plugin calls them with values; the types are an agreement between the two.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::glue::operation::Operation;
use crate::host::ctx::Ctx;
use crate::host::link::Link;
use crate::host::message::{decode, encode};

/// A function that the host offers. Made by [`Ctx::service`].
#[derive(Clone)]
pub struct Service {
    link: Link,
    name: String,
}

impl Ctx {
    /// What a custom host offers by this name. `midair dev` and `midair run` offer nothing, nor does the probe: ask
    /// [`is_probe`](Self::is_probe) before a call in `init` or in a self-test.
    ///
    /// ```
    /// # use midair_plugin::{Ctx, Request, Result};
    /// #[derive(serde::Serialize)]
    /// struct Mail {
    ///     to: String,
    /// }
    ///
    /// async fn invite(_: Request, ctx: Ctx) -> Result<String> {
    ///     let id: u64 = ctx.service("mailer").call(&Mail { to: "a@example.org".to_owned() }).await?;
    ///     Ok(format!("mail {id} is on its way"))
    /// }
    /// ```
    #[must_use]
    pub fn service(&self, name: &str) -> Service {
        Service { link: self.0.clone(), name: name.to_owned() }
    }
}

impl Service {
    /// Calls it with `request`, which crosses as MessagePack with named fields, as its answer does.
    ///
    /// In `init` this reaches the host at once, and nothing undoes it if this code is rejected; the host can tell.
    ///
    /// # Errors
    ///
    /// If the host offers nothing by this name (it says what it does offer), if it refuses or panics, if this is the probe, or if what crosses
    /// can't be written or read.
    pub fn call<Req, Res>(&self, request: &Req) -> Operation<impl Future<Output = Result<Res>> + Send + 'static>
    where
        Req: Serialize + ?Sized,
        Res: DeserializeOwned,
    {
        let (link, name) = (self.link.clone(), self.name.clone());
        let request = encode(&format!("the request to the service {name}"), request);
        Operation::new(async move {
            let answer = link.service(&name, &request?).await?;
            decode(&format!("the answer of the service {name}"), &answer)
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}
