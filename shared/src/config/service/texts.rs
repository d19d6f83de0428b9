//! Every text in a section, for checks that concern no type.

use std::sync::Arc;

use super::Section;
use crate::config::tree::{Node, Value};

impl Section {
    /// Every text in it, at any depth, each as a section of its own.
    pub fn texts(&self) -> Vec<(Self, String)> {
        let mut found = Vec::new();
        if let Some(node) = &self.node {
            self.gather(node, &self.path, &mut found);
        }
        found
    }

    fn gather(&self, node: &Node, path: &str, found: &mut Vec<(Self, String)>) {
        match &node.value {
            Value::Map(map) => {
                for entry in &map.0 {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.gather(&entry.value, &format!("{path}{dot}{}", entry.key), found);
                }
            }
            Value::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.gather(item, &format!("{path}[{at}]"), found);
                }
            }
            Value::Scalar(scalar) => {
                let section = Self {
                    sources: Arc::clone(&self.sources),
                    node: Some(node.clone()),
                    at: node.at,
                    path: path.to_owned(),
                };
                found.push((section, scalar.text.clone()));
            }
            Value::Broken => {}
        }
    }
}
