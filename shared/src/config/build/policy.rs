//! How the processes of a service are looked after.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::keys::service::{DEPENDENCY, HOOK, RELOAD, RUN};
use super::super::raw::join;
use super::super::spec::{
    AliveCheck, AliveKind, Color, Condition, Dependency, Diagnose, Hook, Hooks, Kind, LevelFrom,
    LogPolicy, MaxAge, Multiline, OnDependencyRestart, OnFailure, Overlap, Policy, Probe, Quorum,
    ReadyCheck, ReadyKind, ReloadVia, RestartPolicy, RestartWhen, Rolling, RollingFailure,
    Schedule, ScheduleWhen, StopPolicy, Watch, WatchAction,
};
use super::super::template::Template;
use super::super::tree::Node;
use super::Builder;
use super::section::Section;
use crate::name::ServiceName;
use crate::run_dir::MAX_SOCKET_PATH;
use crate::signal::Signal;
use crate::units::Bytes;

impl Builder<'_> {
    /// All of it. `depends_on` conditions that are not given are settled later, when all services are known.
    pub(super) fn policy(&mut self, section: &Section<'_>, path: &str) -> Policy {
        let kind = match section.text("kind") {
            Some("job") => Kind::Job,
            _ => Kind::Service,
        };
        Policy {
            kind,
            autostart: section.truth("autostart"),
            profiles: section.texts("profiles"),
            depends_on: self.depends_on(section, path),
            restart: restart(&section.section("restart"), kind),
            on_failure: match section.text("on_failure") {
                Some("stop_dependents") => OnFailure::StopDependents,
                Some("shutdown") => OnFailure::Shutdown,
                _ => OnFailure::Continue,
            },
            ready: self.ready(&section.section("ready"), &join(path, "ready")),
            alive: self.alive(&section.section("alive"), &join(path, "alive")),
            stop: self.stop(&section.section("stop"), &join(path, "stop")),
            rolling: rolling(&section.section("rolling")),
            watch: self.watch(&section.section("watch"), &join(path, "watch")),
            reload: match section.text("reload") {
                Some(_) => Some(ReloadVia::Message),
                None => Section::new(section.get("reload"), RELOAD)
                    .signal("signal")
                    .map(ReloadVia::Signal),
            },
            hooks: self.hooks(&section.section("hooks"), &join(path, "hooks")),
            log: self.log(&section.section("log")),
            max_age: max_age(&section.section("max_age")),
            schedule: schedule(&section.section("schedule")),
            start_stagger: section.duration("start_stagger").unwrap_or_default(),
            memory: section.section("limits").size("memory"),
            description: section.string("description"),
            labels: labels(section),
        }
    }

    fn depends_on(&mut self, section: &Section<'_>, path: &str) -> Vec<Dependency> {
        let mut out = Vec::new();
        for entry in section.entries("depends_on") {
            let Ok(service) = ServiceName::parse(&entry.key) else {
                continue;
            };
            let inner = Section::new(Some(&entry.value), DEPENDENCY);
            let path = format!("{path}.depends_on.{service}.quorum");
            out.push(Dependency {
                service,
                condition: match inner.text("condition") {
                    Some("started") => Condition::Started,
                    Some("completed") => Condition::Completed,
                    _ => Condition::Ready,
                },
                quorum: self.quorum(&inner, &path),
                timeout: inner.duration("timeout"),
                on_restart: match inner.text("on_restart") {
                    Some("restart") => OnDependencyRestart::Restart,
                    _ => OnDependencyRestart::Ignore,
                },
            });
        }
        out
    }

    fn quorum(&mut self, section: &Section<'_>, path: &str) -> Quorum {
        let text = section.text("quorum").unwrap_or("all");
        let percent = text.strip_suffix('%').map(|n| n.trim().parse::<u8>());
        match (text, percent) {
            ("all", _) => Quorum::All,
            ("any", _) => Quorum::Any,
            (_, Some(Ok(percent @ 1..=100))) => Quorum::Percent(percent),
            _ => match section.count("quorum") {
                Some(count) => Quorum::Count(count),
                None => {
                    let found = super::super::diagnostic::quote(text);
                    self.problems
                        .error(section.at("quorum"), path, format!("{found} is no quorum"))
                        .help("write `all`, `any`, a number, or a share from `1%` to `100%`");
                    Quorum::All
                }
            },
        }
    }

    fn ready(&mut self, section: &Section<'_>, path: &str) -> Option<ReadyCheck> {
        if !section.exists() {
            return None;
        }
        let kind = if section.truth("heartbeat") {
            ReadyKind::Heartbeat
        } else if section.truth("notify") {
            ReadyKind::Notify
        } else if let Some(descriptor) = section.int("notify_fd") {
            ReadyKind::NotifyFd(descriptor as i32)
        } else if let Some(probe) = self.probe(section, path) {
            ReadyKind::Probe(probe)
        } else if let Some(expression) = section.string("log") {
            ReadyKind::Log(expression)
        } else if let Some(file) = section.text("file") {
            ReadyKind::File(Template::new(file))
        } else if let Some(name) = section.text("registered") {
            ReadyKind::Registered((name != "true").then(|| name.to_owned()))
        } else {
            ReadyKind::Delay(section.duration("delay")?)
        };
        Some(ReadyCheck {
            kind,
            interval: section.duration("interval")?,
            timeout: section.duration("timeout")?,
            failures: section.count("failures")?,
            within: section.duration("within")?,
        })
    }

    fn alive(&mut self, section: &Section<'_>, path: &str) -> Option<AliveCheck> {
        if !section.exists() {
            return None;
        }
        let (mut interval, mut timeout) = (Duration::from_secs(1), Duration::from_secs(1));
        let kind = if section.truth("heartbeat") {
            (interval, timeout) = self.heartbeat;
            AliveKind::Heartbeat
        } else if section.truth("notify") {
            AliveKind::Notify
        } else if section.truth("rpc") {
            AliveKind::Rpc
        } else {
            AliveKind::Probe(self.probe(section, path)?)
        };
        let diagnose = section.section("diagnose");
        Some(AliveCheck {
            kind,
            interval: section.duration("interval").unwrap_or(interval),
            timeout: section.duration("timeout").unwrap_or(timeout),
            failures: section.count("failures")?,
            diagnose: diagnose.signal("signal").map(|signal| Diagnose {
                signal,
                pause: diagnose.duration("pause").unwrap_or_default(),
            }),
        })
    }

    fn probe(&mut self, section: &Section<'_>, path: &str) -> Option<Probe> {
        if let Some(text) = section.text("tcp") {
            self.address(text, section, "tcp", path);
            return Some(Probe::Tcp(Template::new(text)));
        }
        if let Some(text) = section.text("unix") {
            // What a reference stands for is not known yet; the connection says it then.
            if text.len() > MAX_SOCKET_PATH && !text.contains("$(") {
                let message = format!(
                    "the path of a socket has at most {MAX_SOCKET_PATH} bytes, this one has {}",
                    text.len()
                );
                self.problems.error(section.at("unix"), &join(path, "unix"), message);
            }
            return Some(Probe::Unix(Template::new(text)));
        }
        if let Some(text) = section.text("http") {
            self.http(text, section, path);
            return Some(Probe::Http(Template::new(text)));
        }
        let node = section.get("exec")?;
        Some(Probe::Exec(self.command(Some(node), &join(path, "exec"))))
    }

    fn http(&mut self, text: &str, section: &Section<'_>, path: &str) {
        match text.strip_prefix("http://") {
            Some(rest) if rest.contains("$(") || has_host_and_port(rest) => {}
            _ => {
                let found = super::super::diagnostic::quote(text);
                self.problems
                    .error(section.at("http"), &join(path, "http"), format!("{found} is no `http://` address with a host and a port from 1 to 65535"))
                    .help("write `http://127.0.0.1:$(port.NAME)/health`; for `https` use `exec: [curl, …]`");
            }
        }
    }

    /// `HOST:PORT`, as far as it can be judged before the references are filled in.
    fn address(&mut self, text: &str, section: &Section<'_>, key: &str, path: &str) {
        let good = match text.rsplit_once(':') {
            Some((host, port)) => {
                let known = text.contains("$(");
                !host.is_empty() && (known || port.parse::<u16>().is_ok_and(|port| port > 0))
            }
            None => text.contains("$("),
        };
        if !good {
            let found = super::super::diagnostic::quote(text);
            self.problems
                .error(section.at(key), &join(path, key), format!("{found} is no `HOST:PORT`"))
                .help("write `127.0.0.1:$(port.NAME)` or `127.0.0.1:8080`; ports are 1 to 65535");
        }
    }

    fn stop(&mut self, section: &Section<'_>, path: &str) -> StopPolicy {
        let exec = section.get("exec");
        StopPolicy {
            signal: section.signal("signal").unwrap_or(Signal::TERM),
            timeout: section.duration("timeout").unwrap_or_default(),
            exec: exec.map(|node| self.command(Some(node), &join(path, "exec"))),
        }
    }

    fn watch(&mut self, section: &Section<'_>, path: &str) -> Option<Watch> {
        if !section.exists() {
            return None;
        }
        let action = match section.text("action") {
            Some("reload") => WatchAction::Reload,
            Some(_) => WatchAction::Restart,
            None => {
                let run = Section::new(section.get("action"), RUN).get("run");
                let words = self.command(run, &join(path, "action.run"));
                let words = words.iter().map(|word| self.plain_word(word, run, path));
                WatchAction::Run(words.collect())
            }
        };
        Some(Watch {
            paths: section.texts("paths"),
            ignore: section.texts("ignore"),
            debounce: section.duration("debounce").unwrap_or_default(),
            action,
        })
    }

    /// A word of a command that belongs to no instance.
    fn plain_word(&mut self, word: &Template, node: Option<&Node>, path: &str) -> String {
        if let (Some(reference), Some(node)) = (word.references().first(), node) {
            self.problems.error(
                node.at,
                path,
                format!(
                    "`$({reference})` cannot be used in a command that runs once for all instances"
                ),
            );
        }
        word.source().replace("$$(", "$(")
    }

    fn hooks(&mut self, section: &Section<'_>, path: &str) -> Hooks {
        let mut hook = |key: &str| {
            let node = section.get(key)?;
            let inner = Section::new(Some(node), HOOK);
            let path = format!("{path}.{key}.command");
            Some(Hook {
                command: self.command(inner.get("command"), &path),
                timeout: inner.duration("timeout")?,
                ignore_failure: inner.truth("ignore_failure"),
            })
        };
        Hooks {
            before_start: hook("before_start"),
            after_ready: hook("after_ready"),
            before_stop: hook("before_stop"),
            after_stop: hook("after_stop"),
            on_crash: hook("on_crash"),
        }
    }

    fn log(&self, section: &Section<'_>) -> LogPolicy {
        LogPolicy {
            max_line: section.size("max_line").unwrap_or(Bytes(64 << 10)),
            level_from: match section.text("level_from").and_then(|text| text.split_once(':')) {
                Some(("json", key)) => LevelFrom::Json(key.to_owned()),
                Some(("regex", text)) => LevelFrom::Regex(text.to_owned()),
                _ => LevelFrom::Auto,
            },
            multiline: match section.text("multiline") {
                None | Some("auto") => Multiline::Auto,
                Some("off") => Multiline::Off,
                Some(text) => Multiline::Starts(text.to_owned()),
            },
            color: match section.text("color") {
                Some("strip") => Color::Strip,
                _ => Color::Keep,
            },
            rate: section.count("rate"),
            file: section.text("file").map(|file| self.project_dir.join(file)),
        }
    }
}

fn restart(section: &Section<'_>, kind: Kind) -> RestartPolicy {
    let when = match (section.text("policy"), kind) {
        (Some("always"), _) | (None, Kind::Service) => RestartWhen::Always,
        (Some("never"), _) => RestartWhen::Never,
        _ => RestartWhen::OnFailure,
    };
    let codes = section.list("success").iter();
    RestartPolicy {
        when,
        min_uptime: section.duration("min_uptime").unwrap_or_default(),
        delay: section.duration("delay").unwrap_or_default(),
        factor: section.number("factor").unwrap_or(1.0),
        max_delay: section.duration("max_delay").unwrap_or_default(),
        jitter: section.share("jitter").unwrap_or_default(),
        reset_after: section.duration("reset_after").unwrap_or_default(),
        limit: section.count("limit"),
        within: section.duration("within").unwrap_or_default(),
        success: codes.filter_map(|code| Some(code.as_scalar()?.as_int()? as i32)).collect(),
    }
}

fn rolling(section: &Section<'_>) -> Option<Rolling> {
    Some(Rolling {
        max_unavailable: section.count("max_unavailable")?,
        max_surge: section.count("max_surge")?,
        min_ready: section.duration("min_ready")?,
        deadline: section.duration("deadline")?,
        on_failure: match section.text("on_failure") {
            Some("rollback") => RollingFailure::Rollback,
            _ => RollingFailure::Pause,
        },
    })
}

fn max_age(section: &Section<'_>) -> Option<MaxAge> {
    Some(MaxAge { age: section.duration("age")?, variance: section.duration("variance")? })
}

fn schedule(section: &Section<'_>) -> Option<Schedule> {
    let when = match (section.string("cron"), section.duration("every")) {
        (Some(expression), _) => ScheduleWhen::Cron(expression),
        (None, every) => ScheduleWhen::Every(every?),
    };
    let overlap = match section.text("overlap") {
        Some("queue") => Overlap::Queue,
        _ => Overlap::Skip,
    };
    Some(Schedule { when, overlap })
}

fn labels(section: &Section<'_>) -> BTreeMap<String, String> {
    let entries = section.entries("labels").iter();
    entries
        .filter_map(|entry| Some((entry.key.clone(), entry.value.as_scalar()?.text.clone())))
        .collect()
}

/// Whether what follows `http://` names somebody who can be asked.
fn has_host_and_port(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    let port = after_host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    !authority.is_empty() && port.is_none_or(|port| port.is_ok_and(|port| port != 0))
}
