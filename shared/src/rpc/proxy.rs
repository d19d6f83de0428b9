//! A service to call with the same options again and again.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::{CallOptions, Client, Reply};
use super::error::Error;
use super::select::Balance;
use crate::registry::VersionRequest;

/// A service with options of its own.
#[derive(Clone)]
pub struct Proxy {
    client: Client,
    interface: String,
    options: CallOptions,
}

impl Proxy {
    pub(super) fn new(client: Client, interface: String) -> Self {
        Self { client, interface, options: CallOptions::default() }
    }

    /// Asks for a compatible version.
    #[must_use]
    pub fn version(mut self, version: VersionRequest) -> Self {
        self.options.version = Some(version);
        self
    }

    /// Waits so long for an answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Chooses so among several instances.
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.options.balance = balance;
        self
    }

    /// Tries again so many times; only for methods that may be worked on twice.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Gives up a try after this while there is another.
    #[must_use]
    pub fn try_timeout(mut self, timeout: Duration) -> Self {
        self.options.try_timeout = Some(timeout);
        self
    }

    /// Asks this service or address instead of the one that the interface names.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        self.options.target = Some(target.into());
        self
    }

    /// Calls a method and waits for its result.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call<A, R>(&self, method: &str, args: &A) -> Result<R, Error>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.client.call(&format!("{}.{method}", self.interface), args, &self.options).await
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn request<A>(&self, method: &str, args: &A) -> Result<Reply, Error>
    where
        A: Serialize + ?Sized,
    {
        self.client.request(&format!("{}.{method}", self.interface), args, &self.options).await
    }
}
