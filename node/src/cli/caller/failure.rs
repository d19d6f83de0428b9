//! Why a call brought no result, and what to do about it.

use hilum_shared::registry::{BUILTIN, RegistryError};
use hilum_shared::rpc::Error;
use hilum_shared::wire::Value;

use super::super::exit::CliError;
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
        CliError::Call { error: Box::new(error), help }
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

/// A registry that does not answer.
pub(super) fn unreachable(error: RegistryError) -> CliError {
    CliError::Failed { message: error.to_string(), help: None }
}

/// Why a method may have refused a call, as far as its description tells.
pub(super) fn why_refused(subject: &str, body: &Value, methods: &[Method]) -> String {
    let named: Vec<&Method> = methods.iter().filter(|method| method.name == subject).collect();
    let Some(method) = named.first() else {
        let names: Vec<String> = methods
            .iter()
            .map(|method| method.name.clone())
            .filter(|name| !is_builtin(name) || is_builtin(subject))
            .collect();
        let near = nearest(subject, &names);
        return match (near.first(), names.is_empty()) {
            (Some(near), _) => format!("there is no `{subject}`; did you mean `{near}`?"),
            (None, false) => format!("there is no `{subject}`; there is `{}`", names.join("`, `")),
            (None, true) => "it has no methods".to_owned(),
        };
    };
    let given: Vec<&str> = match body {
        Value::Map(entries) => entries.iter().filter_map(|(key, _)| key.as_str()).collect(),
        _ => Vec::new(),
    };
    let is_known = |name: &&str| named.iter().any(|one| one.params.iter().any(|it| it == name));
    let signature = method.signature();
    match given.into_iter().find(|name| !is_known(name)) {
        Some(unknown) => format!("it has no parameter `{unknown}`: it is `{signature}`"),
        None => format!("it is `{signature}`; the log of the service says why it refused"),
    }
}

fn is_builtin(subject: &str) -> bool {
    subject.rsplit_once('.').is_some_and(|(interface, _)| interface == BUILTIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods() -> Vec<Method> {
        let method = |name: &str, params: &[&str]| Method {
            name: name.to_owned(),
            version: Some("None".to_owned()),
            params: params.iter().map(|name| (*name).to_owned()).collect(),
            help: String::new(),
        };
        vec![method("echo.upper", &["text"]), method("lymph.ping", &["payload"])]
    }

    #[test]
    fn a_refusal_is_explained_by_what_the_service_has() {
        let body = Value::map([("text", Value::from("x"))]);
        let why = |subject: &str, body: &Value| why_refused(subject, body, &methods());
        assert_eq!(why("echo.uper", &body), "there is no `echo.uper`; did you mean `echo.upper`?");
        assert_eq!(why("zzz.q", &body), "there is no `zzz.q`; there is `echo.upper`");
        let slip = Value::map([("txet", Value::from("x"))]);
        assert_eq!(
            why("echo.upper", &slip),
            "it has no parameter `txet`: it is `echo.upper(text)`"
        );
        assert!(why("echo.upper", &body).contains("the log of the service"));
    }
}
