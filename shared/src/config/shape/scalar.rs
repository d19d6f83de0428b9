//! Checks of single values: what they are, their range, and what is near to a wrong one.

use std::net::{IpAddr, SocketAddr};

use super::super::cron;
use super::super::diagnostic::{nearest, quote};
use super::super::keys::{self, Key, Type};
use super::super::template::Template;
use super::super::tree::{Node, Scalar, Style, Value};
use super::{Reference, Shape};
use crate::signal::Signal;
use crate::units;

/// Names that a mistyped signal is compared with.
const SIGNALS: [&str; 14] = [
    "TERM", "INT", "QUIT", "HUP", "KILL", "USR1", "USR2", "ABRT", "CONT", "STOP", "WINCH", "PIPE",
    "ALRM", "TSTP",
];

/// Largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

impl Shape<'_> {
    /// Checks a scalar; what is wrong becomes [`Value::Broken`].
    pub(super) fn scalar(&mut self, node: &mut Node, ty: &Type, path: &str) {
        let at = node.at;
        let Value::Scalar(scalar) = &mut node.value else {
            self.wrong_shape(node, ty, path);
            return;
        };
        if scalar.is_null() {
            if !matches!(ty, Type::Variable) {
                self.wrong_shape(node, ty, path);
            }
            return;
        }
        if matches!(ty, Type::Template | Type::Variable) {
            if !self.template(&scalar.text.clone(), path, at) {
                node.value = Value::Broken;
            }
            return;
        }
        let literal = Template::new(scalar.text.as_str());
        if !literal.references().is_empty() {
            let message = format!("{} cannot be used here", quote(&scalar.text));
            self.problems
                .error(at, path, message)
                .help("what differs from instance to instance is for `command`, `directory`, `env`, probes and hooks");
            node.value = Value::Broken;
            return;
        }
        if scalar.text.contains("$$(") {
            scalar.text = scalar.text.replace("$$(", "$(");
        }
        if let Err((message, help)) = check(scalar, ty) {
            let problem = self.problems.error(at, path, message);
            if let Some(help) = help {
                problem.help(help);
            }
            node.value = Value::Broken;
        }
    }

    /// Notes the references of a text for the check when all ports are known.
    fn template(&mut self, text: &str, path: &str, at: super::Pos) -> bool {
        if text.contains('\0') {
            self.problems.error(at, path, "a NUL character cannot be passed to a program");
            return false;
        }
        for reference in Template::new(text).references() {
            self.references.push(Reference {
                service: self.service.clone(),
                path: path.to_owned(),
                at,
                reference: reference.to_owned(),
            });
        }
        true
    }

    /// Checks a command: a text that is not empty, or a list of texts.
    pub(super) fn command(&mut self, node: &mut Node, path: &mut String) {
        let empty = match &node.value {
            Value::Scalar(scalar) => scalar.is_null() || scalar.text.trim().is_empty(),
            Value::List(items) => items.first().is_none_or(|first| {
                first.is_null() || first.as_scalar().is_some_and(|s| s.text.is_empty())
            }),
            _ => false,
        };
        if empty {
            self.problems.error(node.at, path, "the command is empty").help(
                "give a program and its arguments: `./web --port 80` or `[./web, --port, 80]`",
            );
            node.value = Value::Broken;
            return;
        }
        match &mut node.value {
            Value::Scalar(_) => self.scalar(node, &Type::Template, path),
            Value::List(items) => {
                let length = path.len();
                for (index, item) in items.iter_mut().enumerate() {
                    super::super::variables::push_index(path, index);
                    self.check(item, &Type::Template, path, item.at);
                    path.truncate(length);
                }
            }
            _ => self.wrong_shape(node, &Type::Command, path),
        }
    }
}

/// Whether a value has the outer shape of a type, so that the type may judge it.
pub(super) fn fits(node: &Node, ty: &Type) -> bool {
    let number = || node.as_scalar().and_then(Scalar::as_float).is_some();
    match ty {
        Type::Word(words) => {
            node.as_scalar().is_some_and(|scalar| words.contains(&scalar.text.as_str()))
        }
        Type::Int(..) | Type::Number(..) => number(),
        Type::Map(_) => matches!(node.value, Value::Map(_)),
        Type::List(_) => matches!(node.value, Value::List(_)),
        Type::Or(types) => types.iter().any(|ty| fits(node, ty)),
        _ => node.as_scalar().is_some(),
    }
}

/// What is wrong, and what to do.
type Wrong = (String, Option<String>);

fn check(scalar: &Scalar, ty: &Type) -> Result<(), Wrong> {
    let text = scalar.text.as_str();
    let wrong = || (format!("expected {}, found {}", ty.describe(), quote(text)), None);
    match ty {
        Type::Bool => scalar.as_bool().map(|_| ()).ok_or_else(|| {
            let meant = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => "`true`",
                "no" | "off" | "n" | "0" | "false" => "`false`",
                _ => return wrong(),
            };
            let quotes = if scalar.style == Style::Quoted { " without quotes" } else { "" };
            (wrong().0, Some(format!("write {meant}{quotes}")))
        }),
        Type::Int(min, max) => match scalar.as_int() {
            Some(int) if (*min..=*max).contains(&int) => Ok(()),
            None if scalar.style == Style::Quoted && text.parse::<i64>().is_ok() => {
                Err((wrong().0 + " in quotes", Some("remove the quotes".to_owned())))
            }
            _ => Err(wrong()),
        },
        Type::Number(min, max) => match scalar.as_float() {
            Some(number) if (*min..=*max).contains(&number) => Ok(()),
            _ => Err(wrong()),
        },
        Type::Share => share(scalar).map(|_| ()).ok_or_else(wrong),
        Type::Text | Type::Path => match text {
            "" => Err((format!("expected {}, found an empty text", ty.describe()), None)),
            _ if text.contains('\0') => Err(("a NUL character cannot stand here".to_owned(), None)),
            _ => Ok(()),
        },
        Type::Regex => expression(text),
        Type::LevelFrom => match text.split_once(':') {
            None if text == "auto" => Ok(()),
            Some(("json", key)) if !key.is_empty() => Ok(()),
            Some(("regex", text)) if !text.is_empty() => expression(text),
            _ => Err((wrong().0, Some("`json:severity` reads that key of JSON lines, `regex:sev=(\\w+)` the first group of an expression".to_owned()))),
        },
        Type::Cron => cron::check(text).map_err(|error| (error.to_string(), Some("write minute, hour, day of month, month and weekday: `*/5 8-18 * * MON-FRI`".to_owned()))),
        Type::Glob => ignore::overrides::OverrideBuilder::new("/")
            .add(text)
            .map(|_| ())
            .map_err(|error| (format!("{} is no glob: {error}", quote(text)), None)),
        Type::Duration => units::parse_duration(text)
            .map(|_| ())
            .map_err(|error| (error.to_string(), None)),
        Type::Positive => match units::parse_duration(text) {
            Ok(duration) if duration.is_zero() => Err((format!("{} must be more than nothing", quote(text)), None)),
            Ok(_) => Ok(()),
            Err(error) => Err((error.to_string(), None)),
        },
        Type::Size => units::parse_size(text)
            .map(|_| ())
            .map_err(|error| (error.to_string(), None)),
        Type::Signal => text.parse::<Signal>().map(|_| ()).map_err(|error| {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("SIG").unwrap_or(&upper);
            let help = nearest(name, SIGNALS).map(|near| format!("did you mean `{near}`?"));
            (error.to_string(), help)
        }),
        Type::Mode => mode(scalar).map(|_| ()),
        Type::Ip => text
            .parse::<IpAddr>()
            .map(|_| ())
            .map_err(|_| (wrong().0, Some("names of hosts are not looked up here: write `127.0.0.1` or `::1`".to_owned()))),
        Type::Address => text
            .parse::<SocketAddr>()
            .map(|_| ())
            .map_err(|_| (wrong().0, Some("write `127.0.0.1:9464`, or `[::1]:9464`; names of hosts are not looked up here, and port 0 is any free one".to_owned()))),
        Type::Word(words) => if words.contains(&text) { Ok(()) } else { Err((wrong().0, other_word(text, words))) },
        _ => Ok(()),
    }
}

/// What is meant by a word that is not known here: Compose's, or a slip.
fn other_word(text: &str, words: &[&str]) -> Option<String> {
    if words.contains(&"on-failure") {
        if let Some(limit) = text.strip_prefix("on-failure:")
            && limit.parse::<u32>().is_ok()
        {
            return Some(format!("write `{{policy: on-failure, limit: {limit}}}`"));
        }
        match text {
            "unless-stopped" => {
                return Some(
                    "it is `always` here: what was stopped by hand is not restarted".to_owned(),
                );
            }
            "no" | "false" => return Some("it is `never` here".to_owned()),
            _ => {}
        }
    }
    nearest(text, words.iter().copied()).map(|near| format!("did you mean `{near}`?"))
}

/// What to write where a service is its command alone, as in a Procfile.
pub(super) fn only_a_command(node: &Node, known: &'static [Key], path: &str) -> Option<String> {
    let name = path.strip_prefix("instances.")?;
    keys::find(known, "numprocesses")?;
    let text = &node.as_scalar()?.text;
    let plain = |c: char| c.is_alphanumeric() || " ./_-=+@%".contains(c);
    let begins = text.starts_with(|c: char| c.is_alphanumeric() || "./_".contains(c));
    let command = if begins && text.chars().all(plain) {
        text.clone()
    } else if text.contains('\n') {
        "…".to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    };
    Some(format!("write `{name}: {{command: {command}}}`"))
}

fn expression(text: &str) -> Result<(), Wrong> {
    let built = regex::RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    built.map(|_| ()).map_err(|error| {
        let help = "the syntax is that of the Rust crate `regex`; a literal `(`, `[`, `.`, `*`, `+`, `?` needs a backslash";
        (
            format!("{} is no regular expression: {}", quote(text), reason(&error)),
            Some(help.to_owned()),
        )
    })
}

/// A share: `20%` or a number from 0 to 1.
pub(crate) fn share(scalar: &Scalar) -> Option<f64> {
    let share = match scalar.text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => scalar.as_float()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// A mode. It is octal as everywhere in Unix, also where YAML 1.2 would read decimal: `022` is 0o22, and a
/// number without a leading zero, which could be either, is refused.
pub(crate) fn mode(scalar: &Scalar) -> Result<u32, Wrong> {
    let text = scalar.text.as_str();
    let wrong = |help: &str| {
        (
            format!("expected {}, found {}", Type::Mode.describe(), quote(text)),
            Some(help.to_owned()),
        )
    };
    let digits = match text.strip_prefix("0o").or_else(|| text.strip_prefix('0')) {
        Some("") => "0",
        Some(digits) => digits,
        None if scalar.style == Style::Quoted => text,
        None => {
            return Err(wrong(
                "a bare number could be octal or decimal: write it with a leading `0` or `0o`",
            ));
        }
    };
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 && !digits.starts_with(['+', '-']) => Ok(mode),
        _ => Err(wrong("digits are 0 to 7, the largest mode is 0o777")),
    }
}

/// The last line of the error's text, which says what is wrong; those before it draw the expression.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or("").trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str, style: Style) -> Scalar {
        let text = text.to_owned();
        Scalar { text, style }
    }

    #[test]
    fn a_mode_is_octal_and_never_guessed() {
        for (text, style, expected) in [
            ("022", Style::Plain, 0o22),
            ("022", Style::Quoted, 0o22),
            ("22", Style::Quoted, 0o22),
            ("0o077", Style::Plain, 0o77),
            ("0", Style::Plain, 0),
        ] {
            assert_eq!(mode(&scalar(text, style)).unwrap(), expected, "{text}");
        }
        for text in ["22", "18", "089", "0o1777", "0+7", "x"] {
            assert!(mode(&scalar(text, Style::Plain)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_percentage_or_a_part_of_one() {
        assert_eq!(share(&scalar("20%", Style::Plain)), Some(0.2));
        assert_eq!(share(&scalar("0.5", Style::Plain)), Some(0.5));
        assert_eq!(share(&scalar("20", Style::Plain)), None);
        assert_eq!(share(&scalar("-1%", Style::Plain)), None);
    }
}
