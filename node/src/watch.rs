//! Saved files, as news for the loop.
use hilum_shared::config::LoadOptions;
use hilum_shared::config::spec::Cluster;
use hilum_shared::name::ServiceName;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
/// News.
#[derive(Debug)]
pub enum Changed {
    /// A config file.
    Config,
    /// A watched file.
    Files {
        /// Of this service.
        service: ServiceName,
        /// One of them.
        path: String,
    },
}
/// The watcher.
pub struct Watcher(#[allow(dead_code, reason = "stub")] Sender<Changed>);
impl Watcher {
    /// New.
    pub fn new(changes: Sender<Changed>) -> Self {
        Self(changes)
    }
    /// Sets what is watched.
    pub fn watch(&mut self, _: &Arc<Cluster>, _: &LoadOptions) {}
}
