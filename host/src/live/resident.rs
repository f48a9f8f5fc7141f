//! What lives through swaps, and what does it hear of them?
//!
//! A resident is something of the host's that plugins' code uses and that no swap ends: jobs, topics, WebSockets, work beside requests. Whatever
//! changes what serves is a [`Plan`]; the cutover performs it in phases, and each resident has a method for each phase that concerns it. Each
//! phase runs for all residents, for all plugins of the plan, before the next begins: what one plugin says once it serves, or serves no
//! more, may be for another.
//!
//! No method may fail or run plugin code: what has to run there runs on a thread of its own. None may wait; one does, for up to a second and only
//! while no rollback wants its turn: the gates, where the state is a file and `init` wrote to it (docs/design/state.md).

use std::sync::Arc;

use crate::live::generation::Generation;
use crate::live::snapshot::{Setup, Snapshot};

/// What changes what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// New code, or another config for what serves.
    Publish,
    /// What served before comes back, by hand or after a breach.
    Rollback,
}

/// A change of what serves that was decided, and can't fail any more.
pub(crate) struct Plan {
    /// What changes it.
    pub by: By,
    /// What serves from the store on.
    pub snapshot: Arc<Snapshot>,
    /// What served until then and serves no more, by plugin.
    pub leaves: Vec<Arc<Generation>>,
    /// What begins to serve, with its config. In a rollback each is of the plugin in the same place of `leaves`.
    pub enters: Vec<Setup>,
    /// What of it is committed with that: what was committed before, or was asked for by hand.
    pub settles: Vec<Arc<Generation>>,
}

impl Plan {
    /// What leaves, and what enters in its place; of a rollback.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Arc<Generation>, &Arc<Generation>)> {
        self.leaves.iter().zip(self.entering())
    }

    /// The generations that begin to serve.
    pub(crate) fn entering(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.enters.iter().map(|setup| &setup.generation)
    }
}

/// What lives through swaps. The methods stand in the order of the phases.
pub(crate) trait Resident: Send + Sync {
    /// What enters is about to serve: whatever is sent to it from the store on has to find a place.
    fn before_store(&self, _plan: &Plan) {}

    /// What enters may act on the world: what it wrote so far takes effect now. The last phase before the store.
    fn opens(&self, _plan: &Plan) {}

    /// What leaves serves no more.
    fn left(&self, _plan: &Plan) {}

    /// What enters serves. What only the code before has goes on waiting if that may come back ([`Generation::before`]).
    fn serving(&self, _plan: &Plan) {}

    /// This generation was committed, or came back committed: no older one comes back by itself, and nothing waits for one.
    fn settled(&self, _generation: &Arc<Generation>) {}

    /// What left is told that it ends.
    fn ending(&self, _plan: &Plan) {}

    /// It is known of what enters that it serves: what waited for that goes on.
    fn entered(&self, _plan: &Plan) {}

    /// What enters begins what it does by itself.
    fn begins(&self, _plan: &Plan) {}

    /// The host ends, and these serve to its end. It may come more than once.
    fn shutdown(&self, _live: &[Arc<Generation>]) {}
}
