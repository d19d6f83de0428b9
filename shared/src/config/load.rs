//! From the files to one document: includes, the override beside the first file, variables, defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build;
use super::diagnostic::{Diagnostics, Problems, Severity, quote};
use super::keys;
use super::raw::Budget;
use super::read::ReadError;
use super::recover;
use super::shape::Shape;
use super::source::{Pos, Sources};
use super::spec::Cluster;
use super::tree::{self, Entry, Map, Node, Value};
use super::validate::Context;
use super::variables::Variables;
use super::{dotenv, read, validate};

/// The files that are looked for, in this order.
pub const NAMES: [&str; 4] = ["hilum.yml", "hilum.yaml", ".hilum.yml", ".lymph.yml"];
/// Merged when it lies beside the first file.
pub const OVERRIDE: &str = "hilum.override.yml";
/// Names a file of variables when `--vars` is not given.
pub const VARS: &str = "LYMPH_VARS";
/// Deepest chain of files that include one another.
const MAX_INCLUDES: usize = 16;
/// Most files of one load.
const MAX_FILES: usize = 200;

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The config files; later ones are merged over earlier ones.
    pub files: Vec<PathBuf>,
    /// The file behind `$(var.…)`; else what `LYMPH_VARS` names.
    pub vars: Option<PathBuf>,
    /// Files of variables for `$(env.…)`, after the `.env` beside the first config.
    pub env_files: Vec<PathBuf>,
    /// The chosen profiles.
    pub profiles: Vec<String>,
    /// The project's name, over `name:`.
    pub project: Option<String>,
    /// Where instances run, and where relative paths start; absolute.
    pub project_dir: PathBuf,
    /// The process's environment.
    pub env: BTreeMap<String, String>,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub cluster: Arc<Cluster>,
    /// The document after includes, variables and defaults, as `hilum config` shows it.
    pub resolved: serde_yaml::Value,
    /// The files as they were read.
    pub raw: Vec<(PathBuf, String)>,
    /// What is right but probably not meant.
    pub warnings: Diagnostics,
    /// What only `hilum check` shows: programs that are not there yet.
    pub notes: Diagnostics,
}

/// The config of this very folder.
pub fn find_in(folder: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// Reads, checks and builds a configuration.
///
/// # Errors
/// With all that is wrong in all files, as far as it can be told; warnings are among it.
pub fn load(options: &LoadOptions) -> Result<Loaded, Diagnostics> {
    let mut loader = Loader {
        options,
        sources: Sources::default(),
        problems: Problems::default(),
        notes: Problems::default(),
        budget: Budget::default(),
        yaml: Vec::new(),
    };
    match loader.load() {
        Some((cluster, root)) if loader.problems.errors() == 0 => {
            let raw = loader.yaml.iter().filter_map(|number| {
                let file = loader.sources.files().get(*number as usize)?;
                Some((file.path.clone(), file.text.clone()))
            });
            let raw: Vec<_> = raw.collect();
            let warnings = loader.problems.finish(&loader.sources);
            let notes = loader.notes.finish(&loader.sources);
            let cluster = Cluster {
                content: loader.sources.hash(),
                files: raw.iter().map(|(path, _)| path.clone()).collect(),
                warnings: warnings.0.iter().map(one_line).collect(),
                profiles: options.profiles.clone(),
                ..cluster
            };
            Ok(Loaded {
                resolved: resolved(&root, &cluster),
                cluster: Arc::new(cluster),
                raw,
                warnings,
                notes,
            })
        }
        _ => Err(loader.problems.finish(&loader.sources)),
    }
}

/// The document as it is shown, with the one default that is another one for jobs.
fn resolved(root: &Node, cluster: &Cluster) -> serde_yaml::Value {
    let mut document = root.to_yaml();
    for (name, service) in &cluster.services {
        let one = document.get_mut("instances").and_then(|all| all.get_mut(name.as_str()));
        let restart = one.and_then(|one| one.get_mut("restart")?.as_mapping_mut());
        if let Some(restart) = restart {
            let policy = service.policy.restart.when.as_str();
            restart.entry("policy".into()).or_insert_with(|| policy.into());
        }
    }
    document
}

/// A warning in one line, for where there is no room for more.
fn one_line(warning: &super::Diagnostic) -> String {
    debug_assert_eq!(warning.severity, Severity::Warning);
    match (&warning.file, warning.line) {
        (Some(file), Some(line)) => format!("{}:{line}: {}", file.display(), warning.message),
        _ => warning.message.clone(),
    }
}

struct Loader<'a> {
    options: &'a LoadOptions,
    sources: Sources,
    problems: Problems,
    notes: Problems,
    budget: Budget,
    /// Numbers of the files that are YAML of the configuration.
    yaml: Vec<u32>,
}

impl Loader<'_> {
    fn load(&mut self) -> Option<(Cluster, Node)> {
        let env = self.environment();
        let vars = self.vars(&env);
        let mut root = self.files(&env)?;
        if self.problems.errors() > 0 && root.as_map().is_none() {
            return None;
        }
        self.problems.gaps.take(&mut root);
        Variables { env: &env, vars: vars.as_ref(), sources: &self.sources }.apply_to_root(
            &mut root,
            &mut self.budget,
            &mut self.problems,
        );
        let mut shape = Shape::new(&mut self.problems);
        if let Value::Map(map) = &mut root.value
            && let Some(defaults) = map.remove("defaults").filter(|d| !d.value.is_null())
        {
            shape.defaults(&defaults.value);
            if !under_instances(map, &defaults.value, &mut self.budget) {
                shape.problems.error(
                    defaults.key_at,
                    "defaults",
                    "`defaults` make the configuration too large",
                );
                return None;
            }
        }
        shape.document(&mut root);
        let references = std::mem::take(&mut shape.references);
        let cluster = build::cluster(
            &root,
            self.options.project.as_deref(),
            &self.options.project_dir,
            &mut self.sources,
            &mut self.problems,
        );
        let idle_defaults = validate::validate(
            &cluster,
            &root,
            &references,
            &Context { options: self.options, sources: &self.sources },
            &mut self.problems,
            &mut self.notes,
        );
        for path in &idle_defaults {
            remove(&mut root, path);
        }
        self.place_env_files(&mut root);
        Some((cluster, root))
    }

    /// Files of variables are named relative to the file that names them, which what is shown does not tell.
    fn place_env_files(&self, root: &mut Node) {
        let place = |node: &mut Node| {
            let Value::Map(map) = &mut node.value else { return };
            let files = map.get_mut("env_file").map(|files| &mut files.value);
            let Some(Value::List(items)) = files else { return };
            for item in items {
                let base = self.sources.file(item.at).and_then(|file| file.path.parent());
                if let (Value::Scalar(scalar), Some(base)) = (&mut item.value, base) {
                    scalar.text = base.join(&scalar.text).to_string_lossy().into_owned();
                }
            }
        };
        place(root);
        let Value::Map(map) = &mut root.value else { return };
        if let Some(Value::Map(all)) = map.get_mut("instances").map(|all| &mut all.value) {
            all.0.iter_mut().for_each(|entry| place(&mut entry.value));
        }
    }

    /// The process's environment over `--env-file` over the `.env` beside the first config.
    fn environment(&mut self) -> BTreeMap<String, String> {
        let mut files = Vec::new();
        let beside =
            self.options.files.first().map(|first| self.absolute(first).with_file_name(".env"));
        files.extend(beside.filter(|file| file.is_file()));
        let own = files.len();
        files.extend(self.options.env_files.iter().map(|file| self.absolute(file)));
        let mut env = BTreeMap::new();
        for (index, file) in files.into_iter().enumerate() {
            let text = match read::text(&file) {
                Ok(text) => text,
                Err(error) => {
                    let what = if index < own { "" } else { " of `--env-file`" };
                    self.problems.error(
                        Pos::NONE,
                        "",
                        format!("cannot read {}{what}: {error}", quote(&file.to_string_lossy())),
                    );
                    continue;
                }
            };
            let (variables, errors) = dotenv::parse(&text);
            let number = self.sources.add(file, &self.options.project_dir, text);
            read::dotenv_errors(number, errors, &mut self.problems);
            env.extend(variables.into_iter().map(|variable| (variable.name, variable.value)));
        }
        env.extend(self.options.env.iter().map(|(name, value)| (name.clone(), value.clone())));
        env
    }

    /// The file behind `$(var.…)`, its own `$(env.…)` replaced.
    fn vars(&mut self, env: &BTreeMap<String, String>) -> Option<Node> {
        let from_env =
            self.options.env.get(VARS).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = self.options.vars.clone().or(from_env)?;
        let path = self.absolute(&path);
        let text = match read::text(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!(
                    "cannot read the variables file {}: {error}",
                    quote(&path.to_string_lossy())
                );
                self.problems
                    .error(Pos::NONE, "", message)
                    .help("it is given by `--vars` or `LYMPH_VARS`");
                return Some(recover::unread());
            }
        };
        let number = self.sources.add(path, &self.options.project_dir, text.clone());
        let mut node = recover::parse(number, &text, &mut self.budget, &mut self.problems)?;
        Variables { env, vars: None, sources: &self.sources }.apply(
            &mut node,
            &mut String::new(),
            &mut self.budget,
            &mut self.problems,
        );
        Some(node)
    }

    /// All config files merged in their order.
    fn files(&mut self, env: &BTreeMap<String, String>) -> Option<Node> {
        let mut files: Vec<PathBuf> =
            self.options.files.iter().map(|file| self.absolute(file)).collect();
        let Some(first) = files.first() else {
            self.problems
                .error(Pos::NONE, "", "no configuration file is given")
                .help("create one with `hilum init`, or name one with `-c FILE`");
            return None;
        };
        let over = first.with_file_name(OVERRIDE);
        if over.is_file() && !files.contains(&over) {
            files.insert(1, over);
        }
        let mut merged: Option<Node> = None;
        for file in files {
            let node = self.file(&file, Pos::NONE, "", &mut Vec::new(), env);
            lay_over(&mut merged, node.unwrap_or_else(|| self.unread()));
        }
        merged
    }

    /// One file with what it includes under it. `at` and `path` are of the key that names it.
    fn file(
        &mut self,
        file: &Path,
        at: Pos,
        path: &str,
        chain: &mut Vec<PathBuf>,
        env: &BTreeMap<String, String>,
    ) -> Option<Node> {
        let identity = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        if chain.contains(&identity) {
            let names: Vec<String> =
                chain.iter().chain([&identity]).map(|file| self.shown(file)).collect();
            let message = format!("files include one another: {}", names.join(" -> "));
            self.problems.error(at, path, message);
            return None;
        }
        if chain.len() >= MAX_INCLUDES || self.yaml.len() >= MAX_FILES {
            let message = format!(
                "too many files: at most {MAX_INCLUDES} levels of `include` and {MAX_FILES} files"
            );
            self.problems.error(at, path, message);
            return None;
        }
        let text = match read::text(file) {
            Ok(text) => text,
            Err(ReadError::NotUtf8 { byte, at, text, .. }) => {
                let number = self.sources.add(file.to_path_buf(), &self.options.project_dir, text);
                self.problems
                    .error(
                        Pos::new(number, at, at + 3),
                        "",
                        format!("byte {byte:#04x} is not UTF-8"),
                    )
                    .help("save the file as UTF-8");
                return None;
            }
            Err(error) => {
                let message = format!("cannot read {}: {error}", quote(&self.shown(file)));
                let problem = self.problems.error(at, path, message);
                if at.is_some() {
                    problem.help("an included file is named relative to the file that includes it");
                }
                return None;
            }
        };
        let number = self.sources.add(file.to_path_buf(), &self.options.project_dir, text.clone());
        self.yaml.push(number);
        let root = recover::parse(number, &text, &mut self.budget, &mut self.problems);
        let Some(mut root) = root else {
            if !self.problems.complained_of(number) {
                self.empty(number);
            }
            return None;
        };
        if root.is_null() {
            self.empty(number);
            return None;
        }
        let found = root.describe();
        let Value::Map(map) = &mut root.value else {
            self.problems
                .error(root.at, "", format!("a configuration is a map of keys, this is {found}"))
                .help("start with `instances:`");
            return None;
        };
        let includes = map.remove("include");
        // What the file itself says lies over what it includes, so the includes come first.
        chain.push(identity);
        let mut merged = None;
        for (target, at, path) in self.includes(includes, env) {
            let target = file.parent().unwrap_or(Path::new("/")).join(target);
            let node = self.file(&target, at, &path, chain, env);
            lay_over(&mut merged, node.unwrap_or_else(|| self.unread()));
        }
        chain.pop();
        lay_over(&mut merged, root);
        merged
    }

    /// What stands for a file that is not there or holds nothing.
    fn unread(&mut self) -> Node {
        self.problems.gaps.lost_a_file();
        recover::unread()
    }

    fn empty(&mut self, number: u32) {
        self.problems
            .error(Pos::new(number, 0, 0), "", "the file is empty")
            .help("start with `instances:`, or write an example with `hilum init`");
    }

    /// The names in `include` with their places.
    fn includes(
        &mut self,
        include: Option<Entry>,
        env: &BTreeMap<String, String>,
    ) -> Vec<(PathBuf, Pos, String)> {
        let Some(mut include) = include.filter(|entry| !entry.value.is_null()) else {
            return Vec::new();
        };
        Variables { env, vars: None, sources: &self.sources }.apply(
            &mut include.value,
            &mut "include".to_owned(),
            &mut self.budget,
            &mut self.problems,
        );
        let items = match include.value.value {
            Value::List(items) => items,
            _ => vec![include.value],
        };
        let mut out = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("include[{index}]");
            match item.as_scalar() {
                Some(scalar) if !scalar.text.is_empty() => {
                    out.push((PathBuf::from(&scalar.text), item.at, path));
                }
                _ if matches!(item.value, Value::Broken) => {}
                _ => {
                    let message = format!("expected a path, found {}", item.describe());
                    self.problems.error(item.at, &path, message);
                }
            }
        }
        out
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        self.options.project_dir.join(path)
    }

    fn shown(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.options.project_dir).unwrap_or(path);
        path.display().to_string()
    }
}

fn remove(node: &mut Node, path: &[String]) {
    if let (Some((key, rest)), Value::Map(map)) = (path.split_first(), &mut node.value) {
        match map.get_mut(key) {
            Some(inner) if !rest.is_empty() => remove(inner, rest),
            _ => drop(map.remove(key)),
        }
    }
}

fn lay_over(merged: &mut Option<Node>, node: Node) {
    match merged {
        Some(base) => tree::merge(base, node, keys::exclusive),
        None => *merged = Some(node),
    }
}

/// Lays every instance over a copy of the defaults; `false` when that would be too much.
fn under_instances(root: &mut Map, defaults: &Node, budget: &mut Budget) -> bool {
    let size = defaults.size();
    let Some(Value::Map(instances)) = root.get_mut("instances").map(|node| &mut node.value) else {
        return true;
    };
    for entry in &mut instances.0 {
        if entry.key.starts_with("x-") {
            continue;
        }
        if !budget.take(size.nodes, size.bytes) {
            return false;
        }
        let mut merged = defaults.clone();
        let own = std::mem::replace(&mut entry.value, Node::map(entry.key_at));
        if own.is_null() {
            merged.at = entry.key_at;
        } else {
            tree::merge(&mut merged, own, keys::exclusive);
        }
        entry.value = merged;
    }
    true
}
