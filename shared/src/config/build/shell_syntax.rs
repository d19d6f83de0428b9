//! What only a shell would understand, in a command that no shell reads.
//!
//! It is for a warning: what is quoted or escaped is meant as it stands, and so is what many programs take
//! (`--host=*`, `http://x/?a=1&b=2`, `a|b`).

/// Words that join commands.
const OPERATORS: [&str; 7] = ["|", "||", "|&", "&&", "&", ";", ";;"];

/// The first word of `text` with an unquoted mark of a shell in it: an operator, a redirection, `$VAR`, a backtick, a
/// pattern of files, `~/`.
pub(super) fn find(text: &str) -> Option<&str> {
    words(text).into_iter().find(|word| is_shells(&word.bare)).map(|word| word.source)
}

/// A word as it is written, and what of it is neither quoted nor escaped nor a reference of ours.
struct Word<'a> {
    source: &'a str,
    /// Anything else is a NUL here, which no command holds.
    bare: String,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut bare = String::new();
    let mut start = None;
    let mut quote = None;
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if quote.is_none() && c.is_whitespace() {
            if let Some(start) = start.take() {
                words.push(Word { source: &text[start..at], bare: std::mem::take(&mut bare) });
            }
            continue;
        }
        // A comment goes to the end of its line; it is split off as a shell does.
        if quote.is_none() && start.is_none() && c == '#' {
            while rest.next_if(|(_, c)| *c != '\n').is_some() {}
            continue;
        }
        start.get_or_insert(at);
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                bare.push('\0');
            }
            (Some(open), _) if open == c => quote = None,
            (None | Some('"'), '\\') => {
                rest.next();
                bare.push('\0');
            }
            (Some(_), _) => {}
            (None, '$') if text[at..].starts_with("$(") => {
                while rest.next_if(|(_, c)| *c != ')').is_some() {}
                rest.next();
                bare.push('\0');
            }
            (None, _) => bare.push(c),
        }
    }
    if let Some(start) = start {
        words.push(Word { source: &text[start..], bare });
    }
    words
}

fn is_shells(word: &str) -> bool {
    let name = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '{';
    let variable = word.match_indices('$').any(|(at, _)| word[at + 1..].starts_with(name));
    // `2>`, `>>`, `<`, `>file`
    let redirection = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '&');
    let joins = OPERATORS.contains(&word) || word.len() > 1 && word.ends_with(';');
    joins
        || variable
        || word.contains('`')
        || redirection.starts_with(['<', '>'])
        || word.starts_with("~/")
        || is_pattern(word)
}

/// `*.log`, `data/*`: no option, no address, no assignment.
fn is_pattern(word: &str) -> bool {
    word.contains('*') && !word.starts_with('-') && !word.contains(['=', ':', '@', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_act_on_is_found() {
        for (command, word) in [
            ("cat x | sort", "|"),
            ("make && ./run", "&&"),
            ("cd /srv; ./run", "/srv;"),
            ("./run >out.log", ">out.log"),
            ("./run 2>&1", "2>&1"),
            ("./run < in", "<"),
            ("./run --port $PORT", "$PORT"),
            ("./run --home=${HOME}/x", "--home=${HOME}/x"),
            ("echo `date`", "`date`"),
            ("ls *.log", "*.log"),
            ("ls data/*", "data/*"),
            ("~/bin/run", "~/bin/run"),
            ("./run &", "&"),
        ] {
            assert_eq!(find(command), Some(word), "{command}");
        }
    }

    #[test]
    fn what_is_quoted_or_usual_in_arguments_is_left_alone() {
        for command in [
            "sh -c 'cat x | sort > y; echo $HOME *'",
            "grep \"a > b; $x\" file",
            r"find . -name \*.rs -exec echo {} \;",
            "./run $(port.http) $(instance.name) x$(service.name)",
            "uvicorn app --forwarded-allow-ips=* --host 0.0.0.0:*",
            "curl http://x/?a=1&b=2",
            "grep -E a|b ^x$ file",
            "./run # and > what follows; is a comment",
            "./run a->b price=5$ x~/y",
            "awk '{print $1}' x",
        ] {
            assert_eq!(find(command), None, "{command}");
        }
    }
}
