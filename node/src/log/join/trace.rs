//! How traces look: which line may begin one, and what may follow, language by language.

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

/// A name of a class or a file that a line begins with is no longer.
const LONGEST_NAME: usize = 100;

/// A quick look for the many lines that begin nothing; [`begin`] decides.
#[inline]
pub(super) fn may_begin(line: &[u8]) -> bool {
    match line.first() {
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'/' | b' ' | b'\t' | b'_') => begin(line).is_some(),
        Some(b'2') => is_http_panic(line),
        _ => false,
    }
}

/// Whether a line may begin a trace.
pub(super) fn begin(line: &[u8]) -> Option<Begin> {
    let starts = |word: &[u8]| line.starts_with(word);
    let known = match line.first()? {
        b'T' => starts(b"Traceback (most recent call last)").then_some(sure(State::Python)),
        b't' => is_panic(line)
            .then(|| sure(if line.ends_with(b":") { State::Panic } else { State::PanicMessage })),
        b'p' => starts(b"panic: ").then_some(sure(State::Go)),
        b'f' => starts(b"fatal error: ").then_some(sure(State::Go)),
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

/// What Go's HTTP server says of a handler's panic; the dump follows.
const HTTP_PANIC: &[u8] = b"http: panic serving ";

/// The same after the time that Go's log puts there: `2026/11/24 12:00:00 `, perhaps with microseconds.
fn is_http_panic(line: &[u8]) -> bool {
    line.get(4) == Some(&b'/') && contains(&line[..line.len().min(LONGEST_NAME)], HTTP_PANIC)
}

/// `thread 'main' panicked at …`, `thread 'main' (42) panicked at …`
fn is_panic(line: &[u8]) -> bool {
    line.starts_with(b"thread ")
        && contains(&line[..line.len().min(LONGEST_NAME)], b" panicked at ")
}

fn begin_indented(line: &[u8]) -> Option<Begin> {
    let text = line.trim_ascii_start();
    if text.starts_with(b"+ Exception Group Traceback") {
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
        if is_exception(colon) {
            return Some(perhaps(State::Exception));
        }
        return None;
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

/// `java.lang.IllegalStateException`, `System.NullReferenceException`, `TypeError`
fn is_exception(name: &[u8]) -> bool {
    let ends = [b"Error".as_slice(), b"Err", b"Exception", b"Throwable", b"Failure", b"Fault"];
    ends.iter().any(|end| name.ends_with(end))
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$'))
}

/// `/app/cart.js:12`, `node:internal/modules/cjs/loader:1143`
fn is_place(name: &[u8]) -> bool {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let Some(file) = name[..name.len() - digits].strip_suffix(b":") else {
        return false;
    };
    digits > 0
        && (file.starts_with(b"node:")
            || [b".js".as_slice(), b".mjs", b".cjs", b".ts", b".mts", b".jsx", b".tsx"]
                .iter()
                .any(|end| file.ends_with(end)))
}

fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(b"goroutine ") && (line.ends_with(b"]:") || contains(line, b"]: "))
}

/// `\tat com.shop.Cart.pay(Cart.java:3)`, `    at pay (/app/cart.js:3:5)`, `\tfrom cart.rb:3:in 'pay'`, `\t... 3 more`
fn is_frame(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    let indented = text.len() < line.len();
    let begins = |word: &[u8]| text.starts_with(word);
    begins(b"Caused by: ")
        || begins(b"Suppressed: ")
        || begins(b"---> ")
        || (indented
            && (begins(b"at ")
                || begins(b"from ")
                || begins(b"... ")
                || begins(b"--- End of ")
                || begins(b"| ")
                || begins(b"[cause]: ")))
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

/// `   0: core::panicking::panic`, `             at src/main.rs:3`
fn is_backtrace(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.len() < line.len()
        && (text.starts_with(b"at ") || (digits > 0 && text[digits..].starts_with(b": ")))
}

/// `main.pay(0x1)`, `created by main.main in goroutine 1`, `exit status 2`, `rax    0x0`
fn is_go(line: &[u8]) -> bool {
    let register = || {
        let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        (2..=7).contains(&name) && line[name..].trim_ascii_start().starts_with(b"0x")
    };
    line.ends_with(b")")
        || line.starts_with(b"created by ")
        || line.starts_with(b"exit status ")
        || line.starts_with(b"[signal ")
        || line.starts_with(b"runtime: ")
        || line.starts_with(b"...")
        || register()
}

/// `ValueError: none`, `shop.NoStock`, `KeyboardInterrupt`
fn is_python_exception(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let name = &line[..end];
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || *byte >= 0x80
        })
}

fn is_python_chain(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause")
}

fn contains(line: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(line, what).is_some()
}

impl State {
    /// What the next line means, where `last` is the one before it.
    pub(super) fn step(self, line: &[u8], last: &[u8]) -> Step {
        let indented = matches!(line.first(), Some(b' ' | b'\t'));
        let blank = line.trim_ascii().is_empty();
        match self {
            Self::Header => match begin(line) {
                _ if is_frame(line) => Step::Join(after_frame(line)),
                Some(Begin { state: state @ (Self::Python | Self::PythonEnd), .. }) => {
                    Step::Join(state)
                }
                Some(Begin { state: Self::Exception, sure: false }) => {
                    Step::Perhaps(Self::Exception)
                }
                // What a runtime prints of its own end belongs to no line of a logger.
                _ => Step::Cut,
            },
            Self::Exception => match begin(line) {
                _ if is_frame(line) => Step::Join(after_frame(line)),
                // A head of its own: one more line that says error, not the message's second.
                Some(begin) if begin.state != Self::Place => Step::Cut,
                _ => Step::Perhaps(Self::Exception),
            },
            Self::Place => match begin(line) {
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
                } else if blank {
                    Step::Perhaps(Self::PythonEnd)
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
                Some(Begin { state: Self::Python, .. }) => Step::Join(Self::Python),
                _ => Step::Cut,
            },
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
