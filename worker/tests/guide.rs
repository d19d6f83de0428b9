//! What stands in the guide (`docs/services.md`), compiled and, where it is a test, run.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::pedantic,
    reason = "the guide shows what there is, in the fewest words"
)]

/// Every Rust block of the guide stands below, word by word; only blanks may differ.
#[test]
fn every_rust_block_of_the_guide_compiles() {
    let words = |text: &str| text.split_whitespace().collect::<String>();
    let guide = include_str!("../../docs/services.md");
    let here = words(include_str!("guide.rs"));
    let mut blocks = guide.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    assert!(blocks.clone().count() >= 9);
    let missing = blocks.find(|block| !here.contains(&words(block)));
    assert_eq!(missing, None, "put it into worker/tests/guide.rs, in a module of its own");
}

#[rustfmt::skip]
mod service {
    use hilum_worker::prelude::*;

    #[derive(Debug, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct EchoConfig { limit: usize }

    impl Default for EchoConfig {
        fn default() -> Self { Self { limit: 1000 } }
    }

    #[derive(Debug, thiserror::Error, Declared)]
    #[error("{length} characters are too many: the limit is {limit}")]
    struct TextTooLong { length: usize, limit: usize }

    /// Says things back.
    #[derive(Default)]
    struct Echo { config: EchoConfig }

    #[interface(config = EchoConfig)]
    impl Echo {
        /// Returns the text in upper case.
        #[rpc(raises(TextTooLong))]
        async fn upper(&self, text: String) -> Result<String, TextTooLong> {
            let (length, limit) = (text.chars().count(), self.config.limit);
            if length > limit { Err(TextTooLong { length, limit }) } else { Ok(text.to_uppercase()) }
        }
    }

    hilum_worker::main!(Echo);
}

#[rustfmt::skip]
mod calling {
    use std::time::Duration;
    use hilum_worker::prelude::*;
    use hilum_worker::rpc::Balance;

    async fn shout(ctx: &Context) -> Result<String> {
        let echo = ctx.proxy("echo").version("1.2").timeout(Duration::from_secs(2)).balance(Balance::LeastPending);
        let later = echo.defer("upper", args! { text: "bar" });     // under way now; `.await` it when it is needed
        let first: String = echo.call("upper", args! { text: "foo" }).await?;
        let second: String = later.await?;
        Ok(first + &second)
    }
}

#[rustfmt::skip]
mod typed {
    use hilum_worker::prelude::*;
    use hilum_worker::{CallError, proxy, rpc};

    #[derive(Debug, thiserror::Error, Declared)]
    #[error("declined: {reason}")]
    pub struct CardDeclined { reason: String }

    #[proxy]
    pub trait Billing {
        #[rpc(raises(CardDeclined))]
        async fn charge(&self, amount: u32, card: Option<String>) -> Result<String, CardDeclined>;
    }

    async fn pay(ctx: &Context) -> Result<String> {
        match BillingProxy::from(ctx.proxy("billing")).charge(7, None).await {
            Ok(receipt) => Ok(receipt),
            Err(CallError::Declared(declined)) => Ok(declined.reason),                  // as it was raised, with its fields
            Err(CallError::Failed(rpc::Error::Timeout { .. })) => Ok("later".into()),
            Err(CallError::Failed(error)) => Err(error.into()),                         // nobody there, refused, …
        }
    }
}

#[rustfmt::skip]
mod special {
    use hilum_worker::prelude::*;
    use hilum_worker::types::{Date, Set};

    #[derive(Default)]
    struct Calendar;

    #[interface]
    impl Calendar {
        #[rpc]
        async fn free(&self, days: Set<u32>, from: Date) -> Set<u32> {
            days.0.into_iter().filter(|day| *day > from.0.day() as u32).collect()
        }
    }
}

#[rustfmt::skip]
mod events {
    use std::time::Duration;
    use hilum_worker::prelude::*;

    #[derive(Default)]
    struct Shop;

    #[interface]
    impl Shop {
        #[rpc]
        async fn buy(&self, ctx: &Context, item: String) -> Result<()> {
            ctx.emit("order.paid", args! { item: &item, price: 5 }).await?;         // with the broker, when this is done
            ctx.emit("order.remind", args! { item }).delay(Duration::from_secs(3600)).await?;
            Ok(())
        }
    }

    #[derive(Default)]
    struct Mail;

    #[interface]
    impl Mail {
        /// Parameters are taken from the body by name; what else is in it is passed over.
        #[event("order.paid", retry = 3)]
        async fn on_paid(&self, ctx: &Context, item: String) -> Result<()> {
            ctx.emit("mail.sent", args! { about: item }).await?;
            Ok(())
        }

        #[event("order.*", "user.#", sequential)]                   // `*` is one word, `#` any number of words
        async fn on_any(&self, event: &Event) -> Result<()> {      // the whole: type, headers, body::<T>(), source
            tracing::info!(kind = event.kind, "heard");
            Ok(())
        }
    }

    use hilum_worker::args;
    use hilum_worker::testing::TestNetwork;

    #[tokio::test]
    async fn who_paid_gets_a_mail() {
        let network = TestNetwork::new();
        network.serve("mail", Mail).await;
        let events = network.events();
        events.emit("order.paid", args! { item: "tea" }).await;        // from the test
        events.idle().await;                                           // all handlers are done
        events.assert_emitted("mail.sent", args! { about: "tea" });
        events.assert_not_emitted("order.cancelled.#");
    }
}

#[rustfmt::skip]
mod components {
    use hilum_worker::FailedCall;
    use hilum_worker::prelude::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct PoolConfig { url: String }

    struct Pool { url: String }

    impl Component for Pool {
        type Config = PoolConfig;                                   // what stands beside `class`; `NoConfig` where that is nothing
        const TYPE: &'static str = "Pool";                          // its name in `class: 'echo:Pool'`

        fn create(config: PoolConfig) -> Result<Self> {             // waits for nothing: what takes time belongs in `start`
            Ok(Self { url: config.url })
        }

        async fn start(&self) -> Result<()> {                       // before the interfaces; an error ends the process
            tracing::info!(url = self.url, "connected");
            Ok(())
        }

        async fn stop(&self) {}                                     // after them

        fn on_error(&self, failure: &FailedCall<'_>) {              // a call failed with what its method does not declare
            tracing::warn!(method = failure.method, error = %failure.error, "told");
        }
    }

    #[derive(Deserialize)]
    struct ShopConfig { pool: Dep<Pool> }                           // `pool: dep:main` in the file

    struct Shop { pool: Dep<Pool> }

    #[interface(config = ShopConfig)]
    impl Shop {
        fn from_config(config: ShopConfig) -> Self { Self { pool: config.pool } }

        #[rpc]
        async fn url(&self) -> String { self.pool.url.clone() }     // a `Dep<Pool>` is used like a `&Pool`
    }

    hilum_worker::main!(Shop; Pool);
}

#[rustfmt::skip]
mod network {
    use hilum_worker::prelude::*;
    use hilum_worker::testing::TestNetwork;

    #[derive(Default)]
    struct Shop;

    #[interface]
    impl Shop {
        #[rpc]
        async fn buy(&self, ctx: &Context, item: String) -> Result<String> {
            let price: u32 = ctx.proxy("prices").call("price_of", args! { item: &item }).await?;
            Ok(format!("{item} for {price}"))
        }
    }

    #[tokio::test]
    async fn a_shop_asks_for_the_price() {
        let network = TestNetwork::new();
        let prices = network.mock("prices").await;
        prices.returns("price_of", &5);
        network.serve("shop", Shop).await;

        let shop = ShopProxy::from(network.proxy("shop").await);
        assert_eq!(shop.buy("tea".into()).await.unwrap(), "tea for 5");
        prices.assert_called_once_with("price_of", args! { item: "tea" });
    }
}

/// Compiled, not run: it needs a program of the guide's.
#[rustfmt::skip]
#[expect(unnameable_test_items, reason = "what is in a function is no test")]
fn real() {
    use hilum_worker::args;
    use hilum_worker::testing::NodeFixture;

    #[tokio::test]
    async fn three_processes_answer() {
        let yaml = "instances: {echo: {command: 'target/debug/echo instance', directory: $(env.CARGO_MANIFEST_DIR), numprocesses: 3, ready: heartbeat}}";
        let node = NodeFixture::new(yaml).start().await.unwrap();
        let shout: String = node.proxy("echo").call("upper", args! { text: "foo" }).await.unwrap();
        assert_eq!(shout, "FOO");
        node.hilum(&["restart", "echo", "--rolling"]).await.unwrap();
    }
}
