//! Arguments of a call, written in place: `args! { text: "foo", times: 3 }`.

use hilum_shared::wire::{Value, to_value};
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};

/// The arguments of a call by name. [`args!`](crate::args!) makes them; a struct or map that is `Serialize` does as well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    entries: Vec<(String, Value)>,
    /// Why an argument cannot be sent; the call says so.
    error: Option<String>,
}

impl Args {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    pub fn with<T: Serialize + ?Sized>(mut self, name: impl Into<String>, value: &T) -> Self {
        let name = name.into();
        match to_value(value) {
            Ok(value) => self.entries.push((name, value)),
            Err(error) => self.error = Some(format!("argument `{name}`: {error}")),
        }
        self
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(error) = &self.error {
            return Err(S::Error::custom(error));
        }
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (name, value) in &self.entries {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Arguments of a call by name.
///
/// ```
/// # use hilum_worker::args;
/// let times = 3;
/// let arguments = args! { text: "foo", times, from: Some("me") };
/// # let _ = arguments;
/// ```
#[macro_export]
macro_rules! args {
    () => { $crate::Args::new() };
    ($($name:ident $(: $value:expr)?),+ $(,)?) => {
        $crate::Args::new()$(.with(stringify!($name), $crate::args!(@ $name $($value)?)))+
    };
    (@ $name:ident) => { &$name };
    (@ $name:ident $value:expr) => { &$value };
}
