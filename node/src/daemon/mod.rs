//! A node's life around its loop: start in the background or in place, lock, folders, own diagnostics.

pub mod diagnostics;
mod guard;
mod held;
pub mod launch;
mod log_dir;
mod node;
mod options;
mod places;
mod surroundings;

pub(crate) use log_dir::log_pointer;

use std::process::ExitCode;

use self::launch::{NodeOptions, Startup};
use crate::driver::keeper::{self, Mark};
use crate::driver::limits;
use crate::driver::request::{Session, SpawnRequest};

/// The internal verb `__keeper`: the parent of a node in the background.
pub fn keeper_main(startup: &str) -> ExitCode {
    match serde_json::from_str::<Startup>(startup) {
        // A session of its own: the terminal's signals are for the command that waits in front of it.
        Ok(startup) => {
            let _ = nix::unistd::setsid(); // it fails only for who leads a group already
            keep(&startup.options, true)
        }
        Err(error) => complain(&format!("__keeper is internal: {error}")),
    }
}

/// The internal verb `__node`: the node itself.
pub fn node_main(startup: &str) -> ExitCode {
    match serde_json::from_str::<Startup>(startup) {
        Ok(startup) => node::main(&startup),
        Err(error) => complain(&format!("__node is internal: {error}")),
    }
}

/// The verb `node`: this process is the keeper, the node its child; diagnostics on stderr.
pub fn foreground(options: &NodeOptions) -> ExitCode {
    match limits::enough_for_a_node() {
        Ok(()) => keep(options, false),
        Err(error) => complain(&error.to_string()),
    }
}

fn keep(options: &NodeOptions, launched: bool) -> ExitCode {
    let nonce = hilum_shared::wire::message::new_id();
    let mark = format!("{}.{}", options.state_dir().id(), &nonce[..12]);
    let request = match node_request(options, launched, &mark) {
        Ok(request) => request,
        Err(error) => return complain(&format!("cannot start the node: {error}")),
    };
    match keeper::run(request, &Mark::of_life(&mark)) {
        Ok(code) => code,
        Err(error) => complain(&format!("cannot start the node: {error}")),
    }
}

/// The node as a child of this process: the same program, environment and descriptors.
fn node_request(
    options: &NodeOptions,
    launched: bool,
    mark: &str,
) -> Result<SpawnRequest, crate::driver::request::NulByte> {
    let startup = launch::startup(options, launched, mark.to_owned());
    let mut request = launch::again(&["hilum".into(), "__node".into(), startup])?;
    request.session = Session::Group;
    Ok(request)
}

fn complain(message: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "error: {message}"); // nowhere else to say it
    ExitCode::FAILURE
}
