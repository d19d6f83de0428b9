//! What can be called at a place, as it says itself: for `inspect`, for explanations, for completion.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hilum_shared::registry::NODE;
use hilum_shared::rpc::{CallOptions, Reply};
use hilum_shared::wire::Value;
use serde::Deserialize;

use super::super::exit::CliError;
use super::{ASIDE, Caller, Place, complete};

/// A method, as `lymph.inspect` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Method {
    /// `interface.method`.
    pub(crate) name: String,
    /// Of the interface; lymph writes `None` where it has none.
    #[serde(default)]
    pub(super) version: Option<String>,
    /// The names of its parameters.
    #[serde(default)]
    pub(crate) params: Vec<String>,
    /// Those of them that may be left out; only services of ours say it.
    #[serde(default)]
    pub(crate) optional: Vec<String>,
    /// The errors that it answers as such; only services of ours say it.
    #[serde(default)]
    pub(crate) raises: Vec<String>,
    /// What it does.
    #[serde(default)]
    pub(crate) help: String,
}

impl Method {
    /// The version of its interface.
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref().filter(|version| *version != "None")
    }

    /// `upper(text, times=nil)`.
    pub(crate) fn signature(&self) -> String {
        let shown = |name: &String| {
            if self.is_optional(name) { format!("{name}=nil") } else { name.clone() }
        };
        let params: Vec<String> = self.params.iter().map(shown).collect();
        format!("{}({})", self.name, params.join(", "))
    }

    /// Whether a parameter may be left out.
    pub(crate) fn is_optional(&self, parameter: &str) -> bool {
        self.optional.iter().any(|name| name == parameter)
    }
}

#[derive(Deserialize)]
struct Methods {
    methods: Vec<Method>,
}

impl Caller<'_> {
    /// The methods at a place, one instance of each version asked.
    ///
    /// # Errors
    /// As a call of `lymph.inspect` fails.
    pub(crate) async fn methods(
        &self,
        place: &Place,
        timeout: Duration,
    ) -> Result<Vec<Method>, CliError> {
        let mut seen: BTreeMap<(String, Option<String>), Method> = BTreeMap::new();
        let mut versions = BTreeSet::new();
        for instance in place.instances.iter() {
            if !versions.insert(instance.version.clone()) {
                continue;
            }
            let subject = "lymph.inspect";
            let reply = self.first(place, instance.version.as_deref(), subject, timeout).await?;
            let methods: Methods = reply.message.unpack().map_err(|error| {
                CliError::failed(format!(
                    "`{}` answered `{subject}` with something else: {error}",
                    place.address
                ))
            })?;
            for method in methods.methods {
                seen.entry((method.name.clone(), method.version.clone())).or_insert(method);
            }
        }
        Ok(seen.into_values().collect())
    }

    /// The answer of the first instance of a version that has one: a dead one does not matter while another lives.
    async fn first(
        &self,
        place: &Place,
        version: Option<&str>,
        subject: &str,
        timeout: Duration,
    ) -> Result<Reply, CliError> {
        let mut failed = None;
        for instance in place.instances.iter().filter(|one| one.version.as_deref() == version) {
            let options = CallOptions { timeout, ..CallOptions::default() };
            let one = place.only(instance);
            match self.call(&one, subject, &Value::Map(Vec::new()), options).await {
                Ok(reply) => return Ok(reply),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("the version is that of an instance").plain(self.session))
    }

    /// All that begins with `typed` and may be called, everywhere or at one place: services with a dot behind, methods, versions.
    pub(crate) async fn subjects(&self, typed: &str, at: Option<&Place>) -> Vec<String> {
        let services = match at {
            Some(place) => {
                let methods = self.methods(place, ASIDE).await.unwrap_or_default();
                complete::of_methods(&methods)
            }
            None => {
                let known = self.discover().await.unwrap_or_default();
                let mut services = complete::of_instances(&known);
                if matches!(self.node_status(), Ok(Some(_))) {
                    services.entry(NODE.to_owned()).or_default();
                }
                services
            }
        };
        let offer = complete::offer(typed, &services);
        let Some((interface, version)) = offer.methods else { return offer.names };
        let methods = self.methods_of(&interface, at).await;
        let within = |method: &Method| {
            let (of, name) = method.name.rsplit_once('.')?;
            (of == interface).then(|| format!("{interface}{version}.{name}"))
        };
        let methods: Vec<String> = methods.iter().filter_map(within).collect();
        // A beginning says nothing that its methods do not say.
        let names = offer.names.into_iter();
        let names = names.filter(|name| !methods.iter().any(|method| method.starts_with(name)));
        names.chain(methods.iter().cloned()).collect()
    }

    /// The methods of an interface, or of all at a place; none where it cannot be asked.
    async fn methods_of(&self, interface: &str, at: Option<&Place>) -> Vec<Method> {
        let asked = async {
            let place = match at {
                Some(place) => place.clone(),
                None => self.place(interface, ASIDE).await.ok()?,
            };
            self.methods(&place, ASIDE).await.ok()
        };
        asked.await.unwrap_or_default()
    }

    /// The names of a method's parameters; none where it cannot be asked.
    pub(crate) async fn parameters(&self, subject: &str, at: Option<&Place>) -> Vec<String> {
        let Some((interface, _)) = subject.rsplit_once('.') else { return Vec::new() };
        let methods = self.methods_of(interface, at).await;
        let asked = methods.into_iter().find(|method| method.name == subject);
        asked.map(|method| method.params).unwrap_or_default()
    }
}
