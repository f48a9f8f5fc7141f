//! What of its host can a plugin's code reach?
//!
//! A generation keeps it for the rooms from here on up, and knows nothing of it.

use std::sync::{Arc, OnceLock, Weak};

use midair_abi::task::Keep;
use midair_abi::{self as abi, HostRef, Outcome};

use crate::live::generation::{Ends, Generation, Identity};
use crate::live::lease::Leases;
use crate::live::urgency::Urgency;
use crate::plugin::exports::Plugin;
use crate::plugin::symbolize::Namer;
use crate::report::event::{Bus, Kind};
use crate::resources::host_services::Offers;
use crate::resources::logs::Logs;
use crate::resources::sockets::Sockets;
use crate::resources::state::{Gate, State};
use crate::resources::tasks::{About, Tasks};
use crate::resources::topics::Messages;

/// What the code of plugins can reach.
pub(crate) struct HostContext {
    /// The state of all plugins.
    pub store: State,
    /// Where plugins' log lines and failures are told.
    pub bus: Bus,
    /// Where what plugins log goes.
    pub logs: Arc<Logs>,
    /// All calls in flight.
    pub leases: Arc<Leases>,
    /// Whether error texts may reach clients.
    pub dev: bool,
    /// Whether this is a probe, and not a host.
    pub probe: bool,
    /// What a plugin calls.
    pub functions: HostRef,
    /// Finds names for the frames of panics.
    pub frames: Namer,
    /// Who hears of what becomes of generations.
    pub ends: Ends,
    /// What runs beside requests.
    pub tasks: Arc<Tasks>,
    /// What plugins tell each other.
    pub messages: Arc<Messages>,
    /// What a custom host does for them.
    pub offers: Offers,
    /// All WebSockets.
    pub sockets: Arc<Sockets>,
    /// Who waits for their turn to go back.
    pub urgency: Arc<Urgency>,
    /// What serves, for work that no request admitted. Set once there is a host.
    pub front: OnceLock<Weak<dyn Ask>>,
}

/// Whatever serves at the moment.
pub(crate) trait Ask: Send + Sync {
    /// Asks a route of it for a plugin whose code `caller` keeps: an answer, or a future of one.
    fn ask(&self, request: abi::Request, caller: Keep) -> Outcome;
}

/// What a generation keeps for these rooms.
struct Attached {
    context: Arc<HostContext>,
    gate: Gate,
}

/// A candidate whose code reaches this host.
#[must_use]
pub(crate) fn candidate(identity: Identity, code: Plugin, context: &Arc<HostContext>) -> Arc<Generation> {
    let (plugin, number, module) = (identity.plugin.clone(), identity.number, Arc::clone(code.module()));
    let frames = context.frames.clone();
    code.census().tell_to(move |panic| frames.tell(&module, (plugin.clone(), number), (Kind::Outside, String::new()), panic));
    Generation::candidate(identity, code, context.ends.clone(), attachment(context))
}

/// What [`Generation::candidate`] is to keep.
#[must_use]
pub(crate) fn attachment(context: &Arc<HostContext>) -> Box<dyn std::any::Any + Send + Sync> {
    Box::new(Attached { context: Arc::clone(context), gate: Gate::default() })
}

/// The way from a generation to its host.
pub(crate) trait Reaches {
    /// What its code can reach.
    fn host(&self) -> &Arc<HostContext>;

    /// What holds back its writes while it is a candidate.
    fn gate(&self) -> &Gate;

    /// How its work beside requests is listed.
    fn about(&self, name: String, until_retire: bool) -> About;
}

impl Reaches for Generation {
    fn host(&self) -> &Arc<HostContext> {
        &attached(self).context
    }

    fn gate(&self) -> &Gate {
        &attached(self).gate
    }

    fn about(&self, name: String, until_retire: bool) -> About {
        let (generation, plugin, number) = (self.key(), self.plugin().to_owned(), self.number());
        About { generation, plugin, number, name, until_retire, heeds: None }
    }
}

fn attached(generation: &Generation) -> &Attached {
    generation.attached().expect("every candidate is made here, with its context")
}
