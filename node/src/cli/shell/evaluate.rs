//! From an expression to its value: variables are looked up, services are called.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use hilum_shared::rpc::CallOptions;
use hilum_shared::wire::Value;
use serde_json::json;

use super::super::caller::{Caller, Place};
use super::super::exit::CliError;
use super::super::request::Subject;
use super::super::target::nearest;
use super::language::Expr;

/// What lines leave behind for later ones, and how they call.
pub(super) struct Scope<'a, 'b> {
    pub(super) caller: &'a Caller<'b>,
    /// Whom all calls go to, where it is not up to their subjects.
    pub(super) remote: Option<Place>,
    pub(super) timeout: Duration,
    pub(super) variables: BTreeMap<String, Value>,
}

type Evaluated<'a> = Pin<Box<dyn Future<Output = Result<Value, CliError>> + 'a>>;

impl Scope<'_, '_> {
    /// The value of an expression.
    pub(super) fn value<'a>(&'a self, expr: &'a Expr) -> Evaluated<'a> {
        Box::pin(async move {
            match expr {
                Expr::Literal(value) => Ok(value.clone()),
                Expr::Name(name) => self.variable(name),
                Expr::List(members) => self.values(members).await.map(Value::List),
                Expr::Map(pairs) => self.map(pairs).await,
                Expr::Special(name, arguments) => {
                    let arguments = self.values(arguments).await?;
                    special(name, &arguments)
                }
                Expr::Call(subject, parameters) => {
                    let mut body = Vec::with_capacity(parameters.len());
                    for (name, value) in parameters {
                        body.push((name.as_str(), self.value(value).await?));
                    }
                    self.call(&Subject::parse(subject)?, None, self.timeout, &Value::map(body))
                        .await
                }
                Expr::Item(of, key) => item(&self.value(of).await?, &self.value(key).await?),
            }
        })
    }

    async fn values(&self, all: &[Expr]) -> Result<Vec<Value>, CliError> {
        let mut values = Vec::with_capacity(all.len());
        for one in all {
            values.push(self.value(one).await?);
        }
        Ok(values)
    }

    /// A map, which may be the JSON form of a special value.
    async fn map(&self, pairs: &[(Expr, Expr)]) -> Result<Value, CliError> {
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            entries.push((self.value(key).await?, self.value(value).await?));
        }
        let doubled = entries
            .iter()
            .enumerate()
            .find(|(at, (key, _))| entries[..*at].iter().any(|(before, _)| before == key));
        if let Some((_, (key, _))) = doubled {
            return Err(CliError::usage(format!("the key {key} stands twice"), "leave one out"));
        }
        // Only a map with this key can be another value's form.
        let is_form = entries.iter().any(|(key, _)| key.as_str() == Some("__type__"));
        if !is_form || entries.iter().any(|(key, _)| key.as_str().is_none()) {
            return Ok(Value::Map(entries));
        }
        let text = |key: &Value| key.as_str().unwrap_or_default().to_owned();
        let object: serde_json::Map<_, _> =
            entries.iter().map(|(key, value)| (text(key), value.to_json())).collect();
        Value::from_json(&object.into())
            .map_err(|error| CliError::Usage { message: error.to_string(), help: None })
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
            (Some(address), _) => self.caller.place(address).await?,
            (None, Some(remote)) => remote.clone(),
            (None, None) => self.caller.place(&subject.interface).await?,
        };
        let version = subject.version.clone();
        let options = CallOptions { version, timeout, ..CallOptions::default() };
        match self.caller.call(&place, &subject.name, body, options).await {
            Ok(reply) => reply.message.unpack().map_err(|error| {
                CliError::failed(format!(
                    "`{}` answered something unreadable: {error}",
                    reply.address
                ))
            }),
            Err(failed) => Err(self.caller.explain(&place, &subject.name, body, failed).await),
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
fn special(name: &str, arguments: &[Value]) -> Result<Value, CliError> {
    let (kind, content) = match (name, arguments) {
        ("Undefined", []) => ("UndefinedType", json!("")),
        ("set", [Value::List(members)]) => ("set", Value::List(members.clone()).to_json()),
        ("set", members) => ("set", Value::List(members.to_vec()).to_json()),
        (name, [Value::Str(text)]) => (name, json!(text)),
        (name, [number @ (Value::Int(_) | Value::UInt(_))]) => (name, json!(number.to_string())),
        _ => {
            return Err(CliError::usage(
                format!("`{name}` takes one text"),
                "write it as it is shown, in quotes: `Decimal(\"1.50\")`",
            ));
        }
    };
    Value::from_json(&json!({"__type__": kind, "_": content})).map_err(|_| {
        CliError::usage(
            format!("{content} is no {name}"),
            "write it as it is shown, in quotes: `date(\"2015-03-14\")`",
        )
    })
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
        assert_eq!(special("Undefined", &[]).unwrap(), Value::Undefined);
        assert!(special("date", &[Value::from("soon")]).is_err());
        assert!(special("date", &[]).is_err());
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
