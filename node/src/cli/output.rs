//! The only place that prints: results to stdout, talk to stderr, colour only where it is wanted.
//!
//! Every function that writes returns [`CliError::Closed`] when the reader went away, so that a broken
//! pipe ends a command silently wherever it is noticed.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};

use nix::sys::stat::{SFlag, fstat};
use serde::Serialize;

use super::exit::CliError;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR`, `CI=true` or `TERM=dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A look of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// Good.
    Good,
    /// In between.
    Warn,
    /// Bad.
    Bad,
    /// The word `error:`.
    Error,
    /// The word `help:`.
    Help,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Error => "1;31",
            Self::Help => "1;36",
        }
    }
}

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Painter {
    on: bool,
}

impl Painter {
    /// One that leaves everything as it is.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { on: false }
    }

    /// Whether it paints.
    pub(crate) fn on(self) -> bool {
        self.on
    }

    /// `text` in this style.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if self.on { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }
}

/// What is around the process, as far as it matters to the look of the output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Surroundings {
    /// stdout is a terminal.
    pub(crate) stdout: bool,
    /// stderr is a terminal.
    pub(crate) stderr: bool,
    /// `NO_COLOR` is set and not empty (<https://no-color.org>).
    pub(crate) no_color: bool,
    /// `CI=true` or `TERM=dumb`: plain lines, no cursor movement.
    pub(crate) plain: bool,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let ci = set("CI").is_some_and(|value| value != "false" && value != "0");
        Self {
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
            no_color: set("NO_COLOR").is_some(),
            plain: ci || set("TERM").is_none_or(|term| term == "dumb"),
        }
    }

    fn colour(self, choice: ColorChoice, terminal: bool) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !self.no_color && !self.plain,
        }
    }
}

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// For stdout.
    pub(crate) paint: Painter,
    /// For stderr.
    pub(crate) paint_err: Painter,
    /// `--json`.
    pub(crate) json: bool,
    /// `-q`: no notes.
    pub(crate) quiet: bool,
    /// `-v`, counted.
    pub(crate) verbose: u8,
    /// Whether a display may be drawn over and over on stderr.
    pub(crate) live: bool,
    /// Whether stdout is a terminal that obeys cursor movement.
    pub(crate) screen: bool,
}

#[expect(
    clippy::unused_self,
    reason = "what prints has the command's output at hand, so that there is no other way to print"
)]
impl Output {
    /// The output of a command with these options, here.
    pub(crate) fn new(
        around: Surroundings,
        color: ColorChoice,
        json: bool,
        quiet: bool,
        verbose: u8,
    ) -> Self {
        Self {
            paint: Painter { on: around.colour(color, around.stdout) },
            paint_err: Painter { on: around.colour(color, around.stderr) },
            json,
            quiet,
            verbose,
            live: around.stderr && !around.plain && !quiet && !json,
            screen: around.stdout && !around.plain,
        }
    }

    /// A line of the result.
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        written(writeln!(out, "{text}").and_then(|()| out.flush()))
    }

    /// Text of the result, as it is.
    pub(crate) fn text(self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
    }

    /// A value as JSON, readable.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| CliError::Output(io::Error::other(error)))?;
        self.line(&harmless(&text))
    }

    /// A stream of results, buffered; the caller flushes.
    pub(crate) fn stream(self) -> Stream {
        self.stream_to(io::stdout().lock())
    }

    /// The same to somewhere else: a pager.
    pub(crate) fn stream_to(self, out: impl Write + 'static) -> Stream {
        Stream { out: BufWriter::with_capacity(64 * 1024, Box::new(out)) }
    }

    /// Talk: left out with `-q`; with `--json` an object. A stderr that cannot be written is nobody's business.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            self.talk("note", text, text);
        }
    }

    /// Talk for `-v`.
    pub(crate) fn detail(self, text: &str) {
        if self.verbose > 0 {
            self.talk("note", text, text);
        }
    }

    /// Something that is not right, though the command goes on. Shown also with `-q`; with `--json` as an object.
    pub(crate) fn warn(self, text: &str) {
        let plain = format!("{} {text}", self.paint_err.paint(Style::Warn, "warning:"));
        self.talk("warning", text, &plain);
    }

    fn talk(self, kind: &str, message: &str, plain: &str) {
        if self.json {
            self.say(&serde_json::json!({ kind: { "message": message } }).to_string());
        } else {
            self.say(plain);
        }
    }

    /// The last words of a command that failed.
    pub(crate) fn error(self, error: &CliError) {
        if matches!(error, CliError::Closed) {
            return;
        }
        if self.json {
            self.say(&error.to_json().to_string());
        } else {
            self.say(&error.render(self.paint_err));
        }
    }

    /// Text to stderr, whatever the options say.
    pub(crate) fn say(self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "{text}"); // nobody could be told of the failure
    }

    /// Draws `lines` on stderr over the ones that were drawn before; returns how many there are now.
    pub(crate) fn redraw(self, before: usize, lines: &[String]) -> usize {
        if !self.live {
            return 0;
        }
        let width = super::table::terminal_width();
        let mut text = String::new();
        if before > 0 {
            let _ = write!(text, "\x1b[{before}A\r\x1b[J"); // a String takes all
        }
        for line in lines {
            text.push_str(&super::table::cut(line, width.saturating_sub(1)));
            text.push('\n');
        }
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        lines.len()
    }
}

/// A buffered stdout for many lines.
pub(crate) struct Stream {
    out: BufWriter<Box<dyn Write>>,
}

impl Stream {
    /// A line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        written(writeln!(self.out, "{text}"))
    }

    /// A value as JSON on one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value)
            .map_err(|error| CliError::Output(io::Error::other(error)))?;
        written(self.out.write_all(harmless(&text).as_bytes()))?;
        written(self.out.write_all(b"\n"))
    }

    /// Hands all that was written to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        written(self.out.flush())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// JSON in which nothing is left that a terminal obeys: what a text may hold beside the C0 that JSON forbids, as `\u009b`.
fn harmless(json: &str) -> Cow<'_, str> {
    // DEL, C1, and marks that turn the direction of text; C1 begins with C2, the marks with E2 in UTF-8.
    if memchr::memchr3(0x7f, 0xc2, 0xe2, json.as_bytes()).is_none() {
        return Cow::Borrowed(json);
    }
    let obeyed = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !json.contains(obeyed) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if obeyed(c) {
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

fn failed(error: io::Error) -> CliError {
    // a terminal that was closed answers EIO, where a pipe answers EPIPE
    let hung_up = error.raw_os_error() == Some(nix::libc::EIO) && stdout_is(SFlag::S_IFCHR);
    if hung_up || error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::Closed;
    }
    CliError::Output(error)
}

fn stdout_is(kind: SFlag) -> bool {
    fstat(io::stdout())
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind)
}

/// The error of a write to stdout, told apart from a reader that went away.
pub(crate) fn written(result: io::Result<()>) -> Result<(), CliError> {
    result.map_err(failed)
}

/// Whether stdout is a pipe.
pub(crate) fn stdout_is_pipe() -> bool {
    stdout_is(SFlag::S_IFIFO)
}

/// Whether stdout is a pipe that nobody reads any more.
pub(crate) fn reader_gone() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    if !stdout_is_pipe() {
        return false;
    }
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// Text of a program without what could move the cursor or ring the bell, on one line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        let clean = text
            .chars()
            .map(|c| match c {
                '\n' | '\t' | '\r' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            })
            .collect();
        Cow::Owned(clean)
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(around: Surroundings, choice: ColorChoice) -> bool {
        Output::new(around, choice, false, false, 0).paint.on()
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let terminal = Surroundings { stdout: true, stderr: true, ..Surroundings::default() };
        assert!(on(terminal, ColorChoice::Auto));
        assert!(!on(terminal, ColorChoice::Never));
        assert!(!on(Surroundings::default(), ColorChoice::Auto));
        assert!(on(Surroundings::default(), ColorChoice::Always));
        let no_color = Surroundings { no_color: true, ..terminal };
        assert!(!on(no_color, ColorChoice::Auto));
        let ci = Surroundings { plain: true, ..terminal };
        let output = Output::new(ci, ColorChoice::Auto, false, false, 0);
        assert!(!output.paint.on() && !output.live && !output.screen);
    }

    #[test]
    fn a_display_is_drawn_only_where_it_does_no_harm() {
        let terminal = Surroundings { stdout: true, stderr: true, ..Surroundings::default() };
        assert!(Output::new(terminal, ColorChoice::Auto, false, false, 0).live);
        assert!(!Output::new(terminal, ColorChoice::Auto, true, false, 0).live);
        assert!(!Output::new(terminal, ColorChoice::Auto, false, true, 0).live);
    }

    #[test]
    fn text_of_programs_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb c");
        assert!(matches!(printable("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_reader_that_left_is_not_an_error_to_tell() {
        let gone = written(Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert!(matches!(gone, Err(CliError::Closed)));
        let full = written(Err(io::Error::from(io::ErrorKind::StorageFull)));
        assert!(matches!(full, Err(CliError::Output(_))));
    }
}
