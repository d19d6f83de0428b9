//! Which values are nobody's business, and what is shown in their place.

/// What stands in place of a secret.
pub const MASK: &str = "********";

/// Whether a variable's name says that its value is nobody's business.
pub fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "TOKEN",
        "CREDENTIAL",
        "APIKEY",
        "API_KEY",
        "PRIVATE_KEY",
    ];
    const PARTS: [&str; 8] =
        ["AUTH", "AUTHORIZATION", "BEARER", "COOKIE", "COOKIES", "DSN", "JWT", "PWD"];
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    // `PWD` alone is the working folder.
    WORDS.iter().any(|word| name.contains(word))
        || (name != "PWD" && name != "OLDPWD" && name.split('_').any(|part| PARTS.contains(&part)))
        || name.ends_with("DSN")
        || name.starts_with("PGPASS")
        || name.ends_with("_KEY")
        || name.ends_with("_PASS")
        || name == "PASS"
}

/// The value of a variable without what is secret in it: the whole, or the password in a URL.
pub fn masked(name: &str, value: &str) -> String {
    if value.is_empty() {
        return String::new();
    }
    if is_secret(name) {
        return MASK.to_owned();
    }
    mask_url(value).unwrap_or_else(|| value.to_owned())
}

/// The words of a command without what is secret in them: `--password=x`, `--token x`, `API_KEY=x`, passwords in URLs, also inside of
/// a shell's line.
pub fn masked_command(words: &[String]) -> Vec<String> {
    let mut masked_next = false;
    words
        .iter()
        .map(|word| {
            let after_secret = std::mem::take(&mut masked_next);
            if word.is_empty() {
                masked_next = after_secret;
                return String::new();
            }
            let whole = word.starts_with('-') && word.contains('=');
            if word.contains(char::is_whitespace) && !after_secret && !whole {
                return masked_line(word);
            }
            let option = word.trim_start_matches('-');
            let is_option = option.len() < word.len();
            if after_secret && !is_option {
                return MASK.to_owned();
            }
            match word.split_once('=') {
                Some((name, value)) => {
                    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
                    let masked = masked(name.trim_start_matches('-'), value);
                    match quote {
                        Some(quote) if masked == MASK => format!("{name}={quote}{masked}{quote}"),
                        _ => format!("{name}={masked}"),
                    }
                }
                None if is_option && is_secret(option) => {
                    masked_next = true;
                    word.clone()
                }
                None => mask_url(word).unwrap_or_else(|| word.clone()),
            }
        })
        .collect()
}

/// The same of a shell's line, whose words keep what is between them.
fn masked_line(line: &str) -> String {
    let words: Vec<String> = line.split(char::is_whitespace).map(str::to_owned).collect();
    let mut spaces = line.chars().filter(|c| c.is_whitespace());
    let mut masked = String::with_capacity(line.len());
    for word in masked_command(&words) {
        masked.push_str(&word);
        masked.extend(spaces.next());
    }
    masked
}

/// A user of a URL that is so long and has a digit is a key.
const KEY: usize = 16;

/// `postgres://user:secret@host` with its password masked, `https://0123456789abcdef@host` with its key.
fn mask_url(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once("://")?;
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, _) = rest[..host].rsplit_once('@')?;
    let end = &rest[user.len()..];
    match user.split_once(':') {
        Some((_, "")) => None,
        Some((name, _)) => Some(format!("{scheme}://{name}:{MASK}{end}")),
        None if user.len() >= KEY && user.bytes().any(|byte| byte.is_ascii_digit()) => {
            Some(format!("{scheme}://{MASK}{end}"))
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "DB_PASSWORD",
            "JWT",
            "APP_JWT",
            "AUTH",
            "BASIC_AUTH",
            "AUTHORIZATION",
            "SESSION_COOKIE",
            "PGPASSFILE",
            "SENTRY_DSN",
            "RAVENDSN",
            "api-key",
            "MYSQL_PWD",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["AUTHOR", "PATH", "PWD", "OLDPWD", "KEYBOARD", "PASSENGERS", "MODE"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn urls_lose_passwords_and_keys() {
        let shown = |value: &str| masked("X", value);
        assert_eq!(shown("postgres://me:pw@db/x"), "postgres://me:********@db/x");
        assert_eq!(shown("https://0123456789abcdef01@sentry.io/1"), "https://********@sentry.io/1");
        assert_eq!(shown("ssh://git@host/x"), "ssh://git@host/x");
    }

    #[test]
    fn a_command_loses_its_secrets() {
        let shown = |words: &[&str]| {
            masked_command(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            shown(&[
                "./web",
                "--password=x y",
                "--token",
                "abc",
                "--api-key",
                "--port",
                "80",
                "API_KEY=1",
                "redis://:pw@h"
            ]),
            [
                "./web",
                "--password=********",
                "--token",
                MASK,
                "--api-key",
                "--port",
                "80",
                "API_KEY=********",
                "redis://:********@h"
            ]
        );
        assert_eq!(
            shown(&["sh", "-c", "exec x --token abc --secret='s' && echo a=b"]),
            ["sh", "-c", "exec x --token ******** --secret='********' && echo a=b"]
        );
        assert_eq!(
            shown(&["sh", "-c", "a\tb\n--token  x\u{2003}c  --password\ny\n"]),
            ["sh", "-c", "a\tb\n--token  ********\u{2003}c  --password\n********\n"],
            "whatever is between the words"
        );
    }
}
