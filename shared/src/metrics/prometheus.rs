//! The text that Prometheus reads, format 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use super::series::{Kind, Series, Value};

/// The `Content-Type` of [`to_prometheus`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names by which every dashboard knows figures of a process.
const KNOWN: [(&str, &str); 4] = [
    ("proc.mem.rss", "process_resident_memory_bytes"),
    ("proc.mem.vms", "process_virtual_memory_bytes"),
    ("proc.files.count", "process_open_fds"),
    ("proc.files.soft_limit", "process_max_fds"),
];

/// All series as Prometheus' text. `rpc.timeout_count` becomes `rpc_timeout_count`, and a counter ends in `_total`. A
/// tag without a value is left out; of two series that would be the same the first is told.
pub fn to_prometheus(series: &[Series]) -> String {
    // All lines of one name stand together, under one head.
    let mut families: BTreeMap<String, Vec<&Series>> = BTreeMap::new();
    for one in series {
        families.entry(metric_name(one)).or_default().push(one);
    }
    let mut text = String::with_capacity(96 * series.len());
    for (name, family) in families {
        let first = family[0];
        if let Some(help) = family.iter().map(|one| &one.help).find(|help| !help.is_empty()) {
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            let _ = writeln!(text, "# HELP {name} {help}"); // a String takes everything
        }
        let kind = match first.kind {
            kind if family.iter().any(|one| one.kind != kind) => "untyped",
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Unknown => "untyped",
        };
        let _ = writeln!(text, "# TYPE {name} {kind}");
        let mut told = HashSet::new();
        for one in family {
            let labels = labels(one);
            if told.insert(labels.clone()) {
                let _ = writeln!(text, "{name}{labels} {}", number(one.value));
            }
        }
    }
    text
}

fn metric_name(series: &Series) -> String {
    if let Some((_, known)) = KNOWN.iter().find(|(name, _)| *name == series.name) {
        return (*known).to_owned();
    }
    let mut name = identifier(&series.name);
    if series.kind == Kind::Counter && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

/// Of any text a name of `[a-zA-Z_][a-zA-Z0-9_]*`. A colon is for the rules of those who read.
fn identifier(text: &str) -> String {
    let mut name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

fn labels(series: &Series) -> String {
    let mut pairs: BTreeMap<String, &str> = BTreeMap::new();
    for (name, value) in series.tags.iter() {
        // Two underscores in front are Prometheus' own.
        let name = identifier(name);
        let name = match name.trim_start_matches('_') {
            rest if name.starts_with("__") => format!("_{rest}"),
            _ => name,
        };
        if let Some(value) = value {
            pairs.entry(name).or_insert(value);
        }
    }
    if pairs.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| {
            let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

fn number(value: Value) -> String {
    match value {
        Value::Int(value) => value.to_string(),
        Value::Float(value) if value.is_nan() => "NaN".to_owned(),
        Value::Float(value) if value.is_infinite() => {
            if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
        }
        Value::Float(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tags;
    use super::*;

    fn series(
        name: &str,
        value: impl Into<Value>,
        kind: Kind,
        tags: &[(&str, &str)],
        help: &str,
    ) -> Series {
        let tags = tags.iter().fold(Tags::none(), |tags, (name, value)| {
            tags.with((*name).to_owned(), Some((*value).to_owned()))
        });
        Series {
            name: name.to_owned().into(),
            value: value.into(),
            tags,
            kind,
            help: help.to_owned().into(),
        }
    }

    #[test]
    fn names_types_help_and_escapes_follow_the_format() {
        let all = [
            series(
                "rpc",
                2_i64,
                Kind::Counter,
                &[("subject", "echo.upper")],
                "Calls \\ one\nline.",
            ),
            series("queue.depth-max", 1.5, Kind::Gauge, &[], ""),
            series("rpc", 3_i64, Kind::Counter, &[("subject", "a\"b\\c\nd")], ""),
            series(
                "9lives",
                f64::NAN,
                Kind::Unknown,
                &[("1x", "é"), ("__own", "y"), ("a.b", "z")],
                "",
            ),
            series("jobs_total", f64::INFINITY, Kind::Counter, &[], ""),
            series("cold", f64::NEG_INFINITY, Kind::Gauge, &[], ""),
            series("proc.mem.rss", 4096_i64, Kind::Gauge, &[], "Resident memory."),
        ];
        let wanted = r#"# TYPE _9lives untyped
_9lives{_1x="é",_own="y",a_b="z"} NaN
# TYPE cold gauge
cold -Inf
# TYPE jobs_total counter
jobs_total +Inf
# HELP process_resident_memory_bytes Resident memory.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 4096
# TYPE queue_depth_max gauge
queue_depth_max 1.5
# HELP rpc_total Calls \\ one\nline.
# TYPE rpc_total counter
rpc_total{subject="echo.upper"} 2
rpc_total{subject="a\"b\\c\nd"} 3
"#;
        assert_eq!(to_prometheus(&all), wanted);
        assert_eq!(to_prometheus(&[]), "");
    }

    #[test]
    fn one_name_has_one_head_and_no_series_comes_twice() {
        let all = [
            series("a.b", 1_i64, Kind::Gauge, &[("t", "1")], ""),
            series("other", 5_i64, Kind::Gauge, &[], ""),
            series("a_b", 2_i64, Kind::Unknown, &[("t", "2")], "Late."),
            series("a-b", 3_i64, Kind::Gauge, &[("t", "1")], ""),
        ];
        let wanted = "# HELP a_b Late.\n# TYPE a_b untyped\na_b{t=\"1\"} 1\na_b{t=\"2\"} 2\n# TYPE other gauge\nother 5\n";
        assert_eq!(to_prometheus(&all), wanted);
    }

    #[test]
    fn a_tag_without_a_value_is_left_out() {
        let mut one = series("a", 1_i64, Kind::Gauge, &[], "");
        one.tags = Tags::none().with("service", None);
        assert_eq!(to_prometheus(&[one]), "# TYPE a gauge\na 1\n");
    }
}
