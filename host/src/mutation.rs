//! Which deliberate bug does this host have?
//!
//! None: what ships knows no bugs to choose from. A build with `--cfg midair_seeded`, which only a test makes, has all of them built in, and
//! the environment says which one is awake. They show that the tests bite: each must turn a named test red.

/// A mistake that this project could have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "some rooms aren't part of every build")]
pub(crate) enum Bug {
    /// A handler that calls another one finds it in what is live by then.
    PointerPerHandler,
    /// A call holds its own generation, and not the snapshot that it was admitted to.
    LeaseNotHeld,
    /// A library is closed when its generation stops serving, whoever still runs in it.
    UnmapsAtRetire,
    /// What was verified is a copy; what is opened lies at the artifact's path.
    OpensThePath,
    /// What is published starts after it was published.
    StoreBeforeInit,
    /// A publish is said without a look at what the slot has.
    SaysUnseen,
    /// What `init` writes is written at once.
    WritesUnqueued,
    /// What `init` wrote never comes out of the queue.
    WritesForgotten,
    /// The digest beside an artifact is read, and that is all.
    HashIgnored,
    /// What the probe found is told to nobody.
    ProbeIgnored,
    /// Every artifact runs what serves already.
    AlwaysUnchanged,
    /// A generation gets the number of the one before.
    NumbersReused,
    /// There is always room for one more.
    BudgetIgnored,
    /// Whatever new code does on trial, it does well.
    BreachUnjudged,
    /// A panic is an answer like others.
    PanicUncounted,
    /// A rollback is decided, written down and said, but not stored.
    RollbackUnstored,
    /// One plugin's breach takes the others on trial along.
    RollbackTakesOthers,
    /// What was rolled back may come again by itself.
    RolledBackUnheld,
    /// What is on trial isn't written down, so that nobody is blamed for a crash.
    TrialUnmarked,
    /// What is committed isn't written down.
    CommitUnwritten,
    /// What the host died of is started again.
    QuarantineForgotten,
    /// What changed while a build ran counts as built.
    EditsLostInBuild,
    /// A task of a request holds its code, and not what its request was admitted to.
    TaskUnleased,
    /// What may be dropped when its code was replaced is named like other work, and left alone.
    DroppableKept,
    /// What comes back by a rollback answers, and its declared tasks stay ended.
    TasksNotBegunAgain,
    /// A streamed body holds its code, and not the lease of its call.
    StreamUnleased,
    /// Whether there is a piece is found out by taking it.
    PieceLost,
    /// A body that nobody asks for any more stays.
    BodyKept,
    /// A message goes to the code that opened the connection.
    SocketStaysOnCode,
    /// What is kept with a connection ends with a swap.
    SocketStateLost,
    /// Connections are closed when something else serves.
    SocketsEndWithSwap,
    /// With each publish a job's period begins once more.
    BeatRestarts,
    /// With each publish the plugin's jobs are new ones.
    JobsBegunAnew,
    /// A job that new code doesn't have is due all the same.
    RemovedJobGoesOn,
    /// A beat that should wait for the one before is left out.
    QueueSkips,
    /// A beat that waits for the one before goes with the code that runs that.
    WaitingBeatLost,
    /// What waits when code is replaced is put into the queue for the new code once more.
    MessageTwice,
    /// Who emits to a full queue hears that it was taken.
    FullQueueDrops,
    /// Nothing waits for code that comes back.
    NothingWaits,
    /// No value is read before a publish.
    TablesUntried,
    /// Values are tried as if all were of the newest schema.
    MigrateUnasked,
    /// Nobody counts what the code that serves can't read.
    UnreadableUncounted,
    /// What is written for a while stays.
    TtlIgnored,
    /// The first write of a batch is a transaction of its own.
    BatchInTwo,
    /// A line bears the number of what was published last, whoever spoke.
    LogsAsLastSwap,
    /// A library hears once which levels are wanted.
    LevelsOnce,
    /// An edit of the config is published before the code that was saved with it.
    ConfigApart,
    /// A section that can't be read counts as none.
    BadConfigTaken,
    /// What comes back has the config that it was committed with, whatever was edited since.
    RollbackForgetsConfig,
}

/// Whether the host has this bug.
#[cfg(not(midair_seeded))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

#[cfg(midair_seeded)]
pub(crate) use seeded::is;

#[cfg(midair_seeded)]
mod seeded {
    use std::sync::OnceLock;

    use super::Bug;

    /// By the names that a test chooses by; the test reads them here.
    const NAMES: [(&str, Bug); 49] = [
        ("pointer-per-handler", Bug::PointerPerHandler),
        ("lease-not-held", Bug::LeaseNotHeld),
        ("unmaps-at-retire", Bug::UnmapsAtRetire),
        ("opens-the-path", Bug::OpensThePath),
        ("store-before-init", Bug::StoreBeforeInit),
        ("says-unseen", Bug::SaysUnseen),
        ("writes-unqueued", Bug::WritesUnqueued),
        ("writes-forgotten", Bug::WritesForgotten),
        ("hash-ignored", Bug::HashIgnored),
        ("probe-ignored", Bug::ProbeIgnored),
        ("always-unchanged", Bug::AlwaysUnchanged),
        ("numbers-reused", Bug::NumbersReused),
        ("budget-ignored", Bug::BudgetIgnored),
        ("breach-unjudged", Bug::BreachUnjudged),
        ("panic-uncounted", Bug::PanicUncounted),
        ("rollback-unstored", Bug::RollbackUnstored),
        ("rollback-takes-others", Bug::RollbackTakesOthers),
        ("rolled-back-unheld", Bug::RolledBackUnheld),
        ("trial-unmarked", Bug::TrialUnmarked),
        ("commit-unwritten", Bug::CommitUnwritten),
        ("quarantine-forgotten", Bug::QuarantineForgotten),
        ("edits-lost-in-build", Bug::EditsLostInBuild),
        ("task-unleased", Bug::TaskUnleased),
        ("droppable-kept", Bug::DroppableKept),
        ("tasks-not-begun-again", Bug::TasksNotBegunAgain),
        ("stream-unleased", Bug::StreamUnleased),
        ("piece-lost", Bug::PieceLost),
        ("body-kept", Bug::BodyKept),
        ("socket-stays-on-code", Bug::SocketStaysOnCode),
        ("socket-state-lost", Bug::SocketStateLost),
        ("sockets-end-with-swap", Bug::SocketsEndWithSwap),
        ("beat-restarts", Bug::BeatRestarts),
        ("jobs-begun-anew", Bug::JobsBegunAnew),
        ("removed-job-goes-on", Bug::RemovedJobGoesOn),
        ("queue-skips", Bug::QueueSkips),
        ("waiting-beat-lost", Bug::WaitingBeatLost),
        ("message-twice", Bug::MessageTwice),
        ("full-queue-drops", Bug::FullQueueDrops),
        ("nothing-waits", Bug::NothingWaits),
        ("tables-untried", Bug::TablesUntried),
        ("migrate-unasked", Bug::MigrateUnasked),
        ("unreadable-uncounted", Bug::UnreadableUncounted),
        ("ttl-ignored", Bug::TtlIgnored),
        ("batch-in-two", Bug::BatchInTwo),
        ("logs-as-last-swap", Bug::LogsAsLastSwap),
        ("levels-once", Bug::LevelsOnce),
        ("config-apart", Bug::ConfigApart),
        ("bad-config-taken", Bug::BadConfigTaken),
        ("rollback-forgets-config", Bug::RollbackForgetsConfig),
    ];

    /// Whether the host was started with this bug.
    pub(crate) fn is(bug: Bug) -> bool {
        static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let name = std::env::var("MIDAIR_BUG").ok()?;
            NAMES.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
        }) == Some(bug)
    }
}
