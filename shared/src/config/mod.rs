//! From YAML to [`spec::Cluster`]: `raw` (the YAML's shape) → `resolve` (includes, variables,
//! defaults) → `validate` (cross checks) → `spec`; what is wrong becomes a `diagnostic`.

pub mod cron;
pub mod spec;
pub mod template;
