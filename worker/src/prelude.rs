//! What a service's source usually needs: `use hilum_worker::prelude::*;`

pub use serde::{Deserialize, Serialize};

pub use crate::{
    Component, Context, Declared, Dep, Error, Event, Proxy, ReplyChannel, args, interface,
};

/// The result of what may fail with any error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
