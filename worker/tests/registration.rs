//! A service whose registry is away: it serves, is registered when it can be, and ends in time.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hilum_worker::prelude::*;
use hilum_worker::registry::{Instance, Instances, Lookup, Memory, Registry, RegistryError};
use hilum_worker::rpc::{BoxFuture, MemoryNetwork};
use hilum_worker::{Builder, Container, Contract, Running, Worker};
use tokio::time::Instant;

#[derive(Default)]
struct Echo;

#[interface]
impl Echo {
    #[rpc]
    async fn upper(&self, text: String) -> String {
        text.to_uppercase()
    }
}

/// A registry that may be away: then it says so, or says nothing at all.
#[derive(Default)]
struct Shaky {
    inner: Memory,
    away: AtomicBool,
    mute: AtomicBool,
    tries: AtomicUsize,
}

impl Shaky {
    async fn answers(&self) -> Result<(), RegistryError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        if self.mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(RegistryError::Unreachable { place: "test".into(), reason: "away".into() });
        }
        Ok(())
    }
}

impl Registry for Shaky {
    fn register<'a>(
        &'a self,
        service: &'a str,
        instance: Instance,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            self.answers().await?;
            self.inner.register(service, instance).await
        })
    }

    fn unregister<'a>(
        &'a self,
        service: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(async move {
            self.answers().await?;
            self.inner.unregister(service, id).await
        })
    }

    fn lookup<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Lookup, RegistryError>> {
        self.inner.lookup(service)
    }

    fn discover(&self) -> BoxFuture<'_, Result<BTreeMap<String, Instances>, RegistryError>> {
        self.inner.discover()
    }
}

/// A worker without a node.
async fn worker() -> Worker {
    let (give, taken) = tokio::sync::oneshot::channel();
    let builder = Builder::with_contract(Contract::none()).without_signals().without_logging();
    let given = builder.try_run(|worker| async move {
        give.send(worker).unwrap();
        Ok(())
    });
    given.await.unwrap();
    taken.await.unwrap()
}

async fn serve(registry: &Arc<Shaky>) -> Running {
    let container = Container::new()
        .interface("echo", Echo)
        .network(Arc::new(MemoryNetwork::new()), ["tcp://test:*".to_owned()])
        .registry(Arc::clone(registry) as Arc<dyn Registry>);
    container.start(worker().await).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_service_serves_while_its_registry_is_away_and_is_registered_when_it_is_there() {
    for (away, mute) in [(true, false), (false, true)] {
        let registry = Arc::new(Shaky::default());
        registry.away.store(away, Ordering::SeqCst);
        registry.mute.store(mute, Ordering::SeqCst);
        let running = serve(&registry).await;
        let own = running.context().proxy("echo").at(running.address().to_owned());
        assert_eq!(own.call::<String>("upper", args! { text: "a" }).await.unwrap(), "A");
        assert!(registry.inner.discover().await.unwrap().is_empty());
        let before = registry.tries.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let tries = registry.tries.load(Ordering::SeqCst) - before;
        assert!(tries <= 40, "{tries} tries in a minute");
        registry.away.store(false, Ordering::SeqCst);
        registry.mute.store(false, Ordering::SeqCst);
        let mut view = registry.inner.lookup("lymph").await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), view.wait_for(|now| now.len() == 1))
            .await
            .expect("it is registered")
            .unwrap();
        assert_eq!(registry.inner.lookup("echo").await.unwrap().instances().len(), 1);
        running.stop(Duration::from_secs(10)).await;
        assert!(registry.inner.discover().await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_holds_up_no_end() {
    let registry = Arc::new(Shaky::default());
    let running = serve(&registry).await;
    registry.mute.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    running.stop(Duration::from_secs(10)).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_registered_yet_is_not_registered_after_the_end() {
    let registry = Arc::new(Shaky::default());
    registry.away.store(true, Ordering::SeqCst);
    let running = serve(&registry).await;
    running.stop(Duration::from_secs(1)).await;
    registry.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(registry.inner.discover().await.unwrap().is_empty());
}
