//! `shell`: calls of services from a prompt. What may be typed is in [`language`], what it is worth in [`evaluate`], where lines come
//! from in [`prompt`].

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use hilum_shared::wire::Value;

use self::evaluate::Scope;
use self::language::{Statement, is_open};
use self::prompt::{News, Prompt};
use super::caller::{self, CallerArgs};
use super::exit::{CliError, ExitStatus, Outcome};
use super::output::{Style, printable};
use super::request::Subject;
use super::session::Session;
use super::target::nearest;
use super::{discover, emit, inspect, loglevel, request, subscribe, time};

mod evaluate;
mod language;
mod prompt;

/// The words of `shell`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum shell\n  \
    hilum shell --remote echo.2                   all calls go to this one instance\n  \
    echo 'proxy.echo.upper(text=\"x\")' | hilum shell\n\n\
    At the prompt:\n  \
    request echo.upper {\"text\": \"foo\"}\n  \
    x = proxy.echo.upper(text=\"foo\")              and then `x`, `x.field`, `proxy.echo.echo(text=x)`\n  \
    proxy.echo@1.2.upper(text=\"foo\")             an instance of this version\n  \
    discover, inspect echo, emit order.paid {\"id\": 7}, subscribe 'order.*', help\n\n\
    TAB completes commands, services, methods and parameters. The history is `hilum/shell_history` in $XDG_STATE_HOME (~/.local/state). Without a\n\
    terminal lines are read from stdin; it exits with 1 when one of them failed.")]
pub(crate) struct ShellArgs {
    /// Send all calls to one instance: of the running node (`echo.2`), of the registry (`echo:ID`), an endpoint, `node`
    #[arg(long, value_name = "TARGET", add = super::completions::addresses())]
    remote: Option<String>,
    /// How long answers are waited for
    #[arg(long, value_name = "T", default_value = "3s", value_parser = request::timeout)]
    timeout: Duration,
    #[command(flatten)]
    caller: CallerArgs,
}

/// The commands, each with what it takes and does.
const COMMANDS: [(&str, &str, &str); 11] = [
    (
        "request",
        "SUBJECT[@VERSION] [BODY]",
        "call a service; before SUBJECT: --address A, --timeout T",
    ),
    ("emit", "EVENT [BODY]", "tell the services that something happened; before EVENT: --delay T"),
    (
        "subscribe",
        "EVENT…",
        "show events as they are emitted, until Ctrl-C; `*` is one word, `#` any number",
    ),
    ("discover", "[NAME…]", "services, and where they are; --instances, --versions, --full"),
    ("inspect", "[ADDRESS]", "what can be called there"),
    ("change-loglevel", "ADDRESS", "another log level for a while; -n LOGGER, -l LEVEL, -p PERIOD"),
    ("timeout", "[T]", "how long answers are waited for"),
    ("vars", "", "the variables; `_` is the last result"),
    ("help", "[COMMAND]", "this"),
    ("exit", "", "end the shell, as Ctrl-D"),
    ("quit", "", "the same"),
];

/// Runs `shell`.
pub(crate) fn run(session: &Session, args: &ShellArgs) -> Outcome {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    caller::run(session, &args.caller, async |caller| {
        let remote = match &args.remote {
            Some(target) => {
                let place = caller.place(target, args.timeout).await?;
                // The first, so that all calls of one shell go to the same.
                place.instances.first().map(|one| place.only(one))
            }
            None => None,
        };
        let variables = BTreeMap::new();
        let scope = Scope { caller, remote, timeout: args.timeout, variables };
        let prompt = Prompt::start(terminal)?;
        if terminal {
            session.out.note("`help` shows what can be typed, TAB completes, Ctrl-D ends");
        }
        Shell { scope, remote: args.remote.clone(), failed: false }.run(prompt, terminal).await
    })
}

struct Shell<'a, 'b> {
    scope: Scope<'a, 'b>,
    /// `--remote`, for the prompt.
    remote: Option<String>,
    /// Whether a line failed.
    failed: bool,
}

/// What is said of a bracket that is still open at the end.
fn unclosed(text: &str, at: Option<usize>) -> CliError {
    let Some(at) = at else {
        return CliError::usage("a bracket is not closed", "the line ends before it");
    };
    let help = match text.lines().count() - 1 {
        0 => "the line ends before it".to_owned(),
        1 => "the line after it was read as what stands in it".to_owned(),
        more => format!("the {more} lines after it were read as what stands in it"),
    };
    CliError::usage(format!("a bracket of line {at} is not closed"), help)
}

/// Whether there is another line.
#[derive(PartialEq)]
enum Next {
    Line,
    End,
}

impl Shell<'_, '_> {
    async fn run(mut self, mut prompt: Prompt, terminal: bool) -> Outcome {
        let out = self.scope.caller.session.out;
        let name = self.remote.as_deref().unwrap_or("hilum");
        let words = format!("{}> ", printable(name));
        prompt.ask(&words);
        loop {
            let news = tokio::select! {
                news = prompt.news() => news,
                // At a prompt it is a key; here nothing is there to be given up but the shell.
                _ = tokio::signal::ctrl_c(), if !terminal => News::End,
            };
            match news {
                News::Line { text, at } => {
                    let ended = match self.line(&text, at).await {
                        Ok(next) => next == Next::End,
                        Err(CliError::Closed) => return Err(CliError::Closed),
                        Err(error) => {
                            self.failed = true;
                            out.error(&error);
                            false
                        }
                    };
                    if ended {
                        break;
                    }
                }
                News::Again => {}
                News::End => break,
                News::Failed(source) => {
                    return Err(CliError::File {
                        doing: "cannot read",
                        path: "/dev/stdin".into(),
                        source,
                    });
                }
                News::Complete { before, typed, answer } => {
                    // Who asked may not wait any longer.
                    let _ = answer.send(self.complete(&before, &typed).await);
                    continue;
                }
            }
            prompt.ask(&words);
        }
        // At a terminal each failure was seen when it happened.
        Ok(if self.failed && !terminal { ExitStatus::Failed } else { ExitStatus::Done })
    }

    /// Does what a line says; Ctrl-C gives it up.
    async fn line(&mut self, line: &str, at: Option<usize>) -> Result<Next, CliError> {
        if is_open(line) {
            return Err(unclosed(line, at));
        }
        let commands = COMMANDS.map(|(name, _, _)| name);
        let statement = language::read(line, &commands).map_err(|error| {
            match language::unknown_command(line) {
                Some(word) => no_command(word),
                None => CliError::usage(error.to_string(), "`help` shows what can be typed"),
            }
        })?;
        let work = self.obey(statement);
        tokio::select! {
            biased; // what ends in order by Ctrl-C is done
            done = work => done,
            _ = tokio::signal::ctrl_c() => Err(CliError::failed("given up")),
        }
    }

    async fn obey(&mut self, statement: Statement) -> Result<Next, CliError> {
        match statement {
            Statement::Nothing => {}
            Statement::Command(name, rest) => return self.command(&name, &rest).await,
            Statement::Assign(name, expr) => {
                let value = self.scope.value(&expr).await?;
                self.scope.variables.insert(name, value);
            }
            Statement::Show(expr) => {
                let value = self.scope.value(&expr).await?;
                self.show(value)?;
            }
        }
        Ok(Next::Line)
    }

    fn show(&mut self, value: Value) -> Result<(), CliError> {
        request::print(self.scope.caller.session.out, &value)?;
        self.scope.variables.insert("_".to_owned(), value);
        Ok(())
    }

    async fn command(&mut self, name: &str, rest: &str) -> Result<Next, CliError> {
        let caller = self.scope.caller;
        let out = caller.session.out;
        let status = match name {
            "exit" | "quit" => return Ok(Next::End),
            "request" => {
                let value = self.request(rest).await?;
                self.show(value)?;
                ExitStatus::Done
            }
            "emit" => emit::run(caller.session, &self.emit(rest).await?)?,
            "subscribe" => {
                let args = words(name, rest)?;
                // Nothing else ends it, so that this gives nothing up.
                tokio::select! {
                    ended = subscribe::listen(caller.session, &args) => ended?,
                    _ = tokio::signal::ctrl_c() => ExitStatus::Done,
                }
            }
            "discover" => {
                let args: discover::DiscoverArgs = words(name, rest)?;
                args.caller.of_the_shell()?;
                discover::show(caller, &args).await?
            }
            "inspect" => {
                let here = if rest.is_empty() { self.remote.as_deref() } else { None };
                let args: inspect::InspectArgs = words(name, here.unwrap_or(rest))?;
                args.caller.of_the_shell()?;
                inspect::show(caller, &args).await?
            }
            "change-loglevel" => {
                let args: loglevel::LoglevelArgs = words(name, rest)?;
                args.caller.of_the_shell()?;
                loglevel::change(caller, &args).await?
            }
            "timeout" if rest.is_empty() => {
                out.line(&time::seconds(self.scope.timeout.as_secs_f64()))?;
                ExitStatus::Done
            }
            "timeout" => {
                let wrong = |message| CliError::Usage { message, help: None };
                self.scope.timeout = request::timeout(rest).map_err(wrong)?;
                ExitStatus::Done
            }
            "vars" => {
                for (name, value) in &self.scope.variables {
                    out.line(&format!("{name} = {}", printable(&value.to_string())))?;
                }
                ExitStatus::Done
            }
            _ => {
                self.help(rest)?;
                ExitStatus::Done
            }
        };
        self.failed |= status != ExitStatus::Done;
        Ok(Next::Line)
    }

    /// `[--address A] [--timeout T] SUBJECT [BODY]`; the body is an expression, of which JSON is a part.
    async fn request(&self, rest: &str) -> Result<Value, CliError> {
        let usage =
            || CliError::usage("what is to be called?", "write `request service.method {…}`");
        let (mut address, mut timeout, mut rest) = (None, self.scope.timeout, rest);
        let subject = loop {
            let (word, behind) = split(rest);
            rest = behind;
            match word {
                "" => return Err(usage()),
                "--address" | "--timeout" => {
                    let (value, behind) = split(rest);
                    rest = behind;
                    if word == "--address" {
                        address = Some(value);
                    } else {
                        let wrong = |message| CliError::Usage { message, help: None };
                        timeout = request::timeout(value).map_err(wrong)?;
                    }
                }
                subject => break Subject::parse(subject)?,
            }
        };
        let body = match rest {
            "" => Value::Map(Vec::new()),
            text => self.expression(text).await?,
        };
        if !matches!(body, Value::Map(_)) {
            return Err(CliError::usage(
                "the body is no map of parameters",
                "write `{\"text\": \"foo\"}`",
            ));
        }
        self.scope.call(&subject, address, timeout, &body).await
    }

    /// `[--delay T] [--trace-id ID] EVENT [BODY]`; the body is an expression.
    async fn emit(&self, rest: &str) -> Result<emit::EmitArgs, CliError> {
        let mut given = Vec::new();
        let mut rest = rest;
        loop {
            let (word, behind) = split(rest);
            rest = behind;
            if !word.starts_with("--") {
                given.extend(["--".to_owned(), word.to_owned()]);
                break;
            }
            given.push(word.to_owned());
            let (value, behind) = split(rest);
            rest = behind;
            given.push(value.to_owned());
        }
        if !rest.is_empty() {
            given.push(self.expression(rest).await?.to_json().to_string());
        }
        given.retain(|word| !word.is_empty());
        parsed("emit", given)
    }

    /// The value of a command's last word.
    async fn expression(&self, text: &str) -> Result<Value, CliError> {
        let wrong = |error: language::SyntaxError| {
            let help = "write `{\"text\": \"foo\"}`, or a variable";
            CliError::usage(format!("the body: {error}"), help)
        };
        Ok(self.scope.value(&language::expression(text).map_err(wrong)?).await?)
    }

    fn help(&self, about: &str) -> Result<(), CliError> {
        let out = self.scope.caller.session.out;
        let asked = about.trim();
        let mut all =
            COMMANDS.iter().filter(|(name, _, _)| asked.is_empty() || *name == asked).peekable();
        if all.peek().is_none() {
            return Err(no_command(asked));
        }
        let rows: Vec<(String, &str)> =
            all.map(|(name, takes, does)| (format!("{name} {takes}"), *does)).collect();
        let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
        for (left, does) in &rows {
            out.line(&format!("{left:width$}  {does}"))?;
        }
        if asked.is_empty() {
            let bold = |text: &str| out.paint.paint(Style::Bold, text);
            out.line("")?;
            out.line(&format!(
                "{}  call it and show the answer",
                bold("proxy.SERVICE[@VERSION].METHOD(name=value, …)")
            ))?;
            out.line(&format!("{}  keep a value; then `x`, `x.field`, `x[0]`", bold("x = …")))?;
            out.line("Values are JSON, names of variables, calls, and all that is shown: Decimal(1.50), set(1, 2), date(2015-03-14) and their like.")?;
        }
        Ok(())
    }

    /// What may stand where `typed` stands.
    async fn complete(&self, before: &str, typed: &str) -> Vec<String> {
        let (caller, at) = (self.scope.caller, self.scope.remote.as_ref());
        let command = before.trim();
        // What a blank follows; where more of the word may follow its end says so.
        let word = |name: String| if name.ends_with('.') { name } else { name + " " };
        let mut names: Vec<String> = if let Some(subject) = typed.strip_prefix("proxy.") {
            let call = |name: String| if name.ends_with('.') { name } else { name + "(" };
            let subjects = caller.subjects(subject, at).await;
            subjects.into_iter().map(|name| format!("proxy.{}", call(name))).collect()
        } else if let Some((subject, given)) = language::parameters(before) {
            let parameters = caller.parameters(without_version(&subject), at).await;
            let free = |name: &String| !given.contains(&format!("{name}="));
            parameters.into_iter().filter(free).map(|name| name + "=").collect()
        } else if command == "request" {
            caller.subjects(typed, at).await.into_iter().map(word).collect()
        } else if command == "discover" {
            caller.discover().await.unwrap_or_default().into_keys().map(word).collect()
        } else if command == "inspect" || command == "change-loglevel" {
            caller.addresses().await.into_iter().map(word).collect()
        } else {
            let variables = self.scope.variables.keys().cloned();
            let commands = COMMANDS.iter().map(|(name, _, _)| word((*name).to_owned()));
            let commands = commands.filter(|_| command.is_empty());
            variables.chain(["proxy.".to_owned()]).chain(commands).collect()
        };
        names.retain(|name| name.starts_with(typed));
        names.sort();
        names
    }
}

/// A word that is no command.
fn no_command(word: &str) -> CliError {
    let names = COMMANDS.map(|(name, _, _)| name.to_owned());
    let help = match nearest(word, &names).first() {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    CliError::usage(format!("there is no command `{word}`"), help)
}

/// `echo.upper` of `echo.upper@1.2`.
fn without_version(subject: &str) -> &str {
    subject.split_once('@').map_or(subject, |(name, _)| name)
}

/// The first word and what is behind it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.find(char::is_whitespace) {
        Some(at) => (&text[..at], text[at..].trim_start()),
        None => (text, ""),
    }
}

/// The words of a verb, as on the command line.
fn words<T: clap::Args>(verb: &str, rest: &str) -> Result<T, CliError> {
    let words = shlex::split(rest)
        .ok_or_else(|| CliError::usage("a quote is not closed", "close it, or remove it"))?;
    parsed(verb, words)
}

/// A verb's arguments from its words.
fn parsed<T: clap::Args>(verb: &str, words: Vec<String>) -> Result<T, CliError> {
    let command = T::augment_args(clap::Command::new(verb.to_owned()));
    let command = command.no_binary_name(true).disable_help_flag(true);
    let parsed = command.try_get_matches_from(words).and_then(|found| T::from_arg_matches(&found));
    parsed.map_err(|error| {
        let text = error.render().to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        CliError::Usage { message: text.to_owned(), help: None }
    })
}
