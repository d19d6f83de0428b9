//! The real binary, driven as a user drives it. One topic a file.

mod belt;
mod channels;
mod config;
mod crash;
mod debugger;
mod depend;
mod empty;
mod events;
mod files;
mod full_disk;
mod http;
mod identity;
mod launch;
mod lifecycle;
mod logs;
mod loss;
mod machine;
mod many;
mod metrics;
mod output;
mod policy;
#[path = "../../../shared/tests/interop/python.rs"]
mod python;
mod questions;
mod registry;
mod scale;
mod services;
mod sockets;
mod terminal;
mod up;
mod verbs;
mod worker;
