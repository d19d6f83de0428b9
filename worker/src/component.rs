//! What the interfaces of a process share: connections, pools, caches. Made of the configuration, started before the interfaces,
//! stopped after them.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use hilum_shared::rpc::BoxFuture;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};

use crate::Error;

/// A part of a process that is no interface: what stands below `components`, `dependencies` or `plugins`.
///
/// ```
/// use hilum_worker::prelude::*;
///
/// #[derive(Deserialize)]
/// struct PoolConfig { url: String }
///
/// struct Pool { url: String }
///
/// impl Component for Pool {
///     type Config = PoolConfig;
///     const TYPE: &'static str = "Pool";
///
///     fn create(config: PoolConfig) -> Result<Self> {
///         Ok(Self { url: config.url })
///     }
///
///     async fn start(&self) -> Result<()> {
///         tracing::info!(url = self.url, "connected");
///         Ok(())
///     }
/// }
/// ```
pub trait Component: Send + Sync + Sized + 'static {
    /// What stands below its name in the configuration, without `class`.
    type Config: DeserializeOwned;
    /// Its name in `class: "binary:TYPE"`.
    const TYPE: &'static str;

    /// Makes it. What takes time belongs in [`start`](Self::start).
    ///
    /// # Errors
    /// When the configuration cannot be; it is shown with its place.
    fn create(config: Self::Config) -> Result<Self, Error>;

    /// Before any interface starts.
    ///
    /// # Errors
    /// When the process cannot run without it.
    fn start(&self) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// After all interfaces have stopped.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// A call failed with what its method does not declare. For Sentry and its like; the log says it already.
    fn on_error(&self, failure: &FailedCall<'_>) {
        let _ = failure;
    }
}

/// A call that was answered with a NACK because its method failed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailedCall<'a> {
    /// The interface as it is registered.
    pub interface: &'a str,
    /// The method.
    pub method: &'a str,
    /// The request's trace.
    pub trace_id: &'a str,
    /// What it failed with; of a panic, its text.
    pub error: &'a (dyn std::error::Error + Send + Sync + 'static),
}

/// A component of any type.
pub(crate) trait AnyComponent: Send + Sync {
    fn start(&self) -> BoxFuture<'_, Result<(), Error>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    fn on_error(&self, failure: &FailedCall<'_>);
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Component> AnyComponent for T {
    fn start(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(Component::start(self))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(Component::stop(self))
    }

    fn on_error(&self, failure: &FailedCall<'_>) {
        Component::on_error(self, failure);
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A shared component in a configuration, written `dep:NAME` there: the one below `dependencies.NAME`.
///
/// ```
/// # use hilum_worker::prelude::*;
/// # struct Pool;
/// #[derive(Deserialize)]
/// struct EchoConfig { pool: Dep<Pool> }      // pool: dep:main
/// ```
pub struct Dep<T> {
    shared: Arc<T>,
}

impl<T> Dep<T> {
    /// One that is not of a configuration, for tests.
    pub fn new(shared: impl Into<Arc<T>>) -> Self {
        Self { shared: shared.into() }
    }
}

impl<T> Clone for Dep<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Deref for Dep<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T> fmt::Debug for Dep<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dep<{}>", std::any::type_name::<T>())
    }
}

/// Finds what `dep:` names, making it when it is asked for first.
pub(crate) trait Dependencies {
    /// The dependency of this name, or why there is none.
    fn find(&self, name: &str) -> Result<Arc<dyn Any + Send + Sync>, String>;
}

thread_local! {
    /// Where `dep:` is looked up while a configuration is read: serde has no place to hand it through.
    static LOOKUP: RefCell<Option<Arc<dyn Dependencies>>> = const { RefCell::new(None) };
}

/// Reads a configuration in which `dep:` may stand.
pub(crate) fn with_dependencies<T>(
    dependencies: Arc<dyn Dependencies>,
    read: impl FnOnce() -> T,
) -> T {
    let before = LOOKUP.replace(Some(dependencies));
    let result = read();
    LOOKUP.set(before);
    result
}

impl<'de, T: Send + Sync + 'static> Deserialize<'de> for Dep<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Some(name) = text.strip_prefix("dep:") else {
            return Err(D::Error::custom(format!(
                "expected `dep:` and a name of `dependencies`, found `{text}`"
            )));
        };
        let lookup = LOOKUP.with_borrow(Clone::clone);
        let lookup = lookup.ok_or_else(|| {
            D::Error::custom("a dependency can only be named in a service's configuration")
        })?;
        let found = lookup.find(name).map_err(D::Error::custom)?;
        let shared = found.downcast::<T>().map_err(|_| {
            D::Error::custom(format!("`dependencies.{name}` is no {}", std::any::type_name::<T>()))
        })?;
        Ok(Self { shared })
    }
}
