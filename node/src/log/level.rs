//! How grave a plain line is, as its program said it: `log.level_from` of the configuration.
//!
//! `auto` looks at the first bytes of a line, where the common forms have their level, and takes nothing for one that may
//! be prose. It runs once a line on the way to the store: no allocation, no regular expression.
//!
//! Structured records bring their level along.

use hilum_shared::config::spec::LevelFrom;
use hilum_shared::protocol::Level;
use regex::bytes::Regex;

use super::fields;

mod json;
mod text;

/// Where the level of a run's lines is found.
#[derive(Debug)]
pub enum Levels {
    /// In the common forms.
    Auto,
    /// Under this key of a JSON line, `log.level` also where `log` holds `level`.
    Json(String),
    /// In the first group, or else the whole match.
    Regex(Box<Regex>),
}

impl Levels {
    /// As the configuration says. An expression that is not valid (it was checked there) finds nothing.
    pub fn new(from: &LevelFrom) -> Self {
        match from {
            LevelFrom::Auto => Self::Auto,
            LevelFrom::Json(key) => Self::Json(key.clone()),
            LevelFrom::Regex(text) => match Regex::new(text) {
                Ok(regex) => Self::Regex(Box::new(regex)),
                Err(_) => Self::Json(String::new()),
            },
        }
    }

    /// The level of a plain line, where it is recognised.
    #[inline]
    pub fn of_line(&self, line: &[u8]) -> Option<Level> {
        match self {
            Self::Auto => auto(line),
            Self::Json(key) => json::under(line, key),
            Self::Regex(regex) => {
                let found = regex.captures(line)?;
                word(found.get(1).or_else(|| found.get(0))?.as_bytes())
            }
        }
    }
}

/// The level of a line in any of the common forms.
#[inline]
pub fn auto(line: &[u8]) -> Option<Level> {
    match line.first()? {
        b'{' => json::of_line(line),
        b'<' => syslog(line).or_else(|| text::of_line(line)),
        _ => text::of_line(line),
    }
}

/// The level that a worker's record names; unknown names count as INFO.
pub fn of_record(name: &str) -> Level {
    Level::parse(name).unwrap_or(Level::Info)
}

/// `<11>`: severity and facility of RFC 5424, as syslog and systemd read it from a line's beginning.
fn syslog(line: &[u8]) -> Option<Level> {
    let end = line.iter().take(5).position(|byte| *byte == b'>')?;
    let priority = number(line.get(1..end)?).filter(|priority| *priority < 192)?;
    of_severity(priority & 7)
}

/// The severities of RFC 5424.
fn of_severity(severity: u32) -> Option<Level> {
    Some(match severity {
        0..=2 => Level::Critical,
        3 => Level::Error,
        4 => Level::Warning,
        5 | 6 => Level::Info,
        7 => Level::Debug,
        _ => return None,
    })
}

/// A number of at most nine digits.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
}

/// No word for a level is longer.
const LONGEST: usize = 11;

/// The level that a word means, in any case.
pub fn word(text: &[u8]) -> Option<Level> {
    if text.len() < 3 {
        return None;
    }
    let mut lower = [0; LONGEST];
    let lower = lower.get_mut(..text.len())?;
    for (to, from) in lower.iter_mut().zip(text) {
        *to = from.to_ascii_lowercase();
    }
    Some(match &*lower {
        b"trace" | b"debug" | b"verbose" | b"fine" | b"finer" | b"finest" | b"trc" | b"dbg"
        | b"trce" | b"dbug" | b"debug1" | b"debug2" | b"debug3" | b"debug4" | b"debug5" => {
            Level::Debug
        }
        b"info" | b"information" | b"notice" | b"inf" | b"log" | b"note" | b"config" | b"ntc" => {
            Level::Info
        }
        b"warn" | b"warning" | b"wrn" => Level::Warning,
        b"error" | b"err" | b"eror" | b"severe" | b"fail" => Level::Error,
        b"critical" | b"crit" | b"fatal" | b"ftl" | b"panic" | b"pnc" | b"dpanic" | b"alert"
        | b"emerg" | b"emergency" => Level::Critical,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lines as these programs write them, and their levels.
    const SAMPLES: &[(&str, Option<Level>)] = &[
        // JSON: bunyan, pino, zap, slog, winston, python-json-logger, ECS, serilog, mongodb, GELF
        (r#"{"name":"app","hostname":"h","pid":1,"level":50,"msg":"x","v":0}"#, Some(Level::Error)),
        (
            r#"{"level":30,"time":1795232531123,"pid":9,"hostname":"h","msg":"up"}"#,
            Some(Level::Info),
        ),
        (r#"{"level":"warn","ts":1.79e9,"caller":"a.go:3","msg":"slow"}"#, Some(Level::Warning)),
        (r#"{"time":"2026-11-24T12:00:00Z","level":"INFO","msg":"hello"}"#, Some(Level::Info)),
        (r#"{"message":"no \"level\": here","severity":"CRITICAL"}"#, Some(Level::Critical)),
        (
            r#"{"asctime": "2026-11-24 12:00:00", "levelname": "DEBUG", "message": "x"}"#,
            Some(Level::Debug),
        ),
        (r#"{"levelno": 30, "msg": "python counts otherwise"}"#, Some(Level::Warning)),
        (
            r#"{"@timestamp":"2026","log":{"logger":"a","level":"ERROR"},"message":"x"}"#,
            Some(Level::Error),
        ),
        (r#"{"@timestamp":"2026","log.level":"error","message":"x"}"#, Some(Level::Error)),
        (r#"{"@t":"2026","@mt":"x","@l":"Fatal"}"#, Some(Level::Critical)),
        (r#"{"t":{"$date":"2026"},"s":"W",  "c":"NETWORK"}"#, Some(Level::Warning)),
        (r#"{"version":"1.1","short_message":"x","level":3}"#, Some(Level::Error)),
        (r#"{"player":"a","level":3}"#, None),
        (r#"{"nested":{"level":"error"},"msg":"not mine"}"#, None),
        (r#"{"level":"high"}"#, None),
        (r#"{"level":"#, None),
        // logfmt: logrus, go-kit, slog's text, Heroku
        (r#"time="2026-11-24T12:00:00Z" level=warning msg="slow disk""#, Some(Level::Warning)),
        ("ts=2026-11-24T12:00:00Z caller=main.go:3 level=info msg=up", Some(Level::Info)),
        ("time=2026-11-24T12:00:00.000Z level=ERROR msg=\"it broke\"", Some(Level::Error)),
        ("lvl=dbug msg=x", Some(Level::Debug)),
        ("user=3 level=error", Some(Level::Error)),
        ("level=error it broke", Some(Level::Error)),
        ("user=3 level=error is what it says", None),
        ("msg=\"level=error in a text\" id=3", None),
        // Python: basicConfig, the usual formats, Flask, gunicorn, uvicorn, celery, loguru, structlog
        ("WARNING:root:disk is nearly full", Some(Level::Warning)),
        ("ERROR:shop.cart:cannot pay", Some(Level::Error)),
        ("2026-11-24 12:00:00,123 - shop.cart - INFO - paid", Some(Level::Info)),
        ("2026-11-24 12:00:00,123 ERROR shop.cart: cannot pay", Some(Level::Error)),
        ("2026-11-24 12:00:00,123 shop.cart ERROR cannot pay", Some(Level::Error)),
        ("2026-11-24 12:00:00,123 [DEBUG] shop: x", Some(Level::Debug)),
        ("[2026-11-24 12:00:00,123] INFO in app: hello", Some(Level::Info)),
        ("[2026-11-24 12:00:00 +0000] [123] [CRITICAL] WORKER TIMEOUT", Some(Level::Critical)),
        ("INFO:     Started server process [123]", Some(Level::Info)),
        ("[2026-11-24 12:00:00,123: WARNING/MainProcess] x", Some(Level::Warning)),
        ("2026-11-24 12:00:00.123 | ERROR    | __main__:<module>:1 - x", Some(Level::Error)),
        ("2026-11-24 12:00:00 [info     ] paid    amount=3", Some(Level::Info)),
        // Rust: tracing plain and coloured, env_logger, pretty_env_logger
        ("2026-11-24T12:00:00.123456Z  INFO shop::cart: paid amount=3", Some(Level::Info)),
        (
            "\x1b[2m2026-11-24T12:00:00.123456Z\x1b[0m \x1b[33m WARN\x1b[0m \x1b[2mshop\x1b[0m\x1b[2m:\x1b[0m x",
            Some(Level::Warning),
        ),
        ("2026-11-24T12:00:00Z ERROR ThreadId(01) shop: x", Some(Level::Error)),
        ("[2026-11-24T12:00:00Z INFO  shop] paid", Some(Level::Info)),
        (
            "\x1b[90m[\x1b[0m2026-11-24T12:00:00Z \x1b[1m\x1b[31mERROR\x1b[0m shop\x1b[90m]\x1b[0m x",
            Some(Level::Error),
        ),
        (" INFO  shop > paid", Some(Level::Info)),
        ("                   INFO  shop > paid", Some(Level::Info)),
        ("--------------------- ERROR it broke", Some(Level::Error)),
        ("TRACE shop::cart: entering", Some(Level::Debug)),
        // Java: log4j, logback, Spring Boot, java.util.logging, Kafka, Elasticsearch
        ("2026-11-24 12:00:00,123 [main] INFO  com.shop.Cart - paid", Some(Level::Info)),
        ("12:00:00.123 [http-nio-8080-exec-1] ERROR c.s.Cart - no", Some(Level::Error)),
        ("2026-11-24T12:00:00.123Z  WARN 123 --- [main] c.s.Cart : x", Some(Level::Warning)),
        ("SEVERE: cannot pay", Some(Level::Error)),
        ("[2026-11-24 12:00:00,123] INFO started (kafka.server.KafkaServer)", Some(Level::Info)),
        ("[2026-11-24T12:00:00,123][WARN ][o.e.n.Node] [n] x", Some(Level::Warning)),
        ("[main] INFO com.shop.Cart - paid", Some(Level::Info)),
        // syslog: priorities, and files
        ("<11>shop: cannot pay", Some(Level::Error)),
        ("<6>shop: paid", Some(Level::Info)),
        ("<191>Nov 24 12:00:00 host shop: x", Some(Level::Debug)),
        ("<html>", None),
        ("<999>x", None),
        ("Nov 24 12:00:00 host sshd[123]: error: no route", Some(Level::Error)),
        ("Nov 24 12:00:00 host shop[123]: paid without error", None),
        // Go: klog and glog, zap's console, zerolog's console
        ("I1124 12:00:00.123456   123 main.go:3] up", Some(Level::Info)),
        ("E1124 12:00:00.123456   123 main.go:3] down", Some(Level::Error)),
        ("F1124 12:00:00.123456   123 main.go:3] dead", Some(Level::Critical)),
        ("E1124 is a part number", None),
        ("2026-11-24T12:00:00.123Z\tINFO\tshop/main.go:3\tup", Some(Level::Info)),
        ("1.795232531e+09\terror\tmain.go:3\tno", Some(Level::Error)),
        ("\x1b[90m12:00PM\x1b[0m \x1b[1m\x1b[31mERR\x1b[0m no", Some(Level::Error)),
        ("3:04PM INF up", Some(Level::Info)),
        ("panic: runtime error: index out of range", Some(Level::Critical)),
        // .NET, Ruby, PHP, Node
        ("info: Microsoft.Hosting.Lifetime[14]", Some(Level::Info)),
        ("fail: Shop.Cart[0]", Some(Level::Error)),
        ("[12:00:00 WRN] slow", Some(Level::Warning)),
        ("E, [2026-11-24T12:00:00.123456 #123] ERROR -- : no", Some(Level::Error)),
        ("PHP Fatal error:  Uncaught Exception", Some(Level::Critical)),
        ("PHP Warning:  x in y.php on line 3", Some(Level::Warning)),
        ("[24-Nov-2026 12:00:00] NOTICE: fpm is running, pid 1", Some(Level::Info)),
        ("npm ERR! code ELIFECYCLE", Some(Level::Error)),
        ("npm warn deprecated x", Some(Level::Warning)),
        ("Error: connect ECONNREFUSED", Some(Level::Error)),
        // servers: nginx, apache, redis, postgres, mysql, rabbitmq
        ("2026/11/24 12:00:00 [error] 123#0: *1 open() failed", Some(Level::Error)),
        ("2026/11/24 12:00:00 [notice] 1#1: start worker", Some(Level::Info)),
        ("[Tue Nov 24 12:00:00.123456 2026] [core:error] [pid 1] x", Some(Level::Error)),
        ("123:M 24 Nov 2026 12:00:00.123 # WARNING overcommit", Some(Level::Warning)),
        ("123:C 24 Nov 2026 12:00:00.123 * Ready to accept", Some(Level::Info)),
        (
            "2026-11-24 12:00:00.123 UTC [123] ERROR:  relation \"x\" does not exist",
            Some(Level::Error),
        ),
        ("2026-11-24 12:00:00.123 UTC [123] shop@db FATAL:  no", Some(Level::Critical)),
        ("2026-11-24 12:00:00.123 CET [123] LOG:  ready", Some(Level::Info)),
        ("2026-11-24T12:00:00.123456Z 0 [Warning] [MY-010068] x", Some(Level::Warning)),
        ("2026-11-24 12:00:00.123456+00:00 [info] <0.1.0> up", Some(Level::Info)),
        ("error: cannot find value `x` in this scope", Some(Level::Error)),
        ("warning: unused variable", Some(Level::Warning)),
        ("error[E0425]: cannot find value `x`", Some(Level::Error)),
        ("src/main.c:3:5: error: expected `;`", Some(Level::Error)),
        ("file.c:3:5: fatal error: no.h: No such file", Some(Level::Error)),
        ("a/b.ts:12: warning: unused", Some(Level::Warning)),
        ("file.c:3: no error: here", None),
        ("error[0] was seen", None),
        (r#"{"Level":"Error","Message":"x"}"#, Some(Level::Error)),
        // prose
        ("no error here", None),
        ("there was an ERROR in it", None),
        ("Error handling is hard", None),
        ("Warning signs were seen", None),
        ("Info", None),
        ("error", None),
        ("errors: 0", None),
        ("informational", None),
        ("INFORMATION desk", None),
        ("2026-11-24 12:00:00 the request ended in error", None),
        ("2026-11-24 12:00:00 all tests ran, no ERROR found", None),
        ("12 errors", None),
        ("5 ERROR lines", None),
        ("000000000001 xxxxxxxxxxxxxxxxxxxxxxxxx", None),
        ("127.0.0.1 - - [24/Nov/2026:12:00:00 +0000] \"GET /error HTTP/1.1\" 200 3", None),
        ("GET /warning 200", None),
        ("", None),
        ("   ", None),
        ("\x1b[31mred\x1b[0m", None),
        ("\x1b", None),
        ("[", None),
        ("{", None),
    ];

    #[test]
    fn the_common_forms_are_recognised_and_prose_is_not() {
        let wrong: Vec<String> = SAMPLES
            .iter()
            .filter(|(line, level)| auto(line.as_bytes()) != *level)
            .map(|(line, level)| format!("{line:?}: {:?}, not {level:?}", auto(line.as_bytes())))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_key_of_json_lines_can_be_named() {
        let levels = Levels::new(&LevelFrom::Json("grade".into()));
        assert_eq!(levels.of_line(br#"{"level":"info","grade":"error"}"#), Some(Level::Error));
        assert_eq!(levels.of_line(br#"{"grade":40}"#), Some(Level::Warning));
        assert_eq!(levels.of_line(b"ERROR: no JSON"), None);
        let nested = Levels::new(&LevelFrom::Json("event.severity".into()));
        assert_eq!(
            nested.of_line(br#"{"event":{"id":1,"severity":"warn"}}"#),
            Some(Level::Warning)
        );
        assert_eq!(nested.of_line(br#"{"event.severity":"crit"}"#), Some(Level::Critical));
    }

    #[test]
    fn an_expression_finds_the_level_by_its_first_group() {
        let levels = Levels::new(&LevelFrom::Regex(r"^\S+ sev=(\w+)".into()));
        assert_eq!(levels.of_line(b"app sev=Err x"), Some(Level::Error));
        assert_eq!(levels.of_line(b"app sev=odd x"), None);
        assert_eq!(levels.of_line(b"ERROR: x"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(
            prop_oneof![
                any::<u8>(), Just(b'"'), Just(b'{'), Just(b'\\'), Just(b'['), Just(b'\x1b'), Just(b'='), Just(b'1'), Just(b' '),
            ], 0..80))
        {
            auto(&bytes);
            Levels::Json("a.b".into()).of_line(&bytes);
        }
    }
}
