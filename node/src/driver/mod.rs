//! The only home of `nix`, `libc` and `unsafe`: processes, descriptors, signals, `/proc`.
#![allow(
    unsafe_code,
    reason = "system calls that no safe wrapper offers; one call per block, each with its proof"
)]
