//! `tarpc` with bincode.

use futures::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};

use crate::turns::{Figure, Plan};

#[tarpc::service]
trait Bench {
    async fn echo(text: String) -> String;
}

#[derive(Clone)]
struct Echo;

impl Bench for Echo {
    async fn echo(self, _: context::Context, text: String) -> String {
        text
    }
}

/// Serves whatever connects to a listener of either kind.
macro_rules! accept {
    ($incoming:expr) => {
        while let Some(transport) = $incoming.next().await {
            let channel = BaseChannel::with_defaults(transport.unwrap());
            tokio::spawn(channel.execute(Echo.serve()).for_each(async |call| {
                tokio::spawn(call);
            }));
        }
    };
}

pub async fn serve(address: &str) {
    if let Some(path) = address.strip_prefix("ipc://") {
        let mut incoming = serde_transport::unix::listen(path, Bincode::default).await.unwrap();
        println!("{address}");
        accept!(incoming);
    } else {
        let listener = serde_transport::tcp::listen("127.0.0.1:0", Bincode::default).await.unwrap();
        println!("tcp://{}", listener.local_addr());
        let mut incoming = listener.map(|transport| {
            transport.inspect(|transport| transport.get_ref().set_nodelay(true).unwrap())
        });
        accept!(incoming);
    }
}

async fn connect(address: &str) -> BenchClient {
    let config = client::Config::default();
    match address.strip_prefix("ipc://") {
        Some(path) => {
            let transport = serde_transport::unix::connect(path, Bincode::default).await.unwrap();
            BenchClient::new(config, transport).spawn()
        }
        None => {
            let address = address.trim_start_matches("tcp://");
            let transport = serde_transport::tcp::connect(address, Bincode::default).await.unwrap();
            transport.get_ref().set_nodelay(true).unwrap();
            BenchClient::new(config, transport).spawn()
        }
    }
}

pub async fn call(addresses: &[&str], plan: Plan) -> Figure {
    let mut clients = Vec::new();
    for address in addresses {
        clients.push(connect(address).await);
    }
    plan.tasks(&clients, |client, text| async move {
        client.echo(context::current(), text).await.unwrap()
    })
    .await
}
