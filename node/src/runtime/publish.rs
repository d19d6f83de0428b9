//! Every line on the PUB endpoint, in lymph's frames.

use hilum_shared::protocol::Level;

use crate::channels::publish::Publish;
use crate::log::handle::{Finished, Subscriber};

/// Hands finished records from the log thread to the PUB endpoint.
pub struct Published {
    publish: Publish,
    text: String,
}

impl Published {
    /// Publishes on this endpoint.
    pub fn new(publish: Publish) -> Self {
        Self { publish, text: String::new() }
    }
}

impl Subscriber for Published {
    fn wanted(&self) -> bool {
        self.publish.is_listened_to()
    }

    fn record(&mut self, record: &Finished<'_>) {
        use std::fmt::Write;
        self.text.clear();
        let line = String::from_utf8_lossy(record.text);
        let _ = write!(self.text, "{} {} | {line}", record.name, record.stream.as_str()); // a String takes all
        self.publish.publish(record.level.unwrap_or(Level::Info), &self.text);
    }

    fn lost(&mut self) -> u64 {
        self.publish.lost()
    }
}
