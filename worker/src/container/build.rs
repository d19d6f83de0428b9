//! From a configuration to what it names: the interfaces, the components, and what they depend on.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hilum_shared::config::service::Section;
use hilum_shared::config::{Diagnostic, Diagnostics};
use hilum_shared::registry::{Version, check_interface};

use crate::component::{AnyComponent, Component, Dependencies, with_dependencies};
use crate::event::EventHandler;
use crate::interface::{AnyInterface, Interface, Method};

/// What a class makes of its section.
type Make<T> = fn(&Section) -> Result<Arc<T>, Diagnostics>;

/// An interface that this binary has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InterfaceClass {
    /// Its name in `class`.
    pub(crate) name: &'static str,
    pub(crate) methods: &'static [Method],
    pub(crate) handlers: &'static [EventHandler],
    make: Make<dyn AnyInterface>,
}

/// A component that this binary has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ComponentClass {
    /// Its name in `class`.
    pub(crate) name: &'static str,
    make: Make<dyn AnyComponent>,
}

impl InterfaceClass {
    pub(crate) fn of<T: Interface>() -> Self {
        let make: Make<dyn AnyInterface> = |section| {
            let config = section.read::<T::Config>()?;
            let made = T::create(config).map_err(|error| section.error(error.to_string(), None))?;
            Ok(Arc::new(made))
        };
        Self { name: T::TYPE, methods: T::METHODS, handlers: T::HANDLERS, make }
    }
}

impl ComponentClass {
    pub(crate) fn of<T: Component>() -> Self {
        let make: Make<dyn AnyComponent> = |section| {
            let config = section.read::<T::Config>()?;
            let made = T::create(config).map_err(|error| section.error(error.to_string(), None))?;
            Ok(Arc::new(made))
        };
        Self { name: T::TYPE, make }
    }
}

/// A key of `interfaces`, what stands there, and which class that means.
type Named = (String, Section, Result<InterfaceClass, Diagnostics>);

/// An interface under the name by which it is called.
#[derive(Clone)]
pub(crate) struct Installed {
    /// As it is registered.
    pub(crate) name: String,
    pub(crate) version: Option<Version>,
    pub(crate) interface: Arc<dyn AnyInterface>,
}

/// A component under its key, such as `dependencies.pool`.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) key: String,
    pub(crate) component: Arc<dyn AnyComponent>,
}

/// All that a configuration names.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) interfaces: Vec<Installed>,
    /// In the order in which they are started: what others depend on comes first.
    pub(crate) components: Vec<Part>,
}

/// The classes of a binary.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    /// The binary's name, the first half of `class`.
    pub(crate) binary: String,
    pub(crate) interfaces: Vec<InterfaceClass>,
    pub(crate) components: Vec<ComponentClass>,
}

impl Classes {
    /// Makes all that the configuration names. `only`, where given, are classes (`binary:Type`) in place of `interfaces`.
    ///
    /// # Errors
    /// With what is wrong, where it stands.
    pub(crate) fn build(&self, config: &Section, only: &[String]) -> Result<Parts, Diagnostics> {
        let made = Arc::new(Made {
            classes: self.clone(),
            config: config.get("dependencies"),
            state: Mutex::default(),
        });
        with_dependencies(Arc::clone(&made) as _, || self.build_with(&made, config, only))
    }

    fn build_with(
        &self,
        made: &Made,
        config: &Section,
        only: &[String],
    ) -> Result<Parts, Diagnostics> {
        let mut problems = Diagnostics::default();
        for section in ["components", "plugins"] {
            let entries = config.get(section).entries().unwrap_or_else(|error| {
                problems.0.extend(error.0);
                Vec::new()
            });
            for (_, entry) in entries {
                if let Err(error) = made.component(&entry) {
                    problems.0.extend(error.0);
                }
            }
        }
        let mut interfaces = Vec::new();
        match self.named(config, only) {
            Ok(named) => {
                for (key, section, class) in named {
                    match class.and_then(|class| interface(&key, &section, class)) {
                        Ok(installed) if is_there(&interfaces, &installed) => {
                            let message = format!("`{key}` stands twice, in two spellings");
                            problems.0.extend(section.error(message, None).0);
                        }
                        Ok(installed) => interfaces.push(installed),
                        Err(error) => problems.0.extend(error.0),
                    }
                }
            }
            Err(error) => problems.0.extend(error.0),
        }
        if !problems.has_errors() {
            problems.0.extend(made.missing(config));
        }
        if problems.has_errors() {
            return Err(problems);
        }
        let components = std::mem::take(&mut made.state().started);
        Ok(Parts { interfaces, components })
    }

    /// The interfaces of the configuration, or all of the binary under their own names where it has no `interfaces`.
    fn named(&self, config: &Section, only: &[String]) -> Result<Vec<Named>, Diagnostics> {
        let section = config.get("interfaces");
        if !only.is_empty() {
            let named = only.iter().map(|class| {
                let class = find(&self.interfaces, |it| it.name, &self.binary, class)
                    .map_err(|(message, help)| Section::empty().error(message, Some(help)))?;
                let name = snake(class.name);
                Ok((name.clone(), section.get(&name), Ok(*class)))
            });
            return named.collect();
        }
        if !section.is_given() {
            let all = self.interfaces.iter().map(|class| {
                let name = snake(class.name);
                (name.clone(), section.get(&name), Ok(*class))
            });
            return Ok(all.collect());
        }
        let entries = section.entries()?;
        let named = entries.into_iter().map(|(key, entry)| {
            let class = self.class_of(&entry, &key);
            (key, entry, class)
        });
        Ok(named.collect())
    }

    fn class_of(&self, section: &Section, key: &str) -> Result<InterfaceClass, Diagnostics> {
        let place = section.get("class");
        if let Some(class) = place.text()? {
            let found = find(&self.interfaces, |it| it.name, &self.binary, &class);
            return found.copied().map_err(|(message, help)| place.error(message, Some(help)));
        }
        let name = key.split('@').next().unwrap_or(key);
        match (
            self.interfaces.iter().find(|class| snake(class.name) == name),
            self.interfaces.as_slice(),
        ) {
            (Some(class), _) | (None, [class]) => Ok(*class),
            (None, classes) => {
                let help =
                    format!("say which: {}", all(&self.binary, classes.iter().map(|it| it.name)));
                Err(section.error(
                    format!(
                        "`{key}` has no `class`, and this binary has no interface of that name"
                    ),
                    Some(help),
                ))
            }
        }
    }
}

/// Whether there is one of the same name and version: `1.2` and `1.2.0` are one.
fn is_there(interfaces: &[Installed], new: &Installed) -> bool {
    interfaces.iter().any(|one| one.name == new.name && one.version == new.version)
}

/// One entry of `interfaces`.
fn interface(
    key: &str,
    section: &Section,
    class: InterfaceClass,
) -> Result<Installed, Diagnostics> {
    let (name, version) = match key.split_once('@') {
        None => (key, None),
        Some((name, version)) => match Version::parse(version) {
            Ok(parsed) => (name, Some(parsed)),
            Err(error) => {
                return Err(section.error(error.to_string(), Some("write `name@1.2.0`".to_owned())));
            }
        },
    };
    check_interface(name).map_err(|wrong| section.error(wrong.to_string(), None))?;
    let interface = (class.make)(&section.without(&["class"]))?;
    Ok(Installed { name: name.to_owned(), version, interface })
}

/// The class that a text such as `hilum-demo:Echo` or `Echo` names; else what is wrong and what could be meant.
fn find<'a, T>(
    classes: &'a [T],
    name: fn(&T) -> &'static str,
    binary: &str,
    text: &str,
) -> Result<&'a T, (String, String)> {
    let (of, wanted) = text.rsplit_once(':').unwrap_or((binary, text));
    let known = format!("known: {}", all(binary, classes.iter().map(name)));
    if of != binary {
        return Err((format!("`{text}` is a class of another binary: this is `{binary}`"), known));
    }
    let found = classes.iter().find(|class| name(class) == wanted);
    found.ok_or_else(|| (format!("this binary has no class `{wanted}`"), known))
}

fn all<'a>(binary: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{binary}:{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `HttpEcho` as `http_echo`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut before_is_lower = false;
    for character in name.chars() {
        if character.is_uppercase() && before_is_lower {
            out.push('_');
        }
        before_is_lower = character.is_lowercase() || character.is_ascii_digit();
        out.extend(character.to_lowercase());
    }
    out
}

/// The components that were made so far.
struct Made {
    classes: Classes,
    config: Section,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_name: HashMap<String, Arc<dyn Any + Send + Sync>>,
    /// Names that are being made, to see a circle.
    making: Vec<String>,
    started: Vec<Part>,
}

impl Made {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with a `dep:` that nobody has asked for: a class may read it as a text, and never miss it.
    fn missing(&self, config: &Section) -> Vec<Diagnostic> {
        let parts = ["interfaces", "components", "plugins", "dependencies"];
        let texts = parts.into_iter().flat_map(|part| config.get(part).texts());
        let lost = texts.filter_map(|(place, text)| {
            let name = text.strip_prefix("dep:")?;
            (!self.config.get(name).is_given())
                .then(|| place.error(no_dependency(name), Some(how_to_depend(name))).0)
        });
        lost.flatten().collect()
    }

    /// Makes the component of a section.
    fn component(&self, section: &Section) -> Result<Arc<dyn AnyComponent>, Diagnostics> {
        let place = section.get("class");
        let Some(class) = place.text()? else {
            let known = all(&self.classes.binary, self.classes.components.iter().map(|it| it.name));
            return Err(section.error("`class` is missing", Some(format!("known: {known}"))));
        };
        let class = find(&self.classes.components, |it| it.name, &self.classes.binary, &class)
            .map_err(|(message, help)| place.error(message, Some(help)))?;
        let component = (class.make)(&section.without(&["class"]))?;
        let part = Part { key: section.path().to_owned(), component: Arc::clone(&component) };
        self.state().started.push(part);
        Ok(component)
    }
}

impl Dependencies for Made {
    fn find(&self, name: &str) -> Result<Arc<dyn Any + Send + Sync>, String> {
        {
            let mut state = self.state();
            if let Some(found) = state.by_name.get(name) {
                return Ok(Arc::clone(found));
            }
            if state.making.iter().any(|other| other == name) {
                let circle = state.making.join("` needs `");
                return Err(format!("dependencies need one another: `{circle}` needs `{name}`"));
            }
            state.making.push(name.to_owned());
        }
        let section = self.config.get(name);
        let made = if section.is_given() {
            self.component(&section).map_err(|error| first(&error))
        } else {
            Err(no_dependency(name))
        };
        let mut state = self.state();
        state.making.pop();
        let made = made?.into_any();
        state.by_name.insert(name.to_owned(), Arc::clone(&made));
        Ok(made)
    }
}

fn no_dependency(name: &str) -> String {
    format!("there is no `dependencies.{name}`")
}

fn how_to_depend(name: &str) -> String {
    format!(
        "add it, `dependencies: {{{name}: {{class: 'binary:Type'}}}}`, or name one that is there"
    )
}

/// The first message of several, with its place, for where only a line fits.
fn first(errors: &Diagnostics) -> String {
    let Some(error) = errors.0.first() else { return "it cannot be made".to_owned() };
    match (&error.file, error.line) {
        (Some(file), Some(line)) => format!("{} ({}:{line})", error.message, file.display()),
        _ => error.message.clone(),
    }
}
