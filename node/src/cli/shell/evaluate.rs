//! From an expression to its value: variables are looked up, services are called.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use hilum_shared::rpc::CallOptions;
use hilum_shared::wire::message::new_id;
use hilum_shared::wire::{JsonError, Value};
use serde_json::{Value as Json, json};

use super::super::caller::{Caller, Place};
use super::super::exit::CliError;
use super::super::request::Subject;
use super::super::target::nearest;
use super::language::{self, Expr};

/// What lines leave behind for later ones, and how they call.
pub(super) struct Scope<'a, 'b> {
    pub(super) caller: &'a Caller<'b>,
    /// Whom all calls go to, where it is not up to their subjects.
    pub(super) remote: Option<Place>,
    pub(super) timeout: Duration,
    pub(super) variables: BTreeMap<String, Value>,
}

/// Why an expression has no value.
pub(super) enum Wrong {
    /// A value in it that is none, with its place in the whole.
    Value(JsonError),
    /// Anything else.
    Other(CliError),
}

impl Wrong {
    /// The same, seen from one level further out.
    fn within(self, step: impl Display) -> Self {
        match self {
            Self::Value(error) => Self::Value(error.within(step)),
            Self::Other(error) => Self::Other(error),
        }
    }
}

impl From<CliError> for Wrong {
    fn from(error: CliError) -> Self {
        Self::Other(error)
    }
}

impl From<JsonError> for Wrong {
    fn from(error: JsonError) -> Self {
        Self::Value(error)
    }
}

impl From<Wrong> for CliError {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Value(error) => Self::Usage { message: error.to_string(), help: None },
            Wrong::Other(error) => error,
        }
    }
}

type Evaluated<'a> = Pin<Box<dyn Future<Output = Result<Value, Wrong>> + 'a>>;

impl Scope<'_, '_> {
    /// The value of an expression.
    pub(super) fn value<'a>(&'a self, expr: &'a Expr) -> Evaluated<'a> {
        Box::pin(async move {
            match expr {
                Expr::Literal(value) => Ok(value.clone()),
                Expr::Name(name) => Ok(self.variable(name)?),
                Expr::List(members) => self.values(members).await.map(Value::List),
                Expr::Map(pairs) => self.map(pairs).await,
                Expr::Special(name, arguments) => {
                    if let [Expr::Name(word)] = arguments.as_slice()
                        && !self.variables.contains_key(word)
                    {
                        return Err(no_special(name, word).into());
                    }
                    let arguments = self.values(arguments).await?;
                    Ok(special(name, &arguments)?)
                }
                Expr::Call(subject, parameters) => {
                    let mut body = Vec::with_capacity(parameters.len());
                    for (name, value) in parameters {
                        let value = self.value(value).await.map_err(|wrong| wrong.within(name))?;
                        body.push((name.as_str(), value));
                    }
                    let subject = Subject::parse(subject)?;
                    Ok(self.call(&subject, None, self.timeout, &Value::map(body)).await?)
                }
                Expr::Item(of, key) => Ok(item(&self.value(of).await?, &self.value(key).await?)?),
            }
        })
    }

    async fn values(&self, all: &[Expr]) -> Result<Vec<Value>, Wrong> {
        let mut values = Vec::with_capacity(all.len());
        for (at, one) in all.iter().enumerate() {
            let value = self.value(one).await;
            values.push(value.map_err(|wrong| wrong.within(format_args!("[{at}]")))?);
        }
        Ok(values)
    }

    /// A map, which may be the JSON form of a special value.
    async fn map(&self, pairs: &[(Expr, Expr)]) -> Result<Value, Wrong> {
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let key = self.value(key).await?;
            let named = |wrong: Wrong| match key.as_str() {
                Some(name) => wrong.within(name),
                None => wrong.within(&key),
            };
            let value = self.value(value).await.map_err(named)?;
            entries.push((key, value));
        }
        let map = Value::Map(entries).with_each_key_once()?;
        let Value::Map(entries) = &map else { return Ok(map) };
        // Only a map with this key can be another value's form.
        let is_form = entries.iter().any(|(key, _)| key.as_str() == Some("__type__"));
        if !is_form || entries.iter().any(|(key, _)| key.as_str().is_none()) {
            return Ok(map);
        }
        let text = |key: &Value| key.as_str().unwrap_or_default().to_owned();
        let object: serde_json::Map<_, _> =
            entries.iter().map(|(key, value)| (text(key), value.to_json())).collect();
        Ok(Value::from_json(&object.into())?.with_each_key_once()?)
    }

    fn variable(&self, name: &str) -> Result<Value, CliError> {
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        let commands = super::COMMANDS.iter().map(|(name, _, _)| (*name).to_owned());
        let names: Vec<String> = self.variables.keys().cloned().chain(commands).collect();
        let help = match nearest(name, &names).first() {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("texts stand in quotes: \"{name}\"; `help` shows the commands"),
        };
        Err(CliError::usage(format!("there is no command or variable `{name}`"), help))
    }

    /// Calls a service.
    pub(super) async fn call(
        &self,
        subject: &Subject,
        address: Option<&str>,
        timeout: Duration,
        body: &Value,
    ) -> Result<Value, CliError> {
        let place = match (address, &self.remote) {
            (Some(address), _) => self.caller.place(address, timeout).await?,
            (None, Some(remote)) => remote.clone(),
            (None, None) => self.caller.place(&subject.interface, timeout).await?,
        };
        let body = &super::request::sendable(body.clone())?;
        let version = subject.version.clone();
        let trace_id = new_id();
        let options = CallOptions {
            version,
            timeout,
            trace_id: Some(trace_id.clone()),
            ..CallOptions::default()
        };
        match self.caller.call(&place, &subject.name, body, options).await {
            Ok(reply) => reply.message.unpack().map_err(|error| {
                CliError::failed(format!(
                    "`{}` answered something unreadable: {error}",
                    reply.address
                ))
            }),
            Err(failed) => Err(self.caller.explain(&place, subject, body, &trace_id, failed).await),
        }
    }
}

/// `x["name"]` of a map, `x[0]` and `x[-1]` of a list.
fn item(of: &Value, key: &Value) -> Result<Value, CliError> {
    let missing = || CliError::failed(format!("it has no {key}"));
    match (of, key) {
        (Value::Map(entries), key) => {
            let found = entries.iter().find(|(name, _)| {
                name == key || (key.as_str().is_some() && name.as_str() == key.as_str())
            });
            found.map(|(_, value)| value.clone()).ok_or_else(missing)
        }
        (Value::List(members) | Value::Set(members), Value::Int(at)) => {
            let count = members.len() as i64;
            let at = if *at < 0 { count.saturating_add(*at) } else { *at };
            let at = usize::try_from(at).map_err(|_| missing())?;
            members.get(at).cloned().ok_or_else(missing)
        }
        _ => Err(CliError::failed("only maps have fields, and lists a number")),
    }
}

/// `Decimal("1.50")`, by way of its JSON form.
fn special(name: &str, arguments: &[Value]) -> Result<Value, JsonError> {
    let (kind, content) = match (name, arguments) {
        ("Undefined", []) => ("UndefinedType", json!("")),
        ("set", [Value::List(members)]) => ("set", Value::List(each_once(members)).to_json()),
        ("set", members) => ("set", Value::List(each_once(members)).to_json()),
        ("ext", [number @ Value::Int(_), Value::Str(bytes)]) => {
            ("ext", json!([number.to_json(), bytes]))
        }
        (name, [Value::Str(text)]) => (name, json!(text)),
        (name, [number @ (Value::Int(_) | Value::UInt(_))]) => (name, json!(number.to_string())),
        (name, all) => {
            let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
            return Err(no_special(name, &shown.join(", ")));
        }
    };
    let shown = || match &content {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    Value::from_json(&json!({"__type__": kind, "_": content}))
        .map_err(|_| no_special(name, &shown()))
}

/// The members of a set, in the order in which they were written first.
fn each_once(members: &[Value]) -> Vec<Value> {
    let mut once: Vec<Value> = Vec::with_capacity(members.len());
    for member in members {
        if !once.contains(member) {
            once.push(member.clone());
        }
    }
    once
}

/// What stands in the brackets of a special value, and is none of them.
fn no_special(name: &str, content: &str) -> JsonError {
    JsonError::special(language::no_special(name, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_values_are_written_as_they_are_shown() {
        for (name, text, shown) in [
            ("Decimal", "1.50", "Decimal(1.50)"),
            ("date", "2015-03-14", "date(2015-03-14)"),
            ("datetime", "2015-03-14T09:26:53Z", "datetime(2015-03-14T09:26:53+0000)"),
            ("bytes", "00ff", "bytes(00ff)"),
        ] {
            let value = special(name, &[Value::from(text)]).unwrap();
            assert_eq!(value.to_string(), shown);
        }
        let set = special("set", &[Value::List(vec![1.into(), 2.into()])]).unwrap();
        assert_eq!(set.to_string(), "set(1, 2)");
        let again = special("set", &[2.into(), 1.into(), 2.into()]).unwrap();
        assert_eq!(again.to_string(), "set(2, 1)", "each member once");
        assert_eq!(special("Undefined", &[]).unwrap(), Value::Undefined);
        for (name, arguments, says) in [
            ("date", vec![Value::from("soon")], "`soon` is no `date` (write `date(2015-03-14)`)"),
            ("date", vec![], "`date` needs a value (write `date(2015-03-14)`)"),
            (
                "time",
                vec!["9".into(), 5.into()],
                "`\"9\", 5` is no `time` (write `time(09:26:53Z)`",
            ),
            ("UUID", vec![7.into()], "`7` is no `UUID` (write `UUID(8d5b7bbe-"),
        ] {
            let error = special(name, &arguments).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn fields_and_numbers_reach_into_values() {
        let value = Value::from_json(&json!({"names": ["a", "b"], "type": 7})).unwrap();
        let names = item(&value, &"names".into()).unwrap();
        assert_eq!(item(&names, &0.into()).unwrap(), "a".into());
        assert_eq!(item(&names, &Value::Int(-1)).unwrap(), "b".into());
        assert_eq!(item(&value, &"type".into()).unwrap(), 7.into());
        for (of, key) in [(&names, Value::Int(2)), (&names, Value::Int(-3)), (&value, "x".into())] {
            assert!(item(of, &key).is_err());
        }
    }
}
