//! What one start is made of: the complete environment with origins, the expanded command, and the
//! request for the spawner. Nothing is started here; `env`, `run` and `exec` use the same.

pub mod context;
pub mod environment;
pub mod prepare;
