//! What tests of services need.
//!
//! | | what it is | what runs |
//! |---|---|---|
//! | [`TestNetwork`] | services that call one another inside the test, without sockets | your interfaces |
//! | [`RpcMock`] | a service in such a network that answers as the test says, and remembers its calls | nothing |
//! | [`EventMock`] | the events of such a network: what was emitted, and the test's own | your handlers |
//! | [`FakeNode`] | a node in the test's process, which hears heartbeats and gives orders | your service |
//! | [`NodeFixture`] | the `hilum` binary with a configuration, in a folder of its own | all of it |
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use hilum_worker::prelude::*;
//! use hilum_worker::testing::TestNetwork;
//!
//! #[derive(Default)]
//! struct Shop;
//!
//! #[interface]
//! impl Shop {
//!     #[rpc]
//!     async fn buy(&self, ctx: &Context, item: String) -> Result<String> {
//!         let price: u32 = ctx.proxy("prices").call("price_of", args! { item: &item }).await?;
//!         Ok(format!("{item} for {price}"))
//!     }
//! }
//!
//! let network = TestNetwork::new();
//! let prices = network.mock("prices").await;
//! prices.returns("price_of", &5);
//! network.serve("shop", Shop).await;
//!
//! let shop = ShopProxy::from(network.proxy("shop").await);
//! assert_eq!(shop.buy("tea".to_owned()).await?, "tea for 5");
//! prices.assert_called_once_with("price_of", args! { item: "tea" });
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```

mod events;
mod fake_node;
mod mock;
mod network;
mod real_node;

pub use events::EventMock;
pub use fake_node::{Beat, FakeNode, FakeNodeError, LogRecord, Order, OrderKind};
pub use mock::{MockCall, RpcMock};
pub use network::{Served, TestNetwork};
pub use real_node::{NodeFixture, RealNode, RealNodeError};
