//! Environment variables of a service, from files and from maps, each with its origin.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::diagnostic::quote;
use super::super::spec::EnvValue;
use super::super::template::Template;
use super::super::tree::{Node, Value};
use super::super::{dotenv, read};
use super::Builder;
use super::section::Section;

/// Variables by name.
pub(super) type Env = BTreeMap<String, EnvValue>;

/// Files of variables that were read, so that each is read and complained of once.
pub(super) type EnvFiles = HashMap<PathBuf, Option<Arc<Env>>>;

impl Builder<'_> {
    /// The variables of a section laid over `base`: its files in their order, then its own.
    pub(super) fn variables(&mut self, section: &Section<'_>, base: Env, path: &str) -> Env {
        let mut env = base;
        for (index, item) in section.list("env_file").iter().enumerate() {
            let path = super::super::raw::join(path, &format!("env_file[{index}]"));
            if let Some(file) = self.env_file(item, &path) {
                env.extend(file.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        for entry in section.entries("env") {
            let path = super::super::raw::join(path, &format!("env.{}", entry.key));
            if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
                self.problems.error(
                    entry.key_at,
                    &path,
                    format!("{} cannot be the name of a variable", quote(&entry.key)),
                );
            }
            let value = match &entry.value.value {
                Value::Scalar(scalar) if !scalar.is_null() => {
                    Some(Template::new(scalar.text.as_str()))
                }
                _ => None,
            };
            let origin = self.sources.origin(entry.value.at);
            env.insert(entry.key.clone(), EnvValue { value, origin });
        }
        env
    }

    fn env_file(&mut self, item: &Node, path: &str) -> Option<Arc<Env>> {
        let name = &item.as_scalar()?.text;
        // A file is named relative to the file that names it, so that an included file may bring its own.
        let base =
            self.sources.file(item.at).and_then(|file| file.path.parent().map(Path::to_path_buf));
        let file = base.as_deref().unwrap_or(self.project_dir).join(name);
        if let Some(known) = self.env_files.get(&file) {
            return known.clone();
        }
        let read = match read::text(&file) {
            Ok(text) => Some(Arc::new(self.parse_env_file(&file, text))),
            Err(error) => {
                self.problems
                    .error(
                        item.at,
                        path,
                        format!("cannot read the file of variables {}: {error}", quote(name)),
                    )
                    .help("a path is relative to the file that names it");
                None
            }
        };
        self.env_files.insert(file, read.clone());
        read
    }

    fn parse_env_file(&mut self, file: &Path, text: String) -> Env {
        let (variables, errors) = dotenv::parse(&text);
        let number = self.sources.add(file.to_owned(), self.project_dir, text);
        read::dotenv_errors(number, errors, self.problems);
        let mut env = Env::new();
        for variable in variables {
            let at = super::super::source::Pos::new(number, variable.at, variable.at);
            let value = Some(Template::literal(&variable.value));
            let origin = self.sources.origin(at);
            env.insert(variable.name, EnvValue { value, origin });
        }
        env
    }
}
