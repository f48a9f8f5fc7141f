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
    const NAMES: [(&str, Bug); 22] = [
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
