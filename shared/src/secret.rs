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
        || name.ends_with("_PAT") // personal access tokens
        || matches!(name.as_str(), "PASS" | "PAT")
}

/// The value of a variable without what is secret in it: the whole, or the password in a URL.
pub fn masked(name: &str, value: &str) -> String {
    if value.is_empty() {
        return String::new();
    }
    if is_secret(name) {
        return MASK.to_owned();
    }
    mask_urls(value).unwrap_or_else(|| value.to_owned())
}

/// The words of a command without what is secret in them: `--password=x`, `--token x`, `API_KEY=x`, `Authorization: Bearer x`, passwords in
/// URLs and those that well-known programs take by a letter (`sshpass -p x`), also inside of a shell's line.
pub fn masked_command(words: &[String]) -> Vec<String> {
    let named =
        words.iter().any(|word| matches!(word.as_str(), "-u" | "-U") || word.starts_with("--user"));
    let mut masker = Masker { named, tool: "", next: Next::Plain };
    words.iter().map(|word| masker.word(word)).collect()
}

/// What the next word is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Plain,
    /// The value of `--password`.
    Secret,
    /// The value of `-p` or `-w`: as secret as it looks.
    Letter,
    /// `user:password`.
    User,
    /// The value of a header, up to this quote.
    Header(Option<char>),
}

/// Goes through the words of a command.
struct Masker<'a> {
    /// Whether a user is named: then `-p` is hardly a port.
    named: bool,
    /// The last word that was a program whose letters we know.
    tool: &'a str,
    next: Next,
}

impl<'a> Masker<'a> {
    fn word(&mut self, word: &'a str) -> String {
        let next = self.next;
        if word.is_empty() {
            return String::new();
        }
        self.next = Next::Plain;
        if let Next::Header(quote) = next {
            return self.header(word, quote);
        }
        let whole = word.starts_with('-') && word.contains('=');
        if word.contains(char::is_whitespace) && next == Next::Plain && !whole {
            return masked_line(word);
        }
        let option = word.trim_start_matches('-');
        let is_option = option.len() < word.len();
        match next {
            Next::Secret if !is_option => return MASK.to_owned(),
            Next::Letter if !is_option && !is_place(word) => return MASK.to_owned(),
            Next::User if !is_option => return mask_user(word),
            _ => {}
        }
        if !is_option {
            let name = word.rsplit('/').next().unwrap_or(word);
            if TOOLS.contains(&name) {
                self.tool = name;
            }
        }
        if let Some(masked) = self.letter(word) {
            return masked;
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
                self.next = Next::Secret;
                word.to_owned()
            }
            None => match self.begin_header(word) {
                Some(masked) => masked,
                None => mask_urls(word).unwrap_or_else(|| word.to_owned()),
            },
        }
    }

    /// An option of one letter by which a program takes a password.
    fn letter(&mut self, word: &str) -> Option<String> {
        let glued = |letter: &str| {
            word.strip_prefix(letter)
                .filter(|rest| !rest.is_empty())
                .map(|_| format!("{letter}{MASK}"))
        };
        match (self.tool, word) {
            ("redis-cli" | "valkey-cli", "-a")
            | ("ldapsearch" | "ldapmodify" | "ldapadd", "-w") => {
                self.next = Next::Secret;
            }
            ("curl" | "wget", "-u" | "--user" | "-U" | "--proxy-user") => self.next = Next::User,
            ("sshpass", "-p") => {
                self.tool = ""; // what follows is another program's
                self.next = Next::Secret;
            }
            ("mongo" | "mongosh" | "mongodump", "-p") => self.next = Next::Letter,
            // These take it without a space only.
            ("mysql" | "mysqldump" | "mysqladmin" | "mariadb" | "sshpass", _)
                if word.starts_with("-p") =>
            {
                return glued("-p");
            }
            (_, "-p") if self.named => self.next = Next::Letter,
            _ => return None,
        }
        Some(word.to_owned())
    }

    /// `Authorization:`, `'X-Api-Key:abc'`
    fn begin_header(&mut self, word: &str) -> Option<String> {
        let quote = word.chars().next().filter(|c| matches!(c, '"' | '\''));
        let bare = quote.map_or(word, |_| &word[1..]);
        let (name, value) = bare.split_once(':')?;
        let lower = name.to_ascii_lowercase();
        let known = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
        if !(known.contains(&lower.as_str()) || (lower.starts_with("x-") && is_secret(name))) {
            return None;
        }
        if value.is_empty() {
            self.next = Next::Header(quote);
            return Some(word.to_owned());
        }
        let head = &word[..word.len() - value.len()];
        let value = self.header(value, quote);
        Some(format!("{head}{value}"))
    }

    fn header(&mut self, word: &str, quote: Option<char>) -> String {
        const SCHEMES: [&str; 5] = ["bearer", "basic", "digest", "token", "negotiate"];
        if SCHEMES.contains(&word.to_ascii_lowercase().as_str()) {
            self.next = Next::Header(quote);
            return word.to_owned();
        }
        match quote {
            Some(quote) if word.ends_with(quote) => format!("{MASK}{quote}"),
            _ => {
                self.next = Next::Header(quote);
                MASK.to_owned()
            }
        }
    }
}

/// Programs that take a password by a letter.
const TOOLS: [&str; 15] = [
    "redis-cli",
    "valkey-cli",
    "curl",
    "wget",
    "ldapsearch",
    "ldapmodify",
    "ldapadd",
    "sshpass",
    "mongo",
    "mongosh",
    "mongodump",
    "mysql",
    "mysqldump",
    "mysqladmin",
    "mariadb",
];

/// A port, `8080:80`, a path or a variable: no password.
fn is_place(word: &str) -> bool {
    word.contains(['/', '$'])
        || word.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'-'))
}

fn mask_user(word: &str) -> String {
    match word.split_once(':') {
        Some((user, password)) if !password.is_empty() => format!("{user}:{MASK}"),
        _ => word.to_owned(),
    }
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

/// All URLs of a value, as [`mask_url`] says; `None` where there is nothing to mask.
fn mask_urls(value: &str) -> Option<String> {
    let parts: Vec<&str> = value.split_inclusive([',', ';', '"', '\'', '|']).collect();
    let masked: Vec<Option<String>> = parts.iter().map(|part| mask_url(part)).collect();
    // A password may hold such a mark: then the whole is one URL.
    if masked.iter().all(Option::is_none) {
        return mask_url(value);
    }
    let text =
        parts.iter().zip(masked).map(|(part, masked)| masked.unwrap_or_else(|| (*part).to_owned()));
    let text: String = text.collect();
    Some(mask_url(&text).unwrap_or(text))
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
            "GITHUB_PAT",
            "PAT",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "AUTHOR",
            "PATH",
            "PWD",
            "OLDPWD",
            "KEYBOARD",
            "PASSENGERS",
            "PATTERN",
            "LIBPATH",
            "COMPAT",
            "MODE",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn urls_lose_passwords_and_keys() {
        let shown = |value: &str| masked("X", value);
        assert_eq!(shown("postgres://me:pw@db/x"), "postgres://me:********@db/x");
        assert_eq!(shown("https://0123456789abcdef01@sentry.io/1"), "https://********@sentry.io/1");
        assert_eq!(shown("ssh://git@host/x"), "ssh://git@host/x");
        assert_eq!(
            shown("amqp://a:b@one,amqp://c:d@two/x"),
            "amqp://a:********@one,amqp://c:********@two/x"
        );
        assert_eq!(shown("db://me:p,w@one"), "db://me:********@one");
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

    /// The words of a line between `|`, masked as a command.
    #[track_caller]
    fn is_shown(line: &str, wanted: &str) {
        let words: Vec<String> = line.split('|').map(str::to_owned).collect();
        assert_eq!(masked_command(&words).join("|"), wanted);
    }

    #[test]
    fn headers_lose_their_values() {
        is_shown(
            "curl|-H|Authorization: Bearer abc def|-H|Accept: x/y|http://h",
            "curl|-H|Authorization: Bearer ******** ********|-H|Accept: x/y|http://h",
        );
        is_shown(
            "sh|-c|curl -H 'Authorization: Basic abc' -H \"X-Api-Key:k\" -H 'Accept: y' http://h",
            "sh|-c|curl -H 'Authorization: Basic ********' -H \"X-Api-Key:********\" -H 'Accept: y' http://h",
        );
        is_shown("./web|auth:8080|token-service: up", "./web|auth:8080|token-service: up");
    }

    #[test]
    fn programs_that_take_a_password_by_a_letter_are_known_and_others_are_left_alone() {
        is_shown("sshpass|-p|1234|ssh|-p|22|host", "sshpass|-p|********|ssh|-p|22|host");
        is_shown("/usr/bin/mysql|-uroot|-ppw|shop", "/usr/bin/mysql|-uroot|-p********|shop");
        is_shown("sh|-c|exec redis-cli -a pw ping", "sh|-c|exec redis-cli -a ******** ping");
        is_shown("curl|-u|me:pw|http://h", "curl|-u|me:********|http://h");
        is_shown("./own|-u|me|-p|pw", "./own|-u|me|-p|********");
        is_shown("mongosh|-p|pw|shop", "mongosh|-p|********|shop");
        is_shown("ldapsearch|-w|1234|-b|x", "ldapsearch|-w|********|-b|x");
        for plain in [
            "mkdir|-p|a",
            "./own|-p|8080",
            "./own|-u|me|-p|80",
            "docker|run|-u|1|-p|$PORT:80|x",
            "python|-u|a.py",
        ] {
            is_shown(plain, plain);
        }
    }
}
