//! What serves at one moment?
//!
//! Each plugin's generation and the one route table over all of them. A snapshot never changes: what is published is a new one.

use std::sync::Arc;

use crate::generation::Generation;
use crate::route::{Clash, Found, Route, RouteTable};

/// A handler in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its generation's place in the snapshot.
    pub generation: usize,
    /// Its place in the generation.
    pub handler: usize,
}

/// All that serves at one moment.
pub(crate) struct Snapshot {
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
    pub(crate) fn compose(epoch: u64, mut generations: Vec<Arc<Generation>>) -> Result<Self, Clash> {
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
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What serves, sorted by plugin.
    #[must_use]
    pub(crate) fn generations(&self) -> &[Arc<Generation>] {
        &self.generations
    }

    /// The generation of `plugin`.
    #[must_use]
    pub(crate) fn generation(&self, plugin: &str) -> Option<&Arc<Generation>> {
        self.generations.iter().find(|generation| generation.plugin() == plugin)
    }

    /// What answers `method` on `path`.
    #[must_use]
    pub(crate) fn find(&self, method: &str, path: &str) -> Found<Target> {
        self.routes.find(method, path)
    }
}
