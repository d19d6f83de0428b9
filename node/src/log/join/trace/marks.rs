//! What single lines look like.

/// A name of a class or a file that a line begins with is no longer.
pub(super) const LONGEST_NAME: usize = 100;

/// What Go's HTTP server says of a handler's panic; the dump follows.
pub(super) const HTTP_PANIC: &[u8] = b"http: panic serving ";

/// The same after the time that Go's log puts there: `2026/11/24 12:00:00 `, perhaps with microseconds.
pub(super) fn is_http_panic(line: &[u8]) -> bool {
    line.get(4) == Some(&b'/') && contains(&line[..line.len().min(LONGEST_NAME)], HTTP_PANIC)
}

/// `thread 'main' panicked at …`, `thread 'main' (42) panicked at …`
pub(super) fn is_panic(line: &[u8]) -> bool {
    line.starts_with(b"thread ")
        && contains(&line[..line.len().min(LONGEST_NAME)], b" panicked at ")
}

/// `java.lang.IllegalStateException`, `System.NullReferenceException`, `TypeError`
pub(super) fn is_exception(name: &[u8]) -> bool {
    let ends = [
        b"Error".as_slice(),
        b"Err",
        b"Exception",
        b"Throwable",
        b"Failure",
        b"Fault",
        b"RemoteTraceback", // of Python's `multiprocessing` and `concurrent.futures`
    ];
    ends.iter().any(|end| name.ends_with(end))
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$'))
}

/// `/app/cart.js:12`, `node:internal/modules/cjs/loader:1143`
pub(super) fn is_place(name: &[u8]) -> bool {
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

pub(super) fn is_goroutine(line: &[u8]) -> bool {
    line.starts_with(b"goroutine ") && (line.ends_with(b"]:") || contains(line, b"]: "))
}

/// `\tat com.shop.Cart.pay(Cart.java:3)`, `    at pay (/app/cart.js:3:5)`, `\tfrom cart.rb:3:in 'pay'`, `\t... 3 more`
pub(super) fn is_frame(line: &[u8]) -> bool {
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
                || begins(b"[CIRCULAR REFERENCE: ")
                || begins(b"| ")
                || begins(b"[cause]: ")))
}

/// `   0: core::panicking::panic`, `             at src/main.rs:3`
pub(super) fn is_backtrace(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.len() < line.len()
        && (text.starts_with(b"at ") || (digits > 0 && text[digits..].starts_with(b": ")))
}

/// `main.pay(0x1)`, `created by main.main in goroutine 1`, `exit status 2`, `rax    0x0`
pub(super) fn is_go(line: &[u8]) -> bool {
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
pub(super) fn is_python_exception(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let name = &line[..end];
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || *byte >= 0x80
        })
}

pub(super) fn is_python_chain(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause")
}

pub(super) fn contains(line: &[u8], what: &[u8]) -> bool {
    memchr::memmem::find(line, what).is_some()
}

/// `caught Error: no`, `GET /pay: java.io.IOException: no`: it names an exception behind words of its own.
pub(super) fn names_exception(line: &[u8]) -> bool {
    let head = &line[..line.len().min(LONGEST_NAME)];
    memchr::memchr_iter(b':', head)
        .any(|at| head[..at].ends_with(b"Error") || head[..at].ends_with(b"Exception"))
}

/// What Python says before the traceback of what nobody catches: in a thread, a process, a task, a callback, `__del__`, a handler
/// of `logging`.
pub(super) fn is_python_head(line: &[u8]) -> bool {
    let begins = |word: &[u8]| line.starts_with(word);
    let named = line.ends_with(b":") && line.len() <= LONGEST_NAME;
    match line.first() {
        Some(b'E') => {
            begins(b"Exception ignored ")
                || begins(b"Exception in callback ")
                || (named && begins(b"Exception in thread ") && !line.contains(&b'"'))
        }
        Some(b'P') => named && begins(b"Process "),
        Some(b'T') => begins(b"Task exception was never retrieved"),
        Some(b'F') => begins(b"Future exception was never retrieved"),
        Some(b'-') => begins(b"--- Logging error ---"),
        _ => false,
    }
}

/// `future: <Task finished name='Task-2' …>`, `handle: <Handle …>`: what asyncio says of its objects below its message.
pub(super) fn is_asyncio(line: &[u8]) -> bool {
    let end = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let word = &line[..end];
    !word.is_empty()
        && word.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_')
        && (line[end..].starts_with(b": <") || line.ends_with(b" (most recent call last):"))
}

/// `/app/a.py:17: UserWarning: old`; the line of source follows.
pub(super) fn is_python_warning(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'/' | b'<'))
        && contains(line, b".py:")
        && contains(line, b"Warning: ")
}

/// What Python's `faulthandler` says of its threads.
pub(super) fn is_fault(line: &[u8]) -> bool {
    [b"Current thread ".as_slice(), b"Thread 0x", b"Python runtime state: ", b"Extension modules: "]
        .iter()
        .any(|word| line.starts_with(word))
}

/// `PHP Fatal error:  Uncaught Exception: no in /app/a.php:3`, and the same on a page.
pub(super) fn is_php_head(line: &[u8]) -> bool {
    (line.starts_with(b"PHP Fatal error: ") || line.starts_with(b"Fatal error: "))
        && contains(line, b" Uncaught ")
}

/// `#0 /app/a.php(5): pay()`, `  thrown in /app/a.php on line 3`
pub(super) fn is_php_frame(line: &[u8]) -> bool {
    line == b"Stack trace:"
        || (line.starts_with(b"#") && line.get(1).is_some_and(u8::is_ascii_digit))
        || line.starts_with(b"  thrown in ")
}

/// `  + Exception Group Traceback (most recent call last):`
pub(super) fn is_group(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"+ Exception Group Traceback")
}
