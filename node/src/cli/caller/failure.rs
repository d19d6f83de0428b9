//! Why a call brought no result, and what to do about it.

use std::collections::BTreeSet;

use hilum_shared::registry::{BUILTIN, RegistryError};
use hilum_shared::rpc::Error;
use hilum_shared::status::{Flag, InstanceStatus, Snapshot, State};
use hilum_shared::wire::Value;

use super::super::exit::CliError;
use super::super::request::Subject;
use super::super::session::Session;
use super::super::target::{Names, nearest};
use super::Method;

/// Why a call brought no result: the call's own error, or one before it.
#[derive(Debug)]
pub(crate) enum CallFailed {
    /// Of the call.
    Rpc(Error),
    /// Before it.
    Before(CliError),
}

impl From<Error> for CallFailed {
    fn from(error: Error) -> Self {
        Self::Rpc(error)
    }
}

impl From<CliError> for CallFailed {
    fn from(error: CliError) -> Self {
        Self::Before(error)
    }
}

impl CallFailed {
    /// Whether the request left, so that the log of who got it may say more.
    pub(super) fn reached_somebody(&self) -> bool {
        matches!(
            self,
            Self::Rpc(
                Error::Nack { .. }
                    | Error::Remote { .. }
                    | Error::Overloaded { .. }
                    | Error::Timeout { .. }
                    | Error::Lost { .. }
                    | Error::Answer { .. }
            )
        )
    }

    /// As an error of the command, without asking anybody.
    pub(crate) fn plain(self, session: &Session) -> CliError {
        let error = match self {
            Self::Before(error) => return error,
            Self::Rpc(error) => error,
        };
        let help = match &error {
            Error::NoSuchService { service } => {
                return unknown_service(service, Vec::new(), session);
            }
            Error::Registry(error) => return unreachable(error.clone()),
            Error::Subject { .. } | Error::Version(_) => {
                return CliError::Usage { message: error.to_string(), help: None };
            }
            Error::NotConnected { .. } | Error::NoneAlive { .. } => {
                Some("`hilum discover` shows what is registered, `hilum ps` what runs".to_owned())
            }
            Error::Timeout { .. } => Some(
                "`--timeout` waits longer; `hilum logs` of the service may say what it does"
                    .to_owned(),
            ),
            Error::NoneCompatible { .. } => {
                Some("`hilum discover --versions` shows who has which".to_owned())
            }
            _ => None,
        };
        CliError::Call { error: Box::new(error), help, trace_id: None }
    }
}

/// A name that nobody has.
pub(crate) fn unknown_service(name: &str, known: Vec<String>, session: &Session) -> CliError {
    let mut near = nearest(name, &known);
    // Perhaps it is in the configuration and does not run.
    if near.is_empty() && known.is_empty() {
        let names: Names = session.names();
        near = nearest(name, &names.all());
        if near.iter().any(|near| near == name) {
            return CliError::usage(
                format!("nobody offers a service `{name}`"),
                format!(
                    "`hilum ps {name}` shows whether it runs; a service without interfaces cannot be called"
                ),
            );
        }
    }
    CliError::UnknownService { name: name.to_owned(), nearest: near, known }
}

/// Why what the node keeps under this name (a service, or one instance) cannot be called now; `None` = it keeps no such thing.
pub(super) fn not_callable(name: &str, snapshot: &Snapshot) -> Option<CliError> {
    let is_meant =
        |one: &&InstanceStatus| one.service.as_str() == name || one.instance.to_string() == name;
    let meant: Vec<&InstanceStatus> = snapshot.instances.iter().filter(is_meant).collect();
    let is_service = snapshot.services.iter().any(|service| service.name.as_str() == name);
    if meant.is_empty() && !is_service {
        return None;
    }
    let up = |one: &&InstanceStatus| one.state == State::Running && !is_paused(one);
    if !meant.is_empty() && meant.iter().all(up) {
        return Some(CliError::usage(
            format!("`{name}` runs, but has no RPC endpoint"),
            "only services with interfaces can be called: programs on hilum-worker, or lymph's",
        ));
    }
    let states: Vec<String> = meant.iter().map(|one| state(one)).collect();
    let states =
        if states.is_empty() { "it has no instances".to_owned() } else { states.join("; ") };
    let help = if meant.is_empty() {
        format!("`hilum scale {name}=1` starts one")
    } else if meant.iter().all(|one| one.state == State::Stopped) {
        format!("`hilum start {name}` starts it")
    } else {
        format!("`hilum why {name}` says what comes next")
    };
    Some(CliError::NoneAlive { name: name.to_owned(), states, help })
}

/// Whether it is stopped by a signal or a debugger: it cannot answer.
fn is_paused(one: &InstanceStatus) -> bool {
    one.flags.contains(&Flag::Paused)
}

/// `echo.2 is in backoff (exit 3, next try in 1.7s)`.
fn state(one: &InstanceStatus) -> String {
    if is_paused(one) {
        return format!("{} is paused", one.instance);
    }
    let at = if one.state == State::Backoff { "in " } else { "" };
    let reason = one.reason.as_deref().filter(|reason| *reason != one.state.as_str());
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{} is {at}{}{reason}", one.instance, one.state.as_str())
}

/// A registry that does not answer.
pub(super) fn unreachable(error: RegistryError) -> CliError {
    let help = matches!(error, RegistryError::Unreachable { .. }).then(|| {
        "`container.registry` of the configuration says where it is; what the node here runs is shown by `hilum ps`, and called \
         without the registry as `hilum request SUBJECT --address NAME.1`"
            .to_owned()
    });
    CliError::Call { error: Box::new(Error::Registry(error)), help, trace_id: None }
}

/// Why a method may have refused a call, as far as its description tells.
pub(super) fn why_refused(asked: &Subject, body: &Value, methods: &[Method]) -> String {
    wrong_word(asked, body, methods).unwrap_or_else(|| {
        let method = methods.iter().find(|method| method.name == asked.name);
        let signature = method.map(Method::signature).unwrap_or_default();
        format!("it is `{signature}`; the log of the service says why it refused")
    })
}

/// What a method's description says against a call, so that another word is needed.
pub(super) fn wrong_word(asked: &Subject, body: &Value, methods: &[Method]) -> Option<String> {
    if let Some(why) = wrong_version(asked, methods) {
        return Some(why);
    }
    let subject = asked.name.as_str();
    let named: Vec<&Method> = methods.iter().filter(|method| method.name == subject).collect();
    let Some(method) = named.first() else {
        let names: Vec<String> = methods
            .iter()
            .map(|method| method.name.clone())
            .filter(|name| !is_builtin(name) || is_builtin(subject))
            .collect();
        let near = nearest(subject, &names);
        return Some(match (near.first(), names.is_empty()) {
            (Some(near), _) => format!("there is no `{subject}`; did you mean `{near}`?"),
            (None, false) => format!("there is no `{subject}`; there is `{}`", names.join("`, `")),
            (None, true) => "it has no methods".to_owned(),
        });
    };
    let given: Vec<&str> = match body {
        Value::Map(entries) => entries.iter().filter_map(|(key, _)| key.as_str()).collect(),
        _ => Vec::new(),
    };
    let is_known = |name: &&str| named.iter().any(|one| one.params.iter().any(|it| it == name));
    let signature = method.signature();
    if let Some(unknown) = given.iter().find(|name| !is_known(name)) {
        return Some(format!("it has no parameter `{unknown}`: it is `{signature}`"));
    }
    let is_missing = |name: &str| !given.contains(&name) && !method.is_optional(name);
    let missing: Vec<&str> =
        method.params.iter().map(String::as_str).filter(|name| is_missing(name)).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "`{}` not given: it is `{signature}`; the log of the service says why it refused",
            missing.join("`, `")
        )
    })
}

/// Who is asked at an address is not chosen by the version that is asked for.
fn wrong_version(asked: &Subject, methods: &[Method]) -> Option<String> {
    let wanted = asked.version.as_ref()?;
    let of_interface = |method: &&Method| {
        method.name.rsplit_once('.').is_some_and(|(interface, _)| interface == asked.interface)
    };
    let served: BTreeSet<_> = methods.iter().filter(of_interface).map(Method::version).collect();
    if served.is_empty() || served.iter().any(|version| wanted.admits(*version)) {
        return None;
    }
    let served: Vec<&str> = served.into_iter().map(|one| one.unwrap_or("no version")).collect();
    Some(format!(
        "it serves `{}` in {}, which is not compatible with {wanted}; ask for what it serves, or leave `@{wanted}` out",
        asked.interface,
        served.join(" and ")
    ))
}

fn is_builtin(subject: &str) -> bool {
    subject.rsplit_once('.').is_some_and(|(interface, _)| interface == BUILTIN)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hilum_shared::rpc::LinkError;

    use super::*;

    #[test]
    fn a_connection_that_was_lost_had_reached_somebody_and_one_that_was_not_made_had_not() {
        let (address, source) = ("tcp://h:1".to_owned(), Arc::new(LinkError::Closed));
        let subject = "a.b".to_owned();
        let lost = Error::Lost { address: address.clone(), subject, source: Arc::clone(&source) };
        assert!(CallFailed::Rpc(lost).reached_somebody());
        let absent = Error::NotConnected { address, source };
        assert!(!CallFailed::Rpc(absent).reached_somebody());
    }

    fn methods() -> Vec<Method> {
        let method = |name: &str, params: &[&str]| Method {
            name: name.to_owned(),
            version: Some("None".to_owned()),
            params: params.iter().map(|name| (*name).to_owned()).collect(),
            optional: Vec::new(),
            raises: Vec::new(),
            help: String::new(),
        };
        vec![method("echo.upper", &["text"]), method("lymph.ping", &["payload"])]
    }

    #[test]
    fn what_a_node_keeps_is_told_with_its_states() {
        use crate::cli::ps::tests::{instance, service, snapshot};
        let mut echo = instance("echo.1", State::Backoff);
        echo.reason = Some("exit 3, next try in 1.7s".into());
        let mut paused = instance("held.1", State::Running);
        paused.flags = vec![Flag::Paused];
        let all = Snapshot {
            services: vec![service("echo", 2, 2), service("plain", 1, 1), service("none", 0, 0)],
            instances: vec![
                echo,
                instance("echo.2", State::Stopped),
                instance("plain.1", State::Running),
                paused,
            ],
            ..snapshot()
        };
        let told = |name: &str| not_callable(name, &all).map(|error| error.to_string());
        assert_eq!(
            told("echo").unwrap(),
            "none of `echo` is alive: echo.1 is in backoff (exit 3, next try in 1.7s); echo.2 is stopped"
        );
        assert_eq!(told("plain.1").unwrap(), "`plain.1` runs, but has no RPC endpoint");
        assert_eq!(told("held.1").unwrap(), "none of `held.1` is alive: held.1 is paused");
        assert_eq!(told("none").unwrap(), "none of `none` is alive: it has no instances");
        assert_eq!(told("zzz"), None);
    }

    #[test]
    fn a_refusal_is_explained_by_what_the_service_has() {
        let body = Value::map([("text", Value::from("x"))]);
        let why = |subject: &str, body: &Value| {
            why_refused(&Subject::parse(subject).unwrap(), body, &methods())
        };
        assert_eq!(why("echo.uper", &body), "there is no `echo.uper`; did you mean `echo.upper`?");
        assert_eq!(why("zzz.q", &body), "there is no `zzz.q`; there is `echo.upper`");
        let slip = Value::map([("txet", Value::from("x"))]);
        assert_eq!(
            why("echo.upper", &slip),
            "it has no parameter `txet`: it is `echo.upper(text)`"
        );
        assert!(why("echo.upper", &body).contains("the log of the service"));
        let mut lenient = methods();
        lenient[0].params.push("times".to_owned());
        lenient[0].optional.push("times".to_owned());
        let asked = Subject::parse("echo.upper").unwrap();
        let why_lenient = why_refused(&asked, &body, &lenient);
        assert!(why_lenient.starts_with("it is `echo.upper(text, times=nil)`"), "{why_lenient}");
        let nothing = Value::Map(Vec::new());
        let why_lenient = why_refused(&asked, &nothing, &lenient);
        assert!(why_lenient.starts_with("`text` not given"), "{why_lenient}");
        assert!(why("echo.upper", &nothing).starts_with("`text` not given"));
        assert!(why("echo.upper@1.2", &body).starts_with(
            "it serves `echo` in no version, which is not compatible with 1.2.0; ask for"
        ));
        let mut two = methods();
        two[0].version = Some("1.5.0".to_owned());
        two.push(Method { version: Some("2.0.0".to_owned()), ..two[0].clone() });
        let why = |subject: &str| why_refused(&Subject::parse(subject).unwrap(), &body, &two);
        assert!(why("echo.upper@3.0").starts_with("it serves `echo` in 1.5.0 and 2.0.0, which"));
        assert!(why("echo.upper@1.2").contains("the log of the service"), "it fits");
    }
}
