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

/// The names that `pattern` may have meant, the nearest first; none where nothing is near.
pub fn nearest<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = pattern.split('.').next().unwrap_or(pattern);
    let mut near: Vec<(f64, &str)> = names
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
