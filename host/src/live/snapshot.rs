//! What serves at one moment?
//!
//! Each plugin's generation with its config and the one route table over all of them. A snapshot never changes: what is published is a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::live::comparison::Comparison;
use crate::live::config::Config;
use crate::live::generation::{Generation, Term};
use crate::live::route::{Clash, Found, Route, RouteTable, UPGRADE};
use crate::plugin::exports::{Calls, HandlerInfo, Part};
use crate::sys::sync::Pointer;

/// A handler in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its generation's place in the snapshot.
    pub generation: usize,
    /// Its place in the generation.
    pub handler: usize,
}

/// A generation with the config that it serves with.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Whose code.
    pub generation: Arc<Generation>,
    /// What that code made of its section.
    pub config: Arc<Config>,
}

/// A generation in a snapshot, for one term of service.
#[derive(Clone)]
pub(crate) struct Member {
    /// Whose code.
    pub generation: Arc<Generation>,
    /// What that code made of its section; another one is no other term.
    pub config: Arc<Config>,
    /// Shared by all snapshots in a row that the generation is in.
    pub term: Arc<Term>,
}

impl Member {
    /// The generation, about to serve anew.
    #[must_use]
    pub(crate) fn anew(Setup { generation, config }: Setup) -> Self {
        let term = Arc::new(Term::of(&generation));
        Self { generation, config, term }
    }

    /// The generation with its config.
    #[must_use]
    pub(crate) fn setup(&self) -> Setup {
        Setup { generation: Arc::clone(&self.generation), config: Arc::clone(&self.config) }
    }
}

/// A generation that is compared with the one before.
#[derive(Clone)]
pub(crate) struct Compared {
    /// How far that is.
    pub comparison: Arc<Comparison>,
    /// What serves, with the one before in its place.
    pub back: Arc<Snapshot>,
}

#[cfg(midair_seeded)]
static LAST_BEGUN: parking_lot::Mutex<std::sync::Weak<Snapshot>> = parking_lot::Mutex::new(std::sync::Weak::new());

/// All that serves at one moment.
pub(crate) struct Snapshot {
    epoch: u64,
    generations: Vec<Arc<Generation>>,
    /// By the generations' places.
    configs: Vec<Arc<Config>>,
    terms: Vec<Arc<Term>>,
    routes: RouteTable<Target>,
    /// What of it is compared, while anything is: most snapshots change nothing here ever, and readers look at one flag.
    compared: Pointer<Vec<Compared>>,
    compares: AtomicBool,
}

impl Snapshot {
    /// A snapshot of these generations, sorted by plugin.
    ///
    /// # Errors
    ///
    /// The routes that clash.
    pub(crate) fn compose(epoch: u64, members: impl IntoIterator<Item = Member>) -> Result<Self, Clash> {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort_by(|a, b| a.generation.plugin().cmp(b.generation.plugin()));
        let routes = members.iter().enumerate().flat_map(|(place, Member { generation, .. })| {
            let routes =
                generation.handlers().iter().enumerate().filter_map(|(handler, info)| Some((handler, info, method(info)?)));
            routes.map(move |(handler, info, method)| Route {
                method: method.to_owned(),
                path: info.path.clone(),
                name: info.name.clone(),
                target: Target { generation: place, handler },
            })
        });
        let routes = RouteTable::build(routes)?;
        let configs = members.iter().map(|member| Arc::clone(&member.config)).collect();
        let (generations, terms) = members.into_iter().map(|member| (member.generation, member.term)).unzip();
        let (compared, compares) = (Pointer::new(Arc::default()), AtomicBool::new(false));
        Ok(Self { epoch, generations, configs, terms, routes, compared, compares })
    }

    /// These of its generations are compared from now on, and no others.
    pub(crate) fn compare(&self, compared: Vec<Compared>) {
        let compares = !compared.is_empty();
        if !compares && !self.compares.load(Ordering::Relaxed) {
            return;
        }
        self.compared.swap(Arc::new(compared));
        self.compares.store(compares, Ordering::Release);
    }

    /// With what the generation of `target` is being compared, if it is.
    #[must_use]
    pub(crate) fn compared(&self, target: Target) -> Option<Compared> {
        if !self.compares.load(Ordering::Acquire) {
            return None;
        }
        let key = self.generations[target.generation].key();
        self.compared.load().iter().find(|compared| compared.comparison.generation() == key).cloned()
    }

    /// It is about to be live: from now on the end of its terms is told.
    pub(crate) fn begin(self: &Arc<Self>) {
        #[cfg(midair_seeded)]
        LAST_BEGUN.lock().clone_from(&Arc::downgrade(self));
        self.terms.iter().for_each(|term| term.begin());
    }

    /// The one that began last in this process, for a bug that looks there.
    #[must_use]
    pub(crate) fn last_begun() -> Option<Arc<Self>> {
        #[cfg(midair_seeded)]
        return LAST_BEGUN.lock().upgrade();
        #[cfg(not(midair_seeded))]
        None
    }

    /// Counts publishes.
    #[must_use]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What serves, sorted by plugin.
    #[must_use]
    pub(crate) fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// What each generation serves with, by its place.
    #[must_use]
    pub(crate) fn configs(&self) -> &[Arc<Config>] {
        &self.configs
    }

    /// The generation of `plugin`.
    #[must_use]
    pub(crate) fn generation(&self, plugin: &str) -> Option<&Arc<Generation>> {
        self.generations.iter().find(|generation| generation.plugin() == plugin)
    }

    /// The generation of `plugin` with its config and its term.
    #[must_use]
    pub(crate) fn member(&self, plugin: &str) -> Option<Member> {
        let at = self.generations.iter().position(|generation| generation.plugin() == plugin)?;
        Some(Member {
            generation: Arc::clone(&self.generations[at]),
            config: Arc::clone(&self.configs[at]),
            term: Arc::clone(&self.terms[at]),
        })
    }

    /// What answers `method` on `path`.
    #[must_use]
    pub(crate) fn find(&self, method: &str, path: &str) -> Found<Target> {
        self.routes.find(method, path)
    }
}

/// The method by which requests come to a handler, if they do.
fn method(info: &HandlerInfo) -> Option<&str> {
    match info.calls {
        Calls::Requests => Some(&info.method),
        Calls::Socket(Part::Open | Part::Pinned) => Some(UPGRADE),
        Calls::Socket(Part::Message | Part::Close) | Calls::Service | Calls::Beats | Calls::Messages => None,
    }
}
