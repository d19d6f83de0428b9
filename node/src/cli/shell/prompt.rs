//! Where lines come from: a terminal with editing, completion and history, or whatever stdin is.
//!
//! Reading waits in a thread of its own, so that connections live on meanwhile. For a completion it asks the shell, which alone may
//! call services.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use tokio::sync::mpsc;

use super::super::exit::CliError;
use super::language;

/// Lines that the history holds.
const HISTORY: usize = 1000;
/// How long TAB waits for names.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest line, in bytes: what a service takes, and its name.
const LONGEST: usize = 64 << 20;

/// What comes from the prompt.
pub(super) enum News {
    /// A line, complete with all that its brackets hold.
    Line {
        /// What was typed or read.
        text: String,
        /// Where it begins in what is no terminal, from 1.
        at: Option<usize>,
    },
    /// Ctrl-C: another line.
    Again,
    /// The end.
    End,
    /// stdin cannot be read.
    Failed(std::io::Error),
    /// What may stand where `typed` stands, given the line before it?
    Complete { before: String, typed: String, answer: blocking::Sender<Vec<String>> },
}

/// The prompt.
pub(super) struct Prompt {
    wanted: blocking::Sender<String>,
    news: mpsc::Receiver<News>,
}

impl Prompt {
    /// Reads from a terminal, or from what stdin is.
    pub(super) fn start(terminal: bool) -> Result<Self, CliError> {
        let (wanted, prompts) = blocking::channel::<String>();
        let (sender, news) = mpsc::channel(4);
        let work = move || {
            if terminal { edit(&prompts, &sender) } else { listen(&prompts, &sender) }
        };
        let thread = std::thread::Builder::new().name("prompt".into()).spawn(work);
        thread.map_err(|error| CliError::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { wanted, news })
    }

    /// Asks for the next line.
    pub(super) fn ask(&self, prompt: &str) {
        // One that has ended says so by its news.
        let _ = self.wanted.send(prompt.to_owned());
    }

    /// The next news.
    pub(super) async fn news(&mut self) -> News {
        self.news.recv().await.unwrap_or(News::End)
    }
}

/// A pipe or a file: no prompt, no editing.
fn listen(prompts: &blocking::Receiver<String>, news: &mpsc::Sender<News>) {
    let mut next = 1;
    while prompts.recv().is_ok() {
        let mut text = String::new();
        let at = next;
        let one = loop {
            match std::io::stdin().read_line(&mut text) {
                Ok(0) if text.is_empty() => break News::End,
                Ok(read) if read > 0 && language::is_open(&text) && text.len() < LONGEST => {}
                Ok(_) => {
                    next += text.lines().count();
                    break News::Line { text, at: Some(at) };
                }
                Err(error) => break News::Failed(error),
            }
        };
        if news.blocking_send(one).is_err() {
            return;
        }
    }
}

/// A terminal.
fn edit(prompts: &blocking::Receiver<String>, news: &mpsc::Sender<News>) {
    let mut editor = match editor(news) {
        Ok(editor) => editor,
        Err(error) => {
            // Nobody may be waiting.
            let _ = news.blocking_send(News::Failed(std::io::Error::other(error)));
            return;
        }
    };
    let history = history();
    if let Some(path) = &history {
        let _ = editor.load_history(path); // the first time there is none
    }
    while let Ok(prompt) = prompts.recv() {
        let one = match editor.readline(&prompt) {
            Ok(line) => {
                // A line that cannot be remembered can be worked on all the same.
                if editor.add_history_entry(&line).is_ok_and(|added| added)
                    && let Some(path) = &history
                {
                    let _ = editor.append_history(path);
                }
                News::Line { text: line, at: None }
            }
            Err(ReadlineError::Interrupted) => News::Again,
            Err(ReadlineError::Eof) => News::End,
            Err(ReadlineError::Io(error)) => News::Failed(error),
            Err(error) => News::Failed(std::io::Error::other(error)),
        };
        if news.blocking_send(one).is_err() {
            return;
        }
    }
}

fn editor(news: &mpsc::Sender<News>) -> rustyline::Result<Editor<Help, FileHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Help { news: news.clone() }));
    Ok(editor)
}

/// The file of the history, by the XDG rules for state; its folder is made.
fn history() -> Option<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|it| it.is_absolute());
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    let ours = state.join("hilum");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&ours).ok()?;
    Some(ours.join("shell_history"))
}

/// Completes and goes on over several lines.
struct Help {
    news: mpsc::Sender<News>,
}

impl Completer for Help {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let begun = word(&line[..at]);
        let (sender, answer) = blocking::channel();
        let ask = News::Complete {
            before: line[..begun].to_owned(),
            typed: line[begun..at].to_owned(),
            answer: sender,
        };
        // Without an answer there is nothing to complete.
        let names = match self.news.blocking_send(ask) {
            Ok(()) => answer.recv_timeout(PATIENCE).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let pair = |name: String| Pair { display: name.trim_end().to_owned(), replacement: name };
        Ok((begun, names.into_iter().map(pair).collect()))
    }
}

/// Where the word at the end begins.
fn word(line: &str) -> usize {
    let ends =
        |c: char| c.is_whitespace() || matches!(c, '(' | '[' | '{' | ',' | '=' | ':' | '"' | '\'');
    line.rfind(ends).map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8))
}

impl Validator for Help {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if language::is_open(context.input()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Hinter for Help {
    type Hint = String;
}

impl Highlighter for Help {}
impl Helper for Help {}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_word_reaches_back_to_a_blank_or_bracket() {
        let tail = |line: &'static str| &line[word(line)..];
        assert_eq!(tail("request echo.u"), "echo.u");
        assert_eq!(tail("x = proxy.echo.up"), "proxy.echo.up");
        assert_eq!(tail("proxy.a.b(text=pro"), "pro");
        assert_eq!(tail("disc"), "disc");
        assert_eq!(tail("inspect "), "");
    }
}
