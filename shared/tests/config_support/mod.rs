//! A project folder for one test.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use hilum_shared::config::{Diagnostics, LoadOptions, Loaded, load};

/// A folder with a `hilum.yml`.
pub(crate) struct Project {
    dir: tempfile::TempDir,
    /// What will be loaded.
    pub options: LoadOptions,
}

impl Project {
    /// A project whose `hilum.yml` is this text.
    pub(crate) fn new(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let project = Self {
            options: LoadOptions {
                files: vec![dir.path().join("hilum.yml")],
                project_dir: dir.path().to_path_buf(),
                env: BTreeMap::from([("HOME".to_owned(), "/home/u".to_owned())]),
                ..LoadOptions::default()
            },
            dir,
        };
        project.file("hilum.yml", yaml)
    }

    /// With another file.
    pub(crate) fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// With a variable in the process's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With its config under another name.
    pub(crate) fn rename(mut self, from: &str, to: &str) -> Self {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
        self.options.files = vec![self.path(to)];
        self
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Loads it.
    pub(crate) fn load(&self) -> Result<Loaded, Diagnostics> {
        load(&self.options)
    }

    /// What is wrong with it, as people see it.
    pub(crate) fn complaints(&self) -> String {
        match self.load() {
            Ok(loaded) => loaded.warnings.render(false),
            Err(diagnostics) => diagnostics.render(false),
        }
    }
}
