//! gRPC by `tonic`.

use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::turns::{Figure, Plan};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/bench.Bench.rs"));
}
use generated::bench_client::BenchClient;
use generated::bench_server::{Bench, BenchServer};

/// The only message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    #[prost(string, tag = "1")]
    pub text: String,
}

struct Echo;

#[tonic::async_trait]
impl Bench for Echo {
    async fn echo(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

pub async fn serve(address: &str) {
    let server = Server::builder().tcp_nodelay(true).add_service(BenchServer::new(Echo));
    if let Some(path) = address.strip_prefix("ipc://") {
        let listener = UnixListener::bind(path).unwrap();
        println!("{address}");
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("tcp://{}", listener.local_addr().unwrap());
        // What `serve` does by itself with an address.
        let incoming = tokio_stream::StreamExt::map(TcpListenerStream::new(listener), |stream| {
            stream.inspect(|stream| stream.set_nodelay(true).unwrap())
        });
        server.serve_with_incoming(incoming).await.unwrap();
    }
}

async fn connect(address: &str) -> BenchClient<Channel> {
    let channel = match address.strip_prefix("ipc://") {
        Some(path) => {
            let path = path.to_owned();
            let connector = tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            Endpoint::from_static("http://localhost").connect_with_connector(connector).await
        }
        None => {
            let uri = address.replace("tcp://", "http://");
            Endpoint::from_shared(uri).unwrap().tcp_nodelay(true).connect().await
        }
    };
    BenchClient::new(channel.unwrap())
}

pub async fn call(addresses: &[&str], plan: Plan) -> Figure {
    let mut clients = Vec::new();
    for address in addresses {
        clients.push(connect(address).await);
    }
    plan.tasks(&clients, |mut client, text| async move {
        client.echo(Text { text }).await.unwrap().into_inner().text
    })
    .await
}
