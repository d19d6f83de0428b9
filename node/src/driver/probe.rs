//! Questions that the node asks an instance from outside: does it take connections, answer a
//! request, does a command exit 0, is a file there. One question, one answer; who asks how often is
//! not decided here.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::Probe;
use hilum_shared::config::template::Template;
use hilum_shared::rpc::{Endpoint, Outgoing};
use hilum_shared::units::format_duration;
use hilum_shared::wire::message::Kind;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{TcpStream, UnixStream};

use super::child::Processes;
use super::command;
use super::request::Stdio;
use crate::launch::prepare::{LaunchError, Start};

/// So much of an answer is read: the status line is at its begin, the last line of a command's output at its end.
const ANSWER: usize = 512;

/// So many characters of a command name it.
const SHOWN: usize = 60;

/// A probe with its references filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Connect to `host:port`.
    Tcp(String),
    /// Connect to this Unix socket.
    Unix(PathBuf),
    /// GET this.
    Http(Url),
    /// Run this and see whether it exits 0.
    Exec {
        /// The words, filled in when it is run.
        command: Vec<Template>,
        /// The same for people, filled in.
        shown: String,
    },
    /// See whether it exists.
    File(PathBuf),
    /// Call `lymph.ping` at this address, on a connection of its own, as a new caller would.
    Rpc(String),
}

async fn ping(address: &str, timeout: Duration) -> Result<(), String> {
    let caller = Endpoint::caller().await.map_err(words)?;
    let outgoing = Outgoing { timeout, ..Outgoing::new("lymph.ping", NO_ARGUMENTS.to_vec()) };
    match caller.request(address, outgoing).await {
        Ok(answer) if answer.kind == Kind::Reply => Ok(()),
        Ok(_) => Err("`lymph.ping` is refused".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An empty map in MessagePack.
const NO_ARGUMENTS: [u8; 1] = [0x80];

/// The parts of `http://host:port/path` that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `host:port`
    address: String,
    /// As written, for the `Host` header.
    authority: String,
    path: String,
}

/// A text that no HTTP probe can ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no URL that a probe can ask: write `http://HOST:PORT/PATH`")]
pub struct UrlError {
    /// As written.
    pub text: String,
}

/// Why a probe cannot be asked at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A reference without a value.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// No URL.
    #[error(transparent)]
    Url(#[from] UrlError),
}

impl Question {
    /// Fills in a probe for one run. A relative path is relative to the run's folder.
    ///
    /// # Errors
    /// When a reference has no value or a URL is none.
    pub fn new(probe: &Probe, start: &Start<'_>) -> Result<Self, ProbeError> {
        Ok(match probe {
            Probe::Tcp(address) => Self::Tcp(with_host(&start.expand(address, "tcp")?)),
            Probe::Unix(path) => Self::Unix(start.directory()?.join(start.expand(path, "unix")?)),
            Probe::Http(url) => Self::Http(Url::parse(&start.expand(url, "http")?)?),
            Probe::Exec(command) => Self::exec(command, start)?,
        })
    }

    fn exec(command: &[Template], start: &Start<'_>) -> Result<Self, ProbeError> {
        let words: Result<Vec<_>, _> =
            command.iter().map(|word| start.expand(word, "exec")).collect();
        let words = words?.join(" ").replace('\n', " ");
        let shown = match words.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &words[..end]),
            None => words,
        };
        Ok(Self::Exec { command: command.to_vec(), shown })
    }

    /// The question of `ready: {file: PATH}`.
    ///
    /// # Errors
    /// When a reference has no value.
    pub fn file(path: &Template, start: &Start<'_>) -> Result<Self, ProbeError> {
        Ok(Self::File(start.directory()?.join(start.expand(path, "file")?)))
    }

    /// Asks once. Dropping the future ends the question, a command's processes included.
    ///
    /// # Errors
    /// What was asked and what was wrong, for people: `tcp 127.0.0.1:80: connection refused`,
    /// `http://127.0.0.1/: HTTP status 503`, `exec pg_isready: no answer within 1s`.
    pub async fn ask(
        &self,
        start: &Start<'_>,
        processes: &Processes,
        timeout: Duration,
    ) -> Result<(), String> {
        self.answer(start, processes, timeout).await.map_err(|wrong| format!("{self}: {wrong}"))
    }

    async fn answer(
        &self,
        start: &Start<'_>,
        processes: &Processes,
        timeout: Duration,
    ) -> Result<(), String> {
        let answer = async {
            match self {
                Self::Tcp(address) => connect(address).await.map(drop).map_err(words),
                Self::Unix(path) => UnixStream::connect(path).await.map(drop).map_err(words),
                Self::Http(url) => get(url).await,
                Self::Rpc(address) => ping(address, timeout).await,
                Self::File(path) => match path.try_exists() {
                    Ok(true) => Ok(()),
                    Ok(false) => Err("not there".to_owned()),
                    Err(error) => Err(words(error)),
                },
                // It has the same limit, and kills what it started.
                Self::Exec { command, .. } => execute(command, start, processes, timeout).await,
            }
        };
        if matches!(self, Self::Exec { .. }) {
            return answer.await;
        }
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {}", format_duration(timeout))),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
            Self::Http(url) => write!(f, "http://{}{}", url.authority, url.path),
            Self::Exec { shown, .. } => write!(f, "exec {shown}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Rpc(address) => write!(f, "lymph.ping at {address}"),
        }
    }
}

impl Url {
    /// Reads `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let error = || UrlError { text: text.to_owned() };
        let rest = text.strip_prefix("http://").ok_or_else(error)?;
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let path = path.split('#').next().unwrap_or("/");
        let bad = |c: char| c.is_whitespace() || c.is_control();
        if authority.is_empty() || authority.contains('@') || text.contains(bad) {
            return Err(error());
        }
        let after_host = authority.rsplit(']').next().unwrap_or(authority);
        let address = match after_host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
            Some(_) => return Err(error()),
            None => format!("{authority}:80"),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            address: with_host(&address),
            authority: authority.to_owned(),
            path: format!("{slash}{path}"),
        })
    }
}

/// `8080` and `:8080` mean this machine.
fn with_host(address: &str) -> String {
    match address.strip_prefix(':').unwrap_or(address) {
        port if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
        _ => address.to_owned(),
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

async fn get(url: &Url) -> Result<(), String> {
    let mut stream = connect(&url.address).await.map_err(words)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: hilum\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.path, url.authority
    );
    stream.write_all(request.as_bytes()).await.map_err(words)?;
    match final_status(&mut BufReader::with_capacity(ANSWER, stream)).await? {
        200..=399 => Ok(()),
        status => Err(format!("HTTP status {status}")),
    }
}

/// The status of the answer itself: `100 Continue` and its like come before it (RFC 9110, 15.2), but for 101, after which there
/// is no HTTP any more.
async fn final_status(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<u16, String> {
    loop {
        let line = piece(stream).await?;
        let status = status_of(&line).ok_or("no HTTP answer")?;
        if !(100..200).contains(&status) || status == 101 {
            return Ok(status);
        }
        let mut ended = line.ends_with(b"\n");
        loop {
            let line = piece(stream).await?;
            if line.is_empty() {
                return Err(format!("HTTP status {status} and no answer after it"));
            }
            if ended && matches!(line.as_slice(), b"\n" | b"\r\n") {
                break;
            }
            ended = line.ends_with(b"\n");
        }
    }
}

/// A line with its end, or the next part of a longer one; nothing at the end of all.
async fn piece(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    stream.take(ANSWER as u64).read_until(b'\n', &mut line).await.map_err(words)?;
    Ok(line)
}

/// The number in `HTTP/1.1 200 OK`.
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?.get(1..)?;
    let status = rest.split_ascii_whitespace().next()?;
    (status.len() == 3).then(|| status.parse().ok())?
}

async fn execute(
    command: &[Template],
    start: &Start<'_>,
    processes: &Processes,
    timeout: Duration,
) -> Result<(), String> {
    let mut request =
        start.prepare_command(command, "exec", &[]).map_err(|error| error.to_string())?;
    let (reader, writer) = io::pipe().map_err(words)?;
    let writer = Arc::new(OwnedFd::from(writer));
    request.stdio = Stdio::Pipes { stdout: Arc::clone(&writer), stderr: writer };
    let mut reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(words)?;
    let mut tail = Vec::with_capacity(2 * ANSWER);
    let run = command::run(processes, request, timeout);
    tokio::pin!(run);
    let mut open = true;
    let result = loop {
        tokio::select! {
            result = &mut run => break result,
            read = read_tail(&mut reader, &mut tail), if open => open = read,
        }
    };
    // What it wrote last may still be in the pipe.
    while open && read_now(&reader, &mut tail) {}
    result.map_err(|error| {
        let last = last_line(&tail);
        if last.is_empty() { error.to_string() } else { format!("{error}: {last}") }
    })
}

/// Reads once, keeps the end; says whether there may be more. Cancel-safe.
async fn read_tail(reader: &mut pipe::Receiver, tail: &mut Vec<u8>) -> bool {
    let mut chunk = [0; ANSWER];
    let length = reader.read(&mut chunk).await.unwrap_or(0);
    keep_end(tail, &chunk[..length])
}

/// The same without waiting.
fn read_now(reader: &pipe::Receiver, tail: &mut Vec<u8>) -> bool {
    let mut chunk = [0; ANSWER];
    let length = reader.try_read(&mut chunk).unwrap_or(0);
    keep_end(tail, &chunk[..length])
}

fn keep_end(tail: &mut Vec<u8>, chunk: &[u8]) -> bool {
    tail.extend_from_slice(chunk);
    let surplus = tail.len().saturating_sub(ANSWER);
    tail.drain(..surplus);
    !chunk.is_empty()
}

fn last_line(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().chars().take(200).collect()
}

/// `connection refused`, without the number.
fn words(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_told_in_a_line() {
        assert_eq!(Question::Tcp("[::1]:80".into()).to_string(), "tcp [::1]:80");
        let url = Url::parse("http://localhost:80/up?x").unwrap();
        assert_eq!(Question::Http(url).to_string(), "http://localhost:80/up?x");
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("http://127.0.0.1:8080/health?x=1#top").unwrap();
        assert_eq!(url.address, "127.0.0.1:8080");
        assert_eq!(url.path, "/health?x=1");
        assert_eq!(Url::parse("http://host").unwrap().address, "host:80");
        assert_eq!(Url::parse("http://[::1]/").unwrap().address, "[::1]:80");
        assert_eq!(Url::parse("http://[::1]:81").unwrap().address, "[::1]:81");
        assert_eq!(Url::parse("http://host?x").unwrap().path, "/?x");
        for bad in ["https://x/", "x", "http://", "http://a b/", "http://h:x/", "http://u@h/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_status_is_read_from_the_first_line_only() {
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\nX: 500\r\n"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 503\n"), Some(503));
        assert_eq!(status_of(b"SSH-2.0-x\n"), None);
        assert_eq!(status_of(b""), None);
        assert_eq!(status_of(b"HTTP/1.1 20\n"), None);
    }

    #[tokio::test]
    async fn what_comes_before_the_answer_is_read_over() {
        let status = async |text: String| final_status(&mut text.as_bytes()).await;
        let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        assert_eq!(status(format!("{early}HTTP/1.1 503 No\r\n\r\n")).await, Ok(503));
        assert_eq!(status(format!("{early}HTTP/1.1 200 OK\r\n\r\n")).await, Ok(200));
        // A header as long as what is read at once is none that is empty.
        let long = format!("HTTP/1.1 103 x\nLink: {}\n\nHTTP/1.1 204 x\n", "x".repeat(ANSWER - 6));
        assert_eq!(status(long).await, Ok(204));
        assert!(status(early.to_owned()).await.unwrap_err().contains("no HTTP answer"));
        assert!(status("HTTP/1.1 100 Continue\r\n".to_owned()).await.is_err());
        assert_eq!(status("HTTP/1.1 101 Switching\r\n\r\nxyz".to_owned()).await, Ok(101));
    }

    #[test]
    fn a_bare_port_means_this_machine() {
        assert_eq!(with_host("80"), "127.0.0.1:80");
        assert_eq!(with_host(":80"), "127.0.0.1:80");
        assert_eq!(with_host("db:80"), "db:80");
    }
}
