//! Names of services and instances, parsed once and valid ever after.
//!
//! A service is declared (`echo`), an instance is one index of it (`echo.3`), a run is one process life.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name of a service, in bytes: short enough for a label, a file name and a topic.
pub const MAX_NAME: usize = 63;

/// The name of a service: 1 to 63 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_NAME`] or holds another character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong { length: text.len() });
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '-')) {
            Some(character) => Err(NameError::Character { character }),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// One index of a service: `echo.3`. Indexes start at 1 and are stable through every restart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The service.
    pub service: ServiceName,
    /// The index, from 1.
    pub index: u32,
}

impl InstanceId {
    /// The `index`th instance of `service`.
    pub fn new(service: ServiceName, index: u32) -> Self {
        Self { service, index }
    }

    /// Parses `echo.3`.
    ///
    /// # Errors
    /// When the name is not valid or the index is not a number from 1 on.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (service, index) = text.rsplit_once('.').ok_or(NameError::NoIndex)?;
        let index = match index.parse::<u32>() {
            Ok(index) if index > 0 && !text.ends_with(&format!(".0{index}")) => index,
            _ => return Err(NameError::NoIndex),
        };
        Ok(Self { service: ServiceName::parse(service)?, index })
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.width().is_some() {
            return f.pad(&format!("{}.{}", self.service, self.index));
        }
        write!(f, "{}.{}", self.service, self.index)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.to_string()
    }
}

/// How many times an index has been started in the life of its node: the first process is run 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Run(pub u32);

impl Run {
    /// The run after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a name may not be empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("a name has at most {MAX_NAME} characters, this one has {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A character that no name may hold.
    #[error("a name holds letters, digits, `_` and `-` only, not `{character}`")]
    Character {
        /// The first such character.
        character: char,
    },
    /// An instance without its index.
    #[error("an instance is written `service.N` with N from 1")]
    NoIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_the_border() {
        assert_eq!(ServiceName::parse("echo-2_x").unwrap().as_str(), "echo-2_x");
        assert_eq!(ServiceName::parse(""), Err(NameError::Empty));
        assert_eq!(ServiceName::parse("a b"), Err(NameError::Character { character: ' ' }));
        assert!(ServiceName::parse(&"x".repeat(63)).is_ok());
        assert_eq!(ServiceName::parse(&"x".repeat(64)), Err(NameError::TooLong { length: 64 }));
    }

    #[test]
    fn an_instance_has_a_service_and_an_index_from_one() {
        let id = InstanceId::parse("echo.3").unwrap();
        assert_eq!((id.service.as_str(), id.index), ("echo", 3));
        assert_eq!(id.to_string(), "echo.3");
        for bad in ["echo", "echo.0", "echo.x", "echo.", ".1", "echo.01", "echo.-1"] {
            assert!(InstanceId::parse(bad).is_err(), "{bad}");
        }
    }
}
