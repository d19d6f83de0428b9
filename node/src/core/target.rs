//! TARGETs of the command line: a service, an instance, or a glob over either.

/// Whether `pattern` (`web`, `web.2`, `web*`, `*.1`) means the instance `service.index`.
pub fn matches(pattern: &str, service: &str, index: u32) -> bool {
    if pattern == service || glob(pattern.as_bytes(), service.as_bytes()) {
        return true;
    }
    match pattern.rsplit_once('.') {
        Some((head, tail)) => {
            glob(head.as_bytes(), service.as_bytes())
                && glob(tail.as_bytes(), index.to_string().as_bytes())
        }
        None => false,
    }
}

/// `*` stands for any text, `?` for one character.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if let Some((at, from)) = star {
            p = at + 1;
            t = from + 1;
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The names that `text` may have meant, the nearest first, at most three; none where nothing is near.
pub fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = text.to_lowercase();
    let length = wanted.chars().count();
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let slips = strsim::damerau_levenshtein(&wanted, &lower);
            // One letter in three may be wrong, as in the configuration; or it is only the beginning.
            let likely = slips <= (length.max(lower.chars().count()) / 3).max(1);
            (likely || (length > 1 && lower.starts_with(&wanted))).then_some((slips, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_a_slip_or_a_beginning_and_nothing_far_off() {
        let names = ["echo", "web-api", "web-ui", "worker", "db", "echo.upper"];
        let near = |text: &str| nearest(text, names.into_iter());
        assert_eq!(near("ehco"), ["echo"]);
        assert_eq!(near("Wroker"), ["worker"]);
        assert_eq!(near("web"), ["web-ui", "web-api"]);
        assert_eq!(near("echo.uper"), ["echo.upper"]);
        for far in ["decoy", "wool", "x", "", "e", "lower", "waiter"] {
            assert_eq!(near(far), [""; 0], "{far}");
        }
    }

    #[test]
    fn a_target_is_a_service_an_instance_or_a_glob() {
        for (pattern, yes) in [
            ("web", true),
            ("web.2", true),
            ("web*", true),
            ("*.2", true),
            ("w?b", true),
            ("*", true),
            ("web.3", false),
            ("we", false),
            ("api*", false),
            ("web.", false),
        ] {
            assert_eq!(matches(pattern, "web", 2), yes, "{pattern}");
        }
    }
}
