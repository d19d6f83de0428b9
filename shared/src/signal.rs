//! Signals by name, and how a process ended.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal of this machine, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

macro_rules! signals {
    ($($name:ident)*) => {
        /// Names without `SIG`, with their numbers on this platform (`man 7 signal`).
        const NAMES: &[(&str, i32)] = &[$((stringify!($name), paste_sig::$name)),*];
        #[allow(missing_docs, reason = "the names are those of man 7 signal")]
        impl Signal { $(pub const $name: Self = Self(paste_sig::$name);)* }
    };
}

/// libc's constants under the names without `SIG`.
mod paste_sig {
    pub(super) use libc::{
        SIGABRT as ABRT, SIGALRM as ALRM, SIGBUS as BUS, SIGCHLD as CHLD, SIGCONT as CONT,
        SIGFPE as FPE, SIGHUP as HUP, SIGILL as ILL, SIGINT as INT, SIGIO as IO, SIGKILL as KILL,
        SIGPIPE as PIPE, SIGPROF as PROF, SIGPWR as PWR, SIGQUIT as QUIT, SIGSEGV as SEGV,
        SIGSTKFLT as STKFLT, SIGSTOP as STOP, SIGSYS as SYS, SIGTERM as TERM, SIGTRAP as TRAP,
        SIGTSTP as TSTP, SIGTTIN as TTIN, SIGTTOU as TTOU, SIGURG as URG, SIGUSR1 as USR1,
        SIGUSR2 as USR2, SIGVTALRM as VTALRM, SIGWINCH as WINCH, SIGXCPU as XCPU, SIGXFSZ as XFSZ,
    };
}

signals! {
    HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP
    TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS
}

/// All names, without `SIG`.
#[cfg(feature = "config")]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// The last signal number of Linux (`SIGRTMAX`).
const LAST: i32 = 64;

impl Signal {
    /// The signal with this number, 1 to 64.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=LAST).contains(&number).then_some(Self(number))
    }

    /// All that have a name.
    pub fn named() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, number)| Self(*number))
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name without `SIG`: `TERM`, `RTMIN+2`.
    pub fn name(self) -> String {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => (*name).to_owned(),
            None if self.0 >= 34 => format!("RTMIN+{}", self.0 - 34),
            None => self.0.to_string(),
        }
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Parses `TERM`, `SIGTERM`, `term`, `15` or `RTMIN+2`.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let unknown = || UnknownSignal { text: text.to_owned() };
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Ok(number) = name.parse::<i32>() {
            return Self::from_number(number).ok_or_else(unknown);
        }
        if let Some(offset) = name.strip_prefix("RTMIN") {
            let offset = if offset.is_empty() {
                0
            } else {
                offset.strip_prefix('+').ok_or_else(unknown)?.parse().map_err(|_| unknown())?
            };
            return (0..=LAST - 34)
                .contains(&offset)
                .then(|| Self(34 + offset))
                .ok_or_else(unknown);
        }
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| Self(*number))
            .ok_or_else(unknown)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.name())
    }
}

impl TryFrom<String> for Signal {
    type Error = UnknownSignal;
    fn try_from(text: String) -> Result<Self, UnknownSignal> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.name()
    }
}

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no signal: give a name such as TERM or a number from 1 to 64")]
pub struct UnknownSignal {
    /// What was given.
    pub text: String,
}

/// How a process ended. `exit 143` and "killed by TERM" are two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Which.
        signal: Signal,
        /// Whether it left a core file.
        core: bool,
    },
}

impl Exit {
    /// The code as a shell shows it: 128+N for a signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal { signal, .. } => 128 + signal.number(),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal { signal, core: false } => write!(f, "killed by {signal}"),
            Self::Signal { signal, core: true } => write!(f, "killed by {signal}, core dumped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_by_name_or_number() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal::TERM, "{text}");
        }
        assert_eq!("RTMIN+2".parse::<Signal>().unwrap().number(), 36);
        for text in ["", "0", "65", "FOO", "RTMIN-1", "RTMIN+99"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_signal_prints_as_it_is_read() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.name().parse::<Signal>().unwrap(), signal);
        }
    }

    #[test]
    fn an_exit_code_of_143_is_not_a_signal() {
        assert_eq!(Exit::Code(143).to_string(), "exit 143");
        let killed = Exit::Signal { signal: Signal::TERM, core: false };
        assert_eq!(killed.to_string(), "killed by TERM");
        assert_eq!(killed.shell_code(), 143);
    }
}
