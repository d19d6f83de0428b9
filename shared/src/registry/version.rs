//! Versions of interfaces, and which ones a caller can do with.

use std::cmp::Ordering;
use std::fmt;

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version: write `1`, `1.2` or `1.2.3`")]
pub struct InvalidVersion(String);

/// The version of an interface; missing parts are 0, so `1.2` is `1.2.0`.
#[derive(Clone, Debug)]
pub struct Version {
    number: semver::Version,
    text: String,
}

impl Version {
    /// Reads `1`, `1.2`, `1.2.3`, `1.2.3-rc1`, `1.2.3+build`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let core = text.find(['-', '+']).unwrap_or(text.len());
        let missing = 2_usize.saturating_sub(text[..core].matches('.').count());
        let full = format!("{}{}{}", &text[..core], ".0".repeat(missing), &text[core..]);
        let number = semver::Version::parse(&full).map_err(|_| InvalidVersion(text.to_owned()))?;
        Ok(Self { number, text: full })
    }

    /// With all three parts.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn core(&self) -> (u64, u64, u64) {
        (self.number.major, self.number.minor, self.number.patch)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The version that a caller was written for: it can do with that one and every later one up to the next major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRequest(Version);

impl VersionRequest {
    /// Reads a version without build metadata.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let version = Version::parse(text)?;
        if !version.number.build.is_empty() {
            return Err(InvalidVersion(text.to_owned()));
        }
        Ok(Self(version))
    }

    /// Whether an instance of this version will do; one without a version never does.
    ///
    /// As lymph has it, a pre-release counts as the version that it precedes, unless the caller asks for a pre-release itself.
    pub fn admits(&self, version: Option<&str>) -> bool {
        let Some(Ok(version)) = version.map(Version::parse) else { return false };
        let asked = &self.0;
        if version.number.major != asked.number.major {
            return false;
        }
        if asked.number.pre.is_empty() { version.core() >= asked.core() } else { version >= *asked }
    }
}

impl fmt::Display for VersionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_zero() {
        assert_eq!(Version::parse("1").unwrap().as_str(), "1.0.0");
        assert_eq!(Version::parse("1.2-rc1").unwrap().as_str(), "1.2.0-rc1");
        for bad in ["", "v1", "1.2.3.4", "01", "1.", "-1", "1.x"] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_caller_can_do_with_later_ones_of_the_same_major() {
        let admits = |asked: &str, version: Option<&str>| {
            VersionRequest::parse(asked).unwrap().admits(version)
        };
        assert!(admits("1.2", Some("1.5.0")) && admits("1.2", Some("1.2")));
        assert!(!admits("1.5.1", Some("1.5.0")) && !admits("1.2", Some("2.0.0")));
        assert!(admits("0.9", Some("0.9.5")) && !admits("0.9", Some("1.0.0")));
        assert!(!admits("1", None) && !admits("1", Some("what")));
        assert!(admits("2.0.0-alpha", Some("2.0.0-alpha")) && admits("2.0.0-alpha", Some("2.0.1")));
    }
}
