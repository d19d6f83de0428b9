//! Who depends on whom: order of starts and stops, and who is touched by whom.

use std::collections::{BTreeMap, BTreeSet};

use hilum_shared::config::spec::Cluster;
use hilum_shared::name::ServiceName;

/// The edges of `depends_on` in both directions.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    needs: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    needed_by: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

impl Graph {
    /// The graph of a valid (acyclic) configuration.
    pub fn of(cluster: &Cluster) -> Self {
        let mut graph = Self::default();
        for (name, spec) in &cluster.services {
            for dependency in &spec.policy.depends_on {
                graph.needs.entry(name.clone()).or_default().insert(dependency.service.clone());
                graph.needed_by.entry(dependency.service.clone()).or_default().insert(name.clone());
            }
        }
        graph
    }

    /// The services that `name` depends on directly.
    pub fn dependencies(&self, name: &ServiceName) -> impl Iterator<Item = &ServiceName> {
        self.needs.get(name).into_iter().flatten()
    }

    /// The services that depend on `name` directly.
    pub fn dependents(&self, name: &ServiceName) -> impl Iterator<Item = &ServiceName> {
        self.needed_by.get(name).into_iter().flatten()
    }

    /// `names` and all that they need, directly or not.
    pub fn with_dependencies(
        &self,
        names: impl IntoIterator<Item = ServiceName>,
    ) -> BTreeSet<ServiceName> {
        closure(&self.needs, names)
    }

    /// `names` and all that need them, directly or not.
    pub fn with_dependents(
        &self,
        names: impl IntoIterator<Item = ServiceName>,
    ) -> BTreeSet<ServiceName> {
        closure(&self.needed_by, names)
    }
}

fn closure(
    edges: &BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    names: impl IntoIterator<Item = ServiceName>,
) -> BTreeSet<ServiceName> {
    let mut found = BTreeSet::new();
    let mut open: Vec<ServiceName> = names.into_iter().collect();
    while let Some(name) = open.pop() {
        open.extend(
            edges.get(&name).into_iter().flatten().filter(|next| !found.contains(*next)).cloned(),
        );
        found.insert(name);
    }
    found
}
