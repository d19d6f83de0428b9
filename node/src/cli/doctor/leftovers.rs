//! What killed nodes left behind, and clearing what is provably dead.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use hilum_shared::lock::{Lock, LockError};
use hilum_shared::run_dir::StateDir;

use super::Findings;
use crate::cli::session::Session;
use crate::cli::{ls, operation};
use crate::driver::keeper;

/// So long `--mend` waits for what it has killed: as long as the keeper does.
const PATIENCE: Duration = Duration::from_secs(5);

/// What killed nodes left behind.
pub(super) fn leftovers(session: &Session, mend: bool, findings: &mut Findings) {
    let mut found = false;
    let id = session.project().map(|project| project.state.id()).ok();
    for folder in ls::run_folders() {
        if !dead(&folder) {
            continue;
        }
        let ours = id.as_ref().is_some_and(|id| folder.ends_with(id));
        found |= ours;
        let check = if ours { "leftovers" } else { "elsewhere" };
        let shown = folder.display();
        let config = ls::config_of(&folder);
        // a node that is just starting has not said whose it is: only the lock of ours tells
        let dead = if ours { matches!(session.node_pid(), Ok(None)) } else { config.is_some() };
        if !dead {
            if !ours {
                let detail = format!("{shown} does not say whose it is");
                let mend = "remove it by hand, unless a node is just starting in it";
                findings.warn(check, detail, mend);
            }
            continue;
        }
        if let Some(state) = ls::state_of(&folder).filter(|_| !ours)
            && !gone(&state, check, mend, findings)
        {
            continue; // without its processes' folder nobody would look for them again
        }
        let whose =
            config.map_or_else(String::new, |config| format!(" for `{}`", config.display()));
        if !mend {
            findings.warn(
                check,
                format!("{shown} of a node{whose} that is gone"),
                "`hilum doctor --mend` removes it; the next `hilum up` of that project does, too",
            );
            continue;
        }
        match fs::remove_dir_all(&folder) {
            Ok(()) => findings.ok(check, format!("removed {shown}{whose}")),
            Err(error) => {
                findings.bad(check, format!("cannot remove {shown}: {error}"), "remove it by hand");
            }
        }
    }
    if let Ok(project) = session.project()
        && let Ok(None) = session.node_pid()
    {
        found |= orphans(&project.state, "leftovers", mend, findings);
    }
    if !found {
        findings.ok("leftovers", if mend { "none: nothing to mend" } else { "none" });
    }
}

/// Whether nothing of another project's dead node lives, after it was ended if asked.
fn gone(state: &StateDir, check: &'static str, mend: bool, findings: &mut Findings) -> bool {
    orphans(state, check, mend, findings);
    !mend || keeper::all_marked(&state.id()).is_empty()
}

/// Processes of a cluster that have no node; false when there are none.
fn orphans(state: &StateDir, check: &'static str, mend: bool, findings: &mut Findings) -> bool {
    let id = state.id();
    let left = keeper::all_marked(&id);
    if left.is_empty() {
        return false;
    }
    let shown = operation::survivors(&left);
    if !mend {
        findings.bad(
            check,
            format!("processes without a node: {shown}"),
            "`hilum doctor --mend` kills them; the next `hilum up` does, too",
        );
        return true;
    }
    // who holds the lock alone knows that the marked are no living node's
    let _lock = match Lock::take(&state.lock()) {
        Err(LockError::Held { pid }) => {
            findings.ok(check, format!("pid {pid} just starts a node, which ends {shown}"));
            return true;
        }
        // the state folder is gone or not ours: no node can hold what cannot be made
        other => other.ok(),
    };
    let stuck = keeper::sweep_marked(&id, PATIENCE);
    if stuck.is_empty() {
        findings.ok(check, format!("killed {shown}"));
    } else {
        findings.bad(
            check,
            format!("survive SIGKILL: {}", operation::survivors(&stuck)),
            "they hang in the kernel; look at their `wchan`",
        );
    }
    true
}

/// Whether a run folder is ours and provably no living node's: nobody holds its lock, nothing listens in it.
fn dead(folder: &Path) -> bool {
    let ours = fs::symlink_metadata(folder)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw());
    if !ours || ls::node_of(folder).is_some() {
        return false;
    }
    let Ok(sockets) = fs::read_to_string("/proc/net/unix") else {
        return false;
    };
    let prefix = format!("{}/", folder.display());
    let listens = sockets
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7))
        .any(|path| path.starts_with(&prefix));
    !listens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_which_somebody_listens_is_not_dead() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("x");
        fs::create_dir(&folder).unwrap();
        assert!(dead(&folder));
        let listener = std::os::unix::net::UnixListener::bind(folder.join("node.sock")).unwrap();
        assert!(!dead(&folder));
        drop(listener);
        assert!(dead(&folder));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(!dead(&link));
    }
}
