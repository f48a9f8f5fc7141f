//! What do new requests reach?
//!
//! A snapshot is everything that serves at one moment: each plugin's generation and the one route table over all of them. It never
//! changes; a publish replaces it whole, with one store.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::generation::Generation;
use crate::lease::Lease;
use crate::route::{Clash, Found, Route, RouteTable};

/// A handler in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its generation's place in the snapshot.
    pub generation: usize,
    /// Its place in the generation.
    pub handler: usize,
}

/// All that serves at one moment.
pub struct Snapshot {
    epoch: u64,
    generations: Vec<Arc<Generation>>,
    routes: RouteTable<Target>,
}

impl Snapshot {
    /// A snapshot of these generations, sorted by plugin.
    ///
    /// # Errors
    ///
    /// The routes that clash.
    pub fn compose(epoch: u64, mut generations: Vec<Arc<Generation>>) -> Result<Self, Clash> {
        generations.sort_by(|a, b| a.plugin().cmp(b.plugin()));
        let routes = generations.iter().enumerate().flat_map(|(place, generation)| {
            generation.handlers().iter().enumerate().map(move |(handler, info)| Route {
                method: info.method.clone(),
                path: info.path.clone(),
                name: info.name.clone(),
                target: Target { generation: place, handler },
            })
        });
        let routes = RouteTable::build(routes)?;
        Ok(Self { epoch, generations, routes })
    }

    /// Counts publishes.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What serves, sorted by plugin.
    #[must_use]
    pub fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// The generation of `plugin`.
    #[must_use]
    pub fn generation(&self, plugin: &str) -> Option<&Arc<Generation>> {
        self.generations.iter().find(|generation| generation.plugin() == plugin)
    }

    /// What answers `method` on `path`.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Found<Target> {
        self.routes.find(method, path)
    }
}

/// Where the live snapshot sits.
pub struct Slot {
    live: ArcSwap<Snapshot>,
}

impl Slot {
    /// A slot in which nothing serves yet.
    #[must_use]
    pub fn new(empty: Snapshot) -> Self {
        Self { live: ArcSwap::from_pointee(empty) }
    }

    /// Admits a call to what serves now. Wait-free, no lock, no shared line written.
    #[must_use]
    pub fn admit(&self) -> Lease {
        Lease::new(self.live.load())
    }

    /// What serves now, to look at.
    #[must_use]
    pub fn now(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// The one store that makes `next` live; what was live before.
    pub fn publish(&self, next: Arc<Snapshot>) -> Arc<Snapshot> {
        self.live.swap(next)
    }
}
