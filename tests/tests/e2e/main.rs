//! The real binary, driven as a user drives it. One topic a file.

mod channels;
mod config;
mod crash;
mod depend;
mod empty;
mod files;
mod lifecycle;
mod logs;
mod output;
mod scale;
