//! How traces look: which line may begin one, and what may follow, language by language.

mod marks;

use marks::{
    HTTP_PANIC, LONGEST_NAME, contains, is_asyncio, is_backtrace, is_exception, is_fault, is_frame,
    is_go, is_goroutine, is_group, is_http_panic, is_panic, is_php_frame, is_php_head, is_place,
    is_python_chain, is_python_exception, is_python_head, is_python_warning, names_exception,
};

/// Where a trace is: what came last, as far as it matters for what may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A line of some gravity: a trace may follow.
    Header,
    /// `com.shop.NoStock: none`, `TypeError: x`: frames may follow.
    Exception,
    /// `/app/cart.js:12` of Node: the code, a caret and the exception may follow.
    Place,
    /// Frames of Java, Kotlin, C#, Node, Ruby.
    Frames,
    /// The properties that Node prints in braces after the frames.
    Properties,
    /// Inside `Traceback (most recent call last):`.
    Python,
    /// After its exception.
    PythonEnd,
    /// After the sentence that leads to the next one.
    PythonChain,
    /// `Exception in thread Thread-1 (f):`, `Task exception was never retrieved`: a traceback follows.
    PythonHead,
    /// After `Stack (most recent call last):` and what `logging` says of its own errors.
    PythonStack,
    /// `/app/a.py:17: UserWarning: old`, the line of source follows.
    PythonWarning,
    /// `Fatal Python error: Segmentation fault`, the threads follow.
    PythonFault,
    /// After `Caused by:` of Rust's `anyhow` and `eyre`.
    Causes,
    /// `PHP Fatal error:  Uncaught …`, `Stack trace:` and `#0 …`.
    Php,
    /// `thread 'main' panicked at src/main.rs:3:5:`, the message follows.
    Panic,
    /// After the message.
    PanicMessage,
    /// After `stack backtrace:`.
    Backtrace,
    /// `panic: …` or `fatal error: …` of Go.
    Go,
    /// In a dump of goroutines.
    Goroutines,
    /// As `log.multiline` says.
    Custom,
}

/// What a line means for the record that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It belongs to it, and so does all before it.
    Join(State),
    /// It belongs to it if something follows that does.
    Perhaps(State),
    /// It does not.
    Cut,
}

/// The beginning of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) state: State,
    /// Whether it is one for sure, even alone.
    pub(super) sure: bool,
}

/// One for sure.
const fn sure(state: State) -> Begin {
    Begin { state, sure: true }
}

/// One if more follows.
const fn perhaps(state: State) -> Begin {
    Begin { state, sure: false }
}

/// A quick look for the many lines that begin nothing; [`begin`] decides.
#[inline]
pub(super) fn may_begin(line: &[u8]) -> bool {
    match line.first() {
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'/' | b' ' | b'\t' | b'_') => {
            begin_or_name(line).is_some()
        }
        Some(b'-') => is_python_head(line),
        Some(b'<') => is_python_warning(line),
        Some(b'2') => is_http_panic(line),
        _ => false,
    }
}

/// Whether a line may begin a trace: as [`begin`] says, or since it names an exception somewhere.
pub(super) fn begin_or_name(line: &[u8]) -> Option<Begin> {
    begin(line).or_else(|| names_exception(line).then_some(perhaps(State::Exception)))
}

/// Whether a line may begin a trace, by its first words.
pub(super) fn begin(line: &[u8]) -> Option<Begin> {
    let starts = |word: &[u8]| line.starts_with(word);
    if is_python_head(line) {
        return Some(perhaps(State::PythonHead));
    }
    if is_php_head(line) {
        return Some(perhaps(State::Php));
    }
    if is_python_warning(line) {
        return Some(perhaps(State::PythonWarning));
    }
    let known = match line.first()? {
        b'T' => starts(b"Traceback (most recent call last)").then_some(sure(State::Python)),
        b't' => is_panic(line)
            .then(|| sure(if line.ends_with(b":") { State::Panic } else { State::PanicMessage })),
        b'p' => starts(b"panic: ").then_some(sure(State::Go)),
        b'f' => starts(b"fatal error: ").then_some(sure(State::Go)),
        b'F' => starts(b"Fatal Python error: ").then_some(sure(State::PythonFault)),
        b'S' if line == b"Stack (most recent call last):" => Some(sure(State::PythonStack)),
        b'S' => (starts(b"SIGQUIT: quit") || starts(b"SIGABRT: abort")).then_some(sure(State::Go)),
        b'g' => is_goroutine(line).then_some(sure(State::Goroutines)),
        b'E' => starts(b"Exception in thread ").then_some(sure(State::Exception)),
        b'C' => starts(b"Caused by: ").then_some(perhaps(State::Exception)),
        b'U' => (starts(b"Unhandled exception") || starts(b"Uncaught "))
            .then_some(perhaps(State::Exception)),
        b'2' => is_http_panic(line).then_some(sure(State::Go)),
        b'h' => line.starts_with(HTTP_PANIC).then_some(sure(State::Go)),
        b' ' | b'\t' => return begin_indented(line),
        _ => None,
    };
    known.or_else(|| begin_name(line))
}

fn begin_indented(line: &[u8]) -> Option<Begin> {
    let text = line.trim_ascii_start();
    if is_group(line) {
        return Some(sure(State::PythonEnd));
    }
    // Frames without a head that we know.
    (text.starts_with(b"at ") && text.ends_with(b")") && text.contains(&b'('))
        .then_some(perhaps(State::Frames))
}

/// Lines that begin with the name of an exception, of a file and a line, of a method in a Ruby file.
fn begin_name(line: &[u8]) -> Option<Begin> {
    let head = &line[..line.len().min(LONGEST_NAME)];
    let end = head.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(head.len());
    let name = &head[..end];
    if let Some(colon) = name.strip_suffix(b":") {
        // `Trace: here` is what Node's `console.trace` says.
        let known = is_exception(colon) || colon == b"Trace";
        return known.then_some(perhaps(State::Exception));
    }
    if name.len() == line.len() && is_exception(name) {
        return Some(perhaps(State::Exception));
    }
    if name.ends_with(b":in") && contains(name, b".rb:") {
        return Some(perhaps(State::Exception));
    }
    // `Error [ERR_X]: text`, `TypeError [ERR_X]: text`
    if is_exception(name) && line[end..].starts_with(b" [") {
        return Some(perhaps(State::Exception));
    }
    let place = matches!(name.first(), Some(b'/' | b'n' | b'f')) && name.len() == line.len();
    if place && is_place(name) {
        return Some(perhaps(State::Place));
    }
    None
}

/// What may follow such a line: more of them, the properties that Node prints, or the rest of a message.
fn after_frame(line: &[u8]) -> State {
    let text = line.trim_ascii_start();
    if [b"Caused by: ".as_slice(), b"Suppressed: ", b"---> "]
        .iter()
        .any(|word| text.starts_with(word))
    {
        State::Exception
    } else if line.ends_with(b" {") {
        State::Properties
    } else {
        State::Frames
    }
}

impl State {
    /// What the next line means, where `last` is the one before it.
    pub(super) fn step(self, line: &[u8], last: &[u8]) -> Step {
        let indented = matches!(line.first(), Some(b' ' | b'\t'));
        let blank = line.trim_ascii().is_empty();
        match self {
            Self::Header => match begin(line) {
                _ if is_frame(line) => Step::Join(after_frame(line)),
                _ if is_php_frame(line) => Step::Join(Self::Php),
                _ if line == b"Caused by:" => Step::Join(Self::Causes),
                _ if is_asyncio(line) => Step::Perhaps(Self::PythonHead),
                Some(Begin {
                    state: state @ (Self::Python | Self::PythonEnd | Self::PythonStack),
                    ..
                }) => Step::Join(state),
                Some(Begin { state: Self::Exception, sure: false }) => {
                    Step::Perhaps(Self::Exception)
                }
                // What a runtime prints of its own end belongs to no line of a logger.
                _ => Step::Cut,
            },
            Self::Exception => match begin(line) {
                _ if is_frame(line) => Step::Join(after_frame(line)),
                _ if line == b"Caused by:" || line == b"Location:" => Step::Join(Self::Causes),
                // Of another process, in quotes.
                Some(Begin { state: Self::Python, .. }) if last == br#"""""# => {
                    Step::Join(Self::Python)
                }
                // A head of its own: one more line that says error, not the message's second.
                Some(begin) if begin.state != Self::Place => Step::Cut,
                _ => Step::Perhaps(Self::Exception),
            },
            Self::Place => match begin(line) {
                _ if is_frame(line) => Step::Join(after_frame(line)),
                _ if line.starts_with(b"Node.js v") => Step::Join(Self::Frames),
                Some(Begin { state: Self::Exception, .. }) => Step::Perhaps(Self::Exception),
                Some(_) if !indented => Step::Cut,
                _ => Step::Perhaps(Self::Place),
            },
            Self::Frames => {
                if is_frame(line) {
                    Step::Join(after_frame(line))
                } else if blank {
                    Step::Perhaps(Self::Frames)
                } else if line.starts_with(b"Node.js v") {
                    Step::Join(Self::Frames)
                } else {
                    Step::Cut
                }
            }
            Self::Properties if indented => Step::Join(Self::Properties),
            Self::Properties if line == b"}" => Step::Join(Self::Frames),
            Self::Properties => Step::Cut,
            Self::Python => {
                if indented {
                    Step::Join(Self::Python)
                } else if is_python_exception(line) {
                    Step::Join(Self::PythonEnd)
                } else if blank {
                    Step::Perhaps(Self::Python)
                } else {
                    Step::Cut
                }
            }
            Self::PythonEnd => {
                if is_python_chain(line) {
                    Step::Join(Self::PythonChain)
                } else if line == b"Call stack:" || line == b"Stack (most recent call last):" {
                    Step::Join(Self::PythonStack)
                } else if blank {
                    Step::Perhaps(Self::PythonEnd)
                } else if is_group(line) {
                    Step::Cut // another one
                } else if indented && !last.trim_ascii().is_empty() {
                    Step::Join(Self::PythonEnd)
                } else if begin(line).is_some() {
                    Step::Cut
                } else {
                    Step::Perhaps(Self::PythonEnd) // its message may have several lines
                }
            }
            Self::PythonChain if blank => Step::Join(Self::PythonChain),
            Self::PythonChain => match begin(line) {
                Some(Begin { state: state @ (Self::Python | Self::PythonEnd), .. }) => {
                    Step::Join(state)
                }
                _ => Step::Cut,
            },
            Self::PythonHead => match begin(line) {
                Some(Begin { state: state @ (Self::Python | Self::PythonEnd), .. }) => {
                    Step::Join(state)
                }
                // One that was never raised has no traceback.
                Some(Begin { state: Self::Exception, .. }) if is_asyncio(last) => {
                    Step::Join(Self::PythonEnd)
                }
                _ if is_asyncio(line) || (indented && !blank) => Step::Perhaps(Self::PythonHead),
                _ => Step::Cut,
            },
            Self::PythonStack => {
                let of_logging = line.starts_with(b"Message: ") || line.starts_with(b"Arguments: ");
                if of_logging || (indented && !blank) {
                    Step::Join(Self::PythonStack)
                } else {
                    Step::Cut
                }
            }
            Self::PythonWarning if indented && !last.starts_with(b" ") => {
                Step::Join(Self::PythonWarning)
            }
            Self::PythonWarning => Step::Cut,
            Self::PythonFault => {
                if is_fault(line) || (indented && !blank) {
                    Step::Join(Self::PythonFault)
                } else if blank
                    || matches!(begin(line), Some(begin) if begin.state == Self::Exception)
                {
                    Step::Perhaps(Self::PythonFault)
                } else {
                    Step::Cut
                }
            }
            Self::Causes => {
                if line.starts_with(b"Stack backtrace:") {
                    Step::Join(Self::Backtrace)
                } else if line == b"Location:" || (indented && !blank) {
                    Step::Join(Self::Causes)
                } else if blank {
                    Step::Perhaps(Self::Causes)
                } else {
                    Step::Cut
                }
            }
            Self::Php => {
                if is_php_frame(line) {
                    Step::Join(Self::Php)
                } else if blank || line.starts_with(b"Next ") || !is_php_frame(last) {
                    Step::Perhaps(Self::Php)
                } else {
                    Step::Cut
                }
            }
            Self::Panic => Step::Join(Self::PanicMessage),
            Self::PanicMessage => {
                if line.starts_with(b"stack backtrace:") {
                    Step::Join(Self::Backtrace)
                } else if line.starts_with(b"note: ") || (indented && !blank) {
                    Step::Join(Self::PanicMessage)
                } else if begin(line).is_some() {
                    Step::Cut
                } else {
                    Step::Perhaps(Self::PanicMessage)
                }
            }
            Self::Backtrace if is_backtrace(line) || line.starts_with(b"note: ") => {
                Step::Join(Self::Backtrace)
            }
            Self::Backtrace => Step::Cut,
            Self::Go => {
                if is_goroutine(line) {
                    Step::Join(Self::Goroutines)
                } else if line.starts_with(b"[signal ") || (indented && !blank) {
                    Step::Join(Self::Go)
                } else {
                    Step::Perhaps(Self::Go)
                }
            }
            Self::Goroutines => {
                if is_goroutine(line) || (indented && !blank) || is_go(line) {
                    Step::Join(Self::Goroutines)
                } else if blank {
                    Step::Perhaps(Self::Goroutines)
                } else {
                    Step::Cut
                }
            }
            Self::Custom => Step::Join(Self::Custom),
        }
    }
}
