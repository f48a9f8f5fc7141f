//! What does a plugin do again and again?
//!
//! A job is declared, and the host keeps its time: the beats go on over a swap, on the code that serves when each is due.

use std::time::{Duration, SystemTime};

use midair_abi::{Handler, meta};

use crate::error::{Error, Result};
use crate::handler::plugin::{IntoReply, Plugin};
use crate::handler::request::Request;
use crate::host::ctx::Ctx;

/// What becomes of a beat that is due while an earlier one still runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is left out, and counted as skipped.
    #[default]
    Skip,
    /// It runs right after; at most one waits, and what is due meanwhile is left out.
    Queue,
    /// It runs beside it. Beats that are due while the host itself was held up all run then.
    Parallel,
}

/// When a job runs; see [`Plugin::every_with`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Every {
    period: Duration,
    overlap: Overlap,
}

impl Every {
    /// A beat every `period`; one that is due while the last one still runs is left out.
    pub fn new(period: Duration) -> Self {
        Self { period, overlap: Overlap::default() }
    }

    /// What becomes of a beat that is due while an earlier one still runs.
    pub fn overlap(self, overlap: Overlap) -> Self {
        Self { overlap, ..self }
    }
}

/// One run of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Counts the moments at which the job was due, from 1; those that were left out bear a number too.
    pub number: u64,
    /// When it was due.
    pub due: SystemTime,
}

impl Beat {
    /// What the host sends with a call.
    fn of(request: &Request) -> Result<Self> {
        let (number, due) = (request.param(Handler::BEAT)?, request.param(Handler::DUE)?);
        let due = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(due));
        Ok(Self { number, due: due.ok_or_else(|| Error::internal("the host says a time that is none"))? })
    }
}

impl Plugin {
    /// A job: runs every `period` while code with a job of this name serves, for the first time one period after it is published.
    ///
    /// The host keeps the time. A swap shifts no beat, leaves none out and runs none twice: each runs on the code that serves when it is
    /// due, and ends there. Newer code with another period has its first beat one such period after the last; code without the job ends it,
    /// unless it goes back out of its trial. A beat counts as a request does: it shows in `midair status`, and one that fails (an error or
    /// a panic) counts against code on trial; how long it takes doesn't. One that is due while the last one still runs is left out;
    /// [`every_with`](Self::every_with) has the other ways. One that still runs some time after newer code was published (`--retire-
    /// timeout`) is dropped where it waits and has failed; one that never pauses can't be, and is left behind: the job goes on with the
    /// newer code. One that waits for what nothing can wake it for, as `std::future::pending`, is dropped at once and has failed too.
    ///
    /// Jobs never run in the probe. In unit tests [`App::run_job`](crate::test::App::run_job) runs one once.
    ///
    /// ```
    /// use midair_plugin::{Ctx, Plugin, Result};
    /// use std::time::Duration;
    ///
    /// async fn rank(ctx: Ctx) -> Result<()> {
    ///     ctx.counter("ranked").add(1).await?;
    ///     Ok(())
    /// }
    ///
    /// let plugin = Plugin::new().every(Duration::from_secs(10), "trending", rank);
    /// ```
    ///
    /// A period below a millisecond, or a second job of the same name, has the host reject the plugin.
    pub fn every<R: IntoReply<M>, M>(self, period: Duration, name: &str, job: impl Fn(Ctx) -> R + Send + Sync + 'static) -> Self {
        self.job(Every::new(period), name, move |_, ctx| Ok(job(ctx)))
    }

    /// The same with more to say, and to know: the job also gets its [`Beat`].
    ///
    /// ```
    /// use midair_plugin::{Beat, Ctx, Every, Overlap, Plugin};
    /// use std::time::Duration;
    ///
    /// fn report(beat: Beat, ctx: Ctx) {
    ///     ctx.info(format!("report {}", beat.number));
    /// }
    ///
    /// let hourly = Every::new(Duration::from_secs(3600)).overlap(Overlap::Queue);
    /// let plugin = Plugin::new().every_with(hourly, "report", report);
    /// ```
    pub fn every_with<R: IntoReply<M>, M>(
        self,
        every: Every,
        name: &str,
        job: impl Fn(Beat, Ctx) -> R + Send + Sync + 'static,
    ) -> Self {
        self.job(every, name, move |request, ctx| Ok(job(Beat::of(&request)?, ctx)))
    }

    fn job<R: IntoReply<M>, M>(
        mut self,
        every: Every,
        name: &str,
        job: impl Fn(Request, Ctx) -> Result<R> + Send + Sync + 'static,
    ) -> Self {
        let overlap = match every.overlap {
            Overlap::Skip => meta::SKIP,
            Overlap::Queue => meta::QUEUE,
            Overlap::Parallel => meta::PARALLEL,
        };
        let period = u64::try_from(every.period.as_nanos()).unwrap_or(u64::MAX);
        let more = vec![(meta::PERIOD, period.to_string()), (meta::OVERLAP, overlap.to_owned())];
        self.add_work(Handler::EVERY, name, more, move |request, ctx| match job(request, ctx) {
            Ok(reply) => reply.into_reply(),
            Err(error) => Err::<(), _>(error).into_reply(),
        });
        self
    }
}
