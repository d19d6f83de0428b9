//! hilum's own calls: as users write them, and below that without the worker library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::registry::{Memory, Registry, StaticHosts};
use hilum_shared::rpc::{
    Balance, CallOptions, Client, Config, Endpoint, Interface, Method, Server, Sockets,
};
use hilum_worker::prelude::*;
use hilum_worker::{Builder, Container, Contract, Running};

use crate::turns::{Figure, Plan};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The service of the comparison.
#[derive(Default)]
pub struct Bench;

#[interface]
impl Bench {
    /// Returns the text.
    #[rpc]
    async fn echo(&self, text: String) -> Result<String> {
        Ok(text)
    }
}

/// A container at this address, or a caller's on a port of its own. The figures of a call are counted, the log is written to nobody.
async fn container<F: Future<Output = ()>>(
    container: Container,
    addresses: &[&str],
    work: impl FnOnce(Running) -> F,
) {
    let contract = Contract::from_env(&|_| None).unwrap();
    let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
    let container = container.network(Arc::new(Sockets), addresses);
    let service = Builder::with_contract(contract).without_logging().try_run(|worker| async move {
        work(container.start(worker).await?).await;
        Ok(())
    });
    service.await.unwrap();
}

pub async fn serve_service(address: &str) {
    container(Container::new().interface("bench", Bench), &[address], async |running| {
        println!("{}", running.address());
        std::future::pending::<()>().await;
    })
    .await;
}

pub async fn call_service(addresses: &[&str], plan: Plan) -> Figure {
    let mut figure = None;
    let caller = Container::new().registry(registry(addresses).await);
    container(caller, &["tcp://127.0.0.1:*"], async |running| {
        let proxy = running.context().proxy("bench").timeout(TIMEOUT).balance(Balance::RoundRobin);
        let proxies = [BenchProxy::from(proxy)];
        figure = Some(
            plan.tasks(&proxies, |proxy, text| async move { proxy.echo(text).await.unwrap() })
                .await,
        );
    })
    .await;
    figure.unwrap()
}

#[derive(Clone, Serialize, Deserialize)]
struct Echo {
    text: String,
}

pub async fn serve_rpc(address: &str) {
    let echo = Method::rpc("echo", |args: Echo, _| async move { Ok(args.text) });
    let server = Arc::new(Server::new("bench").interface(Interface::new("bench").method(echo)));
    let endpoint =
        Endpoint::open(Arc::new(Sockets), &[address], server, Config::default()).await.unwrap();
    println!("{}", endpoint.address());
    std::future::pending::<()>().await;
}

pub async fn call_rpc(addresses: &[&str], plan: Plan) -> Figure {
    let client = Client::new(Endpoint::caller().await.unwrap(), Arc::new(Memory::new()));
    let callers: Vec<(Client, CallOptions)> = addresses
        .iter()
        .map(|address| {
            let target = Some((*address).to_owned());
            (client.clone(), CallOptions { target, timeout: TIMEOUT, ..CallOptions::default() })
        })
        .collect();
    plan.tasks(&callers, |(client, options), text| async move {
        client.call("bench.echo", &Echo { text }, &options).await.unwrap()
    })
    .await
}

async fn registry(addresses: &[&str]) -> Arc<dyn Registry> {
    let hosts = addresses.iter().map(|address| ((*address).to_owned(), None)).collect();
    Arc::new(StaticHosts::new(&BTreeMap::from([("bench".to_owned(), hosts)])).await)
}
