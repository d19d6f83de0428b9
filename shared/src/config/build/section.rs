//! A map with known keys, read by type. A key that the table does not have cannot be asked for.

use std::time::Duration;

use super::super::keys::{self, Key};
use super::super::shape::{read_mode, read_share};
use super::super::source::Pos;
use super::super::tree::{Map, Node, Scalar};
use crate::signal::Signal;
use crate::units::{self, Bytes};

/// A map of the document and the keys it may have.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    node: Option<&'a Node>,
    map: Option<&'a Map>,
    keys: &'static [Key],
}

impl<'a> Section<'a> {
    /// The map `node`, or nothing when it is absent or broken.
    pub(crate) fn new(node: Option<&'a Node>, keys: &'static [Key]) -> Self {
        let map = node.and_then(Node::as_map);
        Self { node, map, keys }
    }

    /// Whether it is there at all.
    pub(crate) fn exists(&self) -> bool {
        self.map.is_some()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(keys::find(self.keys, key).is_some(), "{key} is not in the table");
        #[cfg(test)]
        asked::note(self.keys, key);
        self.map.and_then(|map| map.get(key))
    }

    /// Whether the user wrote it; a default is nobody's wish.
    pub(crate) fn written(&self, key: &str) -> bool {
        self.get(key).is_some_and(|node| node.at.is_some())
    }

    /// Where a key stands, or the map where it does not.
    pub(crate) fn at(&self, key: &str) -> Pos {
        let entry = self.map.and_then(|map| map.entry(key));
        entry
            .map(|entry| entry.key_at)
            .filter(|at| at.is_some())
            .or(self.node.map(|node| node.at))
            .unwrap_or(Pos::NONE)
    }

    /// The map below a key.
    pub(crate) fn section(&self, key: &str) -> Section<'a> {
        let keys = keys::find(self.keys, key).and_then(|key| key.ty.keys());
        Section::new(self.get(key), keys.unwrap_or_default())
    }

    /// The entries of the map below a key: names and values.
    pub(crate) fn entries(&self, key: &str) -> &'a [super::super::tree::Entry] {
        self.get(key).and_then(Node::as_map).map_or(&[], |map| &map.0)
    }

    /// The items of the list below a key.
    pub(crate) fn list(&self, key: &str) -> &'a [Node] {
        self.get(key).and_then(Node::as_list).unwrap_or_default()
    }

    fn scalar(&self, key: &str) -> Option<&'a Scalar> {
        self.get(key).and_then(Node::as_scalar)
    }

    /// A text, or the number or word as it was written.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.scalar(key).map(|scalar| scalar.text.as_str())
    }

    /// The same, owned.
    pub(crate) fn string(&self, key: &str) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let items = self.list(key).iter();
        items.filter_map(|item| Some(item.as_scalar()?.text.clone())).collect()
    }

    /// Whether it is true.
    pub(crate) fn truth(&self, key: &str) -> bool {
        self.scalar(key).and_then(Scalar::as_bool).unwrap_or_default()
    }

    /// A whole number.
    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        self.scalar(key).and_then(Scalar::as_int)
    }

    /// A count.
    pub(crate) fn count(&self, key: &str) -> Option<u32> {
        self.int(key).and_then(|int| u32::try_from(int).ok())
    }

    /// A port.
    pub(crate) fn port(&self, key: &str) -> Option<u16> {
        self.int(key).and_then(|int| u16::try_from(int).ok())
    }

    /// A number.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.scalar(key).and_then(Scalar::as_float)
    }

    /// A share from 0 to 1.
    pub(crate) fn share(&self, key: &str) -> Option<f64> {
        self.scalar(key).and_then(read_share)
    }

    /// A duration.
    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        self.text(key).and_then(|text| units::parse_duration(text).ok())
    }

    /// A size.
    pub(crate) fn size(&self, key: &str) -> Option<Bytes> {
        self.text(key).and_then(|text| units::parse_size(text).ok())
    }

    /// A signal.
    pub(crate) fn signal(&self, key: &str) -> Option<Signal> {
        self.text(key).and_then(|text| text.parse().ok())
    }

    /// A file mode.
    pub(crate) fn mode(&self, key: &str) -> Option<u32> {
        self.scalar(key).and_then(|scalar| read_mode(scalar).ok())
    }
}

/// Which keys were read, so that a test can tell that none is accepted and ignored.
#[cfg(test)]
pub(crate) mod asked {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::super::super::keys::Key;

    thread_local! {
        static SEEN: RefCell<HashSet<(&'static str, String)>> = RefCell::default();
    }

    /// What tells tables apart; their addresses do not, a constant may be copied.
    fn table(keys: &'static [Key]) -> &'static str {
        keys.first().map_or("", |key| key.doc)
    }

    /// Notes that a key of this table was read.
    pub(super) fn note(keys: &'static [Key], key: &str) {
        SEEN.with_borrow_mut(|seen| seen.insert((table(keys), key.to_owned())));
    }

    /// Whether a key of this table was read on this thread.
    pub(crate) fn was(keys: &'static [Key], key: &str) -> bool {
        SEEN.with_borrow(|seen| seen.contains(&(table(keys), key.to_owned())))
    }
}
