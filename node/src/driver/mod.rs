//! The only home of `nix`, `libc` and `unsafe`: processes, descriptors, signals, `/proc`.
#![allow(
    unsafe_code,
    reason = "system calls that no safe wrapper offers; one call per block, each with its proof"
)]

pub mod child;
pub mod command;
pub mod dye;
pub mod identity;
pub mod keeper;
pub mod probe;
pub mod procfs;
pub mod request;
pub mod spawn;
pub mod spawn_error;
pub mod sweep;
pub mod sys;
