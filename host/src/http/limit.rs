//! How long may a handler take?
//!
//! Requests and the events of WebSockets are held to the same time. What takes longer is dropped where it waits, told and counted; one that
//! never waits can't be ended.

use std::sync::Arc;
use std::time::Duration;

use crate::call::invocation::Call;

/// Waits for the work of `call`, until the limit.
///
/// # Errors
///
/// That it took too long, in words; the work was dropped by then.
pub(super) async fn within<T>(limit: Option<Duration>, call: &Arc<Call>, work: impl Future<Output = T>) -> Result<T, String> {
    let Some(limit) = limit else { return Ok(work.await) };
    let call = Arc::clone(call);
    tokio::time::timeout(limit, work).await.map_err(|_| {
        let text = format!("the handler took longer than {} s", limit.as_secs_f64());
        call.failed(text.clone());
        text
    })
}
