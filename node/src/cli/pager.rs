//! Long output on a terminal goes through a pager, as git does it: `$HILUM_PAGER`, else `$PAGER`, else `less -FRX`;
//! an empty one or `cat` means none.

use std::ffi::OsString;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::interrupts::Interrupts;
use super::output::Output;

/// What is tried where no variable says otherwise: quits where one screen is enough, shows colours, leaves the text there.
const DEFAULT: &str = "less -FRX";

/// A pager that runs. Dropping it waits until the user leaves it, so what writes to it must be dropped first.
pub(crate) struct Pager {
    child: Child,
    /// Ctrl-C is for the pager.
    _interrupts: Option<Interrupts>,
}

impl Pager {
    /// Starts one, if stdout is a terminal and there is a pager; the answer has what to write to.
    pub(crate) fn start(out: Output) -> Option<(Self, ChildStdin)> {
        if !out.screen {
            return None;
        }
        let command = chosen(std::env::var_os("HILUM_PAGER"), std::env::var_os("PAGER"))?;
        // A user's choice that does not work is shown; that there is no `less` is no matter.
        let there = || Command::new("less").arg("--version").stdout(Stdio::null()).status();
        if command == DEFAULT && there().is_err() {
            return None;
        }
        let mut pager = Command::new("/bin/sh");
        pager.arg("-c").arg(command).stdin(Stdio::piped());
        for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
            if std::env::var_os(name).is_none() {
                pager.env(name, value);
            }
        }
        let mut child = pager.spawn().ok()?;
        let stdin = child.stdin.take()?;
        Some((Self { child, _interrupts: Interrupts::listen().ok() }, stdin))
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let _ = self.child.wait(); // how it ended is between it and the user
    }
}

/// The pager's command line; none where the user wants none.
fn chosen(ours: Option<OsString>, common: Option<OsString>) -> Option<OsString> {
    let command = ours.or(common).unwrap_or_else(|| DEFAULT.into());
    let text = command.to_string_lossy();
    (!matches!(text.trim(), "" | "cat")).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_pager_is_taken() {
        let text = |text: &str| Some(OsString::from(text));
        assert_eq!(chosen(None, None), text("less -FRX"));
        assert_eq!(chosen(None, text("more")), text("more"));
        assert_eq!(chosen(text("bat -p"), text("more")), text("bat -p"));
        assert_eq!(chosen(text(""), text("more")), None);
        assert_eq!(chosen(None, text("cat")), None);
    }
}
