//! The only home of `nix`, `libc` and `unsafe`: processes, descriptors, signals, `/proc`.
#![allow(
    unsafe_code,
    reason = "system calls that no safe wrapper offers; one call per block, each with its proof"
)]

pub mod cgroup;
pub mod child;
pub mod command;
pub mod dye;
pub mod folder;
pub mod holder;
pub mod identity;
pub mod keeper;
pub mod limits;
pub mod memory;
pub mod oom;
pub mod pipes;
pub mod ports;
pub mod probe;
pub mod procfs;
pub mod pty;
pub mod request;
pub mod signals;
pub mod sockets;
pub mod spawn;
pub mod spawn_error;
mod spawned;
pub mod stats;
pub mod sweep;
pub mod sys;
pub mod tether;
pub mod wall_clock;
