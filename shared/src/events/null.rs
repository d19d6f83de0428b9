//! No events at all.

use super::{Emission, EventError, EventSystem, Keeper, Subscriber, Subscription};
use crate::rpc::BoxFuture;
use tokio::sync::mpsc;

/// Drops every event and tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

/// Keeps a subscription open to which nothing comes.
struct Silence {
    _sender: mpsc::UnboundedSender<super::Delivery>,
}

impl Keeper for Silence {
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl EventSystem for Null {
    fn emit(&self, _: Emission) -> BoxFuture<'_, Result<(), EventError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxFuture<'_, Result<Subscriber, EventError>> {
        let (sender, events) = mpsc::unbounded_channel();
        let keeper = Silence { _sender: sender };
        let subscriber = Subscriber::new(events, Some(Box::new(keeper)), subscription.once);
        Box::pin(std::future::ready(Ok(subscriber)))
    }
}
