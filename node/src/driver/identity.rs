//! Who `user` and `group` are on this machine.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::request::Identity;

/// The user that a process becomes, and what it should know of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// For the spawn; `None` where the node is that user already.
    pub identity: Option<Identity>,
    /// `USER`, `LOGNAME`, `HOME`, `SHELL`; for a number that the system has no name for the number, and `/`.
    pub variables: Vec<(&'static str, String)>,
}

/// Why a name means nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No such user.
    #[error("user `{name}` is not known on this machine")]
    User {
        /// As configured.
        name: String,
    },
    /// No such group.
    #[error("group `{name}` is not known on this machine")]
    Group {
        /// As configured.
        name: String,
    },
}

/// Looks up the names or numbers; a number needs no entry in the system's tables.
///
/// # Errors
/// When a name is not known.
pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Account, IdentityError> {
    let entry = match user {
        Some(name) => find_user(name)?,
        None => (nix::unistd::geteuid(), None),
    };
    let (uid, known) = entry;
    let gid = match (group, &known) {
        (Some(name), _) => find_group(name)?,
        (None, Some(known)) => known.gid,
        (None, None) if user.is_some() => Gid::from_raw(uid.as_raw()),
        (None, None) => nix::unistd::getegid(),
    };
    let mut variables = Vec::new();
    let mut groups = user.map(|_| vec![gid.as_raw()]);
    if let Some(known) = known {
        if let Ok(list) = CString::new(known.name.as_str()).map(|name| getgrouplist(&name, gid))
            && let Ok(list) = list
        {
            groups = Some(list.into_iter().map(Gid::as_raw).collect());
        }
        variables.push(("HOME", known.dir.to_string_lossy().into_owned()));
        variables.push(("SHELL", known.shell.to_string_lossy().into_owned()));
        variables.push(("USER", known.name.clone()));
        variables.push(("LOGNAME", known.name));
    } else if user.is_some() {
        // What is said of the node's user is not true of this one.
        variables.push(("HOME", "/".to_owned()));
        variables.push(("USER", uid.to_string()));
        variables.push(("LOGNAME", uid.to_string()));
    }
    let already = uid == nix::unistd::geteuid() && gid == nix::unistd::getegid();
    let unprivileged = !nix::unistd::geteuid().is_root();
    let identity = Identity {
        name: user.or(group).unwrap_or_default().to_owned(),
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        groups,
    };
    Ok(Account {
        // Nobody but root may call setgroups, even to change nothing.
        identity: (!(already && unprivileged)).then_some(identity),
        variables,
    })
}

fn find_user(name: &str) -> Result<(Uid, Option<User>), IdentityError> {
    let unknown = || IdentityError::User { name: name.to_owned() };
    if let Ok(number) = name.parse::<u32>() {
        let uid = Uid::from_raw(number);
        return Ok((uid, User::from_uid(uid).ok().flatten()));
    }
    let user = User::from_name(name).ok().flatten().ok_or_else(unknown)?;
    Ok((user.uid, Some(user)))
}

fn find_group(name: &str) -> Result<Gid, IdentityError> {
    if let Ok(number) = name.parse::<u32>() {
        return Ok(Gid::from_raw(number));
    }
    let group = Group::from_name(name).ok().flatten();
    group.map(|group| group.gid).ok_or_else(|| IdentityError::Group { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_unknown_ones_named() {
        let root = resolve(Some("root"), None).unwrap();
        assert!(root.variables.contains(&("USER", "root".into())));
        let number = resolve(Some("54321"), Some("54322")).unwrap();
        let identity = number.identity.clone().unwrap();
        assert_eq!((identity.uid, identity.gid), (54321, 54322));
        assert!(number.variables.contains(&("HOME", "/".into())));
        assert!(number.variables.contains(&("USER", "54321".into())));
        assert_eq!(identity.groups, Some(vec![54322]));
        assert_eq!(
            resolve(Some("no-such-user"), None),
            Err(IdentityError::User { name: "no-such-user".into() })
        );
        assert!(resolve(None, Some("no-such-group")).is_err());
    }
}
