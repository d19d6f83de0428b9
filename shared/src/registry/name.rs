//! Which names interfaces may have.

use super::BUILTIN;
use super::directory::MAX_NAME;

/// The name under which a node is called: an interface of that name would get some of its calls.
pub const NODE: &str = "node";

/// A name that an interface cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be the name of an interface: {reason}")]
pub struct InvalidInterface {
    name: String,
    reason: &'static str,
}

/// Sees whether an interface may be called so, its version left out. Every registry takes such a name, and every subject can name it;
/// dots in it are lymph's, too.
///
/// # Errors
/// When it may not.
pub fn check_interface(name: &str) -> Result<(), InvalidInterface> {
    // ZooKeeper's paths have no such characters.
    let special = |c: char| c.is_control() || ('\u{fff0}'..='\u{ffff}').contains(&c);
    let reason = match name {
        "" => "it is empty",
        BUILTIN => "so is called what every container answers",
        NODE => "so is called the node itself",
        "." | ".." => "a registry's path would lead elsewhere",
        _ if name.len() > MAX_NAME => "it has more than 255 bytes",
        _ if name.contains(char::is_whitespace) => "a blank ends a word of the command line",
        _ if name.contains('/') => "a slash separates the parts of a registry's path",
        _ if name.contains('@') => "what follows an `@` is a version",
        _ if name.contains('*') => "a `*` stands for others",
        _ if name.contains(special) => "it has a character that no registry takes",
        _ => return Ok(()),
    };
    Err(InvalidInterface { name: name.chars().take(80).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_is_no_interface() {
        for good in ["echo", "shop.worker", "job-1", "nodes", "node.worker", "a_b", "größe", "a:b"]
        {
            assert_eq!(check_interface(good), Ok(()), "{good}");
        }
        let long = "x".repeat(MAX_NAME + 1);
        for bad in
            ["", "node", "lymph", ".", "..", "a b", "a/b", "a@1", "*", "a\0", "a\u{fff0}", &long]
        {
            let wrong = check_interface(bad).unwrap_err().to_string();
            assert!(wrong.contains("cannot be the name of an interface: "), "{wrong}");
        }
    }
}
