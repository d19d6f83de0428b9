//! Long output on a terminal goes through a pager, as git does it: `$HILUM_PAGER`, else `$PAGER`, else `less -FRX`;
//! an empty one or `cat` means none.

use std::ffi::{OsStr, OsString};
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
        if !is_there(&command) {
            // That there is no `less` is no matter, a user's choice that does not work is.
            if command != DEFAULT {
                out.warn(&format!(
                    "the pager `{}` was not found: this is without",
                    command.display()
                ));
            }
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
        Some((Self { child, _interrupts: Interrupts::pass_over().ok() }, stdin))
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        let _ = self.child.wait(); // how it ended is between it and the user
    }
}

/// Whether the shell finds the program of a command line.
fn is_there(command: &OsStr) -> bool {
    let text = command.to_string_lossy();
    let Some(program) = text.split_whitespace().find(|word| !word.contains('=')) else {
        return false;
    };
    // What needs a shell to be read, the shell may judge.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    let mut asked = Command::new("/bin/sh");
    asked.args(["-c", "command -v -- \"$1\"", "sh", program]);
    let asked = asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    !program.chars().all(plain) || asked.is_ok_and(|status| status.success())
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
        let there = |text: &str| is_there(OsStr::new(text));
        assert!(there("sh -c x") && there("LC_ALL=C /bin/sh") && !there("no-such-pager -R"));
    }
}
