use super::*;

fn parse(line: &str) -> Result<Statement, String> {
    read(line, &["discover", "request", "change-loglevel"]).map_err(|error| error.to_string())
}

fn text(text: &str) -> Expr {
    Expr::Literal(Value::from(text))
}

#[test]
fn a_line_is_a_command_an_assignment_or_an_expression() {
    let command = |name: &str, rest: &str| Ok(Statement::Command(name.into(), rest.into()));
    assert_eq!(parse("discover echo"), command("discover", "echo"));
    assert_eq!(parse(" change-loglevel echo -l info"), command("change-loglevel", "echo -l info"));
    assert_eq!(parse("request a.b {\"x\": 1}"), command("request", "a.b {\"x\": 1}"));
    assert_eq!(
        parse("discover = 1"),
        Ok(Statement::Assign("discover".into(), Expr::Literal(1.into())))
    );
    assert_eq!(parse("  # nothing"), Ok(Statement::Nothing));
    assert_eq!(parse("x"), Ok(Statement::Show(Expr::Name("x".into()))));
    assert!(matches!(parse("x[0].name  # first"), Ok(Statement::Show(Expr::Item(..)))));
}

#[test]
fn calls_are_written_as_in_lymph() {
    let call = Expr::Call("job.echo.upper".into(), vec![("text".into(), text("it's"))]);
    assert_eq!(
        parse("x = proxy.job.echo.upper(text=\"it's\")"),
        Ok(Statement::Assign("x".into(), call.clone()))
    );
    assert_eq!(parse(r"proxy.job.echo.upper( text = 'it\'s', )"), Ok(Statement::Show(call)));
    let nested = parse("proxy.a.b(c=proxy.d.e(), f=[1, {'g': None}], h=x)").unwrap();
    assert!(matches!(nested, Statement::Show(Expr::Call(_, arguments)) if arguments.len() == 3));
}

#[test]
fn a_version_stands_behind_the_service_or_the_method() {
    for line in ["proxy.job.echo@1.2.upper(x=1)", "proxy.job.echo.upper@1.2(x=1)"] {
        let Ok(Statement::Show(Expr::Call(subject, _))) = parse(line) else { panic!("{line}") };
        assert_eq!(subject, "job.echo.upper@1.2");
    }
    assert_eq!(with_version_behind("echo@1.2"), "echo@1.2", "no method yet");
}

#[test]
fn a_value_is_read_as_it_is_shown() {
    let tagged = |kind: &str, text: &str| json!({"__type__": kind, "_": text});
    for json in [
        json!([null, true, -7, u64::MAX, 1.0, 1e300, "a\"\n'"]),
        tagged("Decimal", "1.50"),
        tagged("Decimal", "NaN"),
        tagged("date", "2015-03-14"),
        tagged("datetime", "2015-03-14T09:26:53Z"),
        tagged("time", "09:26:53Z"),
        tagged("UUID", "8d5b7bbe-9bd8-4c4b-a2e3-6a7c8d1f0e55"),
        tagged("bytes", "00ff"),
        tagged("bytes", "abcdef"),
        tagged("bytes", ""),
        tagged("float", "inf"),
        tagged("float", "-inf"),
        tagged("UndefinedType", ""),
        json!({"__type__": "ext", "_": [7, "00ff"]}),
    ] {
        let value = Value::from_json(&json).unwrap();
        let shown = value.to_string();
        let read = expression(&shown).map(|expr| literal(&expr)).unwrap();
        assert_eq!(read, value, "{shown}");
    }
    assert!(matches!(expression("date(x)"), Ok(Expr::Special(..))), "a variable");
    assert!(matches!(expression("set(1, Decimal(2))"), Ok(Expr::Special(_, of)) if of.len() == 2));
}

/// The value of an expression that is one already, or a list of such.
fn literal(expr: &Expr) -> Value {
    match expr {
        Expr::Literal(value) => value.clone(),
        Expr::List(members) => Value::List(members.iter().map(literal).collect()),
        other => panic!("no literal: {other:?}"),
    }
}

#[test]
fn a_parameter_may_stand_where_a_call_begins_or_behind_a_comma() {
    let within = |line| parameters(line).map(|(subject, _)| subject);
    assert_eq!(within("x = proxy.echo.upper("), Some("echo.upper".into()));
    assert_eq!(within("proxy.echo@1.2.upper(a=\"(\", "), Some("echo.upper@1.2".into()));
    assert_eq!(within("proxy.a.b(x=proxy.c.d("), Some("c.d".into()));
    assert_eq!(within("proxy.a.b(x=proxy.c.d(), "), Some("a.b".into()));
    for line in ["", "proxy.a.b(x=", "proxy.a.b(x=[1, ", "date(", "proxy.a.b()", "proxy.a.b(\""] {
        assert_eq!(within(line), None, "{line}");
    }
}

#[test]
fn a_word_with_something_behind_it_wants_to_be_a_command() {
    assert_eq!(unknown_command(" discovr echo"), Some("discovr"));
    assert_eq!(unknown_command("log-level echo -l info"), Some("log-level"));
    for line in ["x", "x = 1", "x [0]", "1 2", "proxy.a.b() 1", "x # why"] {
        assert_eq!(unknown_command(line), None, "{line}");
    }
}

#[test]
fn json_is_an_expression() {
    let json = r#"{"a": [1, -2.5, 1e3, true, false, null], "b": {"\u00e4\n": "\"'"}}"#;
    assert!(matches!(expression(json), Ok(Expr::Map(entries)) if entries.len() == 2));
}

#[test]
fn slips_are_told_with_their_column() {
    let said = |line: &str| parse(line).unwrap_err();
    assert_eq!(
        said("proxy.echo(x=1)"),
        "a call is `proxy.SERVICE.METHOD(parameter=value)` in column 6"
    );
    assert_eq!(
        said("proxy.echo.upper(\"x\")"),
        "parameters go by name, `text=\"foo\"` in column 18"
    );
    assert_eq!(said("x = [1 2]"), "`,` or `]` expected, found `2` in column 8");
    assert_eq!(said("x = "), "a value expected, but the line ends in column 5");
    assert_eq!(
        said("upper(1)"),
        "`upper` cannot be called; write `proxy.SERVICE.METHOD(…)` in column 1"
    );
    assert_eq!(said("\"abc"), "a text without its closing quote in column 1");
    assert_eq!(
        said("date(2015-13-14)"),
        "`2015-13-14` is no `date` (write `date(2015-03-14)`) in column 6"
    );
    assert!(
        said("proxy.a.b(c=time(25:00))")
            .starts_with("`25:00` is no `time` (write `time(09:26:53Z)`")
    );
    assert!(said("UUID(8d5b-x)").starts_with("`8d5b-x` is no `UUID` (write `UUID(8d5b7bbe-"));
    assert_eq!(said("Decimal([1 2])"), "`,` or `]` expected, found `2` in column 12");
    assert!(said("1.2.3").contains("no number"));
    assert!(said("proxy = 1").contains("cannot be a variable"));
    assert!(said(&"[".repeat(100_000)).contains("too deep"));
    assert!(said(&format!("x{}", "[0]".repeat(100_000))).contains("too many"));
}

#[test]
fn a_line_goes_on_while_a_bracket_is_open() {
    assert!(is_open("proxy.a.b(") && is_open("{\"a\": [1,"));
    assert!(!is_open("x = \"(\"") && !is_open(r#""\"(""#) && !is_open("x # (") && !is_open("a)"));
}
