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
    let name = name.to_ascii_uppercase().replace('-', "_");
    WORDS.iter().any(|word| name.contains(word))
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

/// `postgres://user:secret@host` with its password masked.
fn mask_url(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once("://")?;
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, _) = rest[..host].rsplit_once('@')?;
    let (name, password) = user.split_once(':')?;
    (!password.is_empty()).then(|| format!("{scheme}://{name}:{MASK}{}", &rest[user.len()..]))
}
