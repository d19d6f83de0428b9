//! What a process is started with.

use super::super::diagnostic::{nearest, quote};
use super::super::keys::service::{LIMITS, PORT};
use super::super::raw::join;
use super::super::spec::{Launch, Limits, PortChoice, PortConflict, PortSpec, SocketSpec};
use super::super::template::Template;
use super::super::tree::{Node, Style, Value};
use super::Builder;
use super::env::Env;
use super::section::Section;
use super::shell_syntax;

/// The most processors that a list may name (`CPU_SETSIZE` is 1024, the kernel's largest NR_CPUS 8192).
const MAX_CPU: usize = 4095;

impl Builder<'_> {
    /// All of it.
    pub(super) fn launch(
        &mut self,
        section: &Section<'_>,
        common: &Env,
        sockets: &[SocketSpec],
        path: &str,
    ) -> Launch {
        let command = if section.truth("shell") {
            self.shell(section, path)
        } else {
            self.command(section.get("command"), &join(path, "command"))
        };
        Launch {
            command,
            directory: section.text("directory").map(Template::new),
            inherit_env: section.truth("inherit_env"),
            env: self.variables(section, common.clone(), path),
            ports: self.ports(section, path),
            sockets: self.passed_sockets(section, sockets, path),
            tty: section.truth("tty"),
            limits: limits(section),
            user: section.string("user"),
            group: section.string("group"),
            umask: section.mode("umask"),
            nice: section.int("nice").map(|nice| nice as i32),
            cpus: self.cpus(section, path),
            no_new_privs: section.truth("no_new_privs"),
        }
    }

    /// Splits a command as a shell does; a list is split already.
    pub(super) fn command(&mut self, node: Option<&Node>, path: &str) -> Vec<Template> {
        let Some(node) = node else { return Vec::new() };
        match &node.value {
            Value::List(items) => {
                items.iter().filter_map(Node::as_scalar_text).map(Template::new).collect()
            }
            Value::Scalar(scalar) => match shlex::split(&scalar.text) {
                Some(words) if !words.is_empty() => {
                    // What variables stand for may be secret, and is not what somebody wrote.
                    let found = Some(&scalar.text).filter(|_| scalar.style != Style::Variable);
                    if let Some(found) = found.and_then(|text| shell_syntax::find(text)) {
                        let message = format!(
                            "no shell reads this command: {} is passed to the program as it stands",
                            quote(found)
                        );
                        let help = if path.ends_with(".command") && !path.contains(".hooks.") {
                            "add `shell: true` for a shell's meaning, or put it in quotes if it is meant so"
                        } else {
                            "write `[sh, -c, 'COMMAND']` for a shell's meaning, or put it in quotes if it is meant so"
                        };
                        self.problems.warning(node.at, path, message).help(help);
                    }
                    words.into_iter().map(Template::new).collect()
                }
                Some(_) => {
                    self.problems.error(node.at, path, "the command is empty");
                    Vec::new()
                }
                None => {
                    self.problems
                        .error(node.at, path, "the command ends within a quote, or with a backslash")
                        .help("close the quote, or write the command as a list: `[program, argument]`");
                    Vec::new()
                }
            },
            _ => Vec::new(),
        }
    }

    fn shell(&mut self, section: &Section<'_>, path: &str) -> Vec<Template> {
        let Some(node) = section.get("command") else {
            return Vec::new();
        };
        match &node.value {
            Value::Scalar(scalar) => {
                ["/bin/sh", "-c", scalar.text.as_str()].map(Template::new).into()
            }
            Value::List(_) => {
                self.problems
                    .error(
                        node.at,
                        &join(path, "command"),
                        "under `shell: true` the command is one text, not a list",
                    )
                    .help("write it as the shell's command line, or remove `shell`");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn ports(&mut self, section: &Section<'_>, path: &str) -> Vec<PortSpec> {
        let mut out: Vec<PortSpec> = Vec::new();
        for entry in section.entries("ports") {
            let path = format!("{path}.ports.{}", entry.key);
            let variable = entry.key.to_ascii_uppercase().replace('-', "_");
            if !super::super::dotenv::is_name(&variable) || entry.key.contains('.') {
                self.problems
                    .error(entry.key_at, &path, format!("{} cannot be the name of a port", quote(&entry.key)))
                    .help("it makes the variable `PORT_NAME`: letters, digits, `_` and `-`, not a digit first");
            } else if let Some(other) =
                out.iter().find(|o| o.name.to_ascii_uppercase().replace('-', "_") == variable)
            {
                let message = format!(
                    "the ports `{}` and `{}` make the same variable `PORT_{variable}`",
                    other.name, entry.key
                );
                self.problems.error(entry.key_at, &path, message);
            }
            let (choice, conflict) = match &entry.value.value {
                Value::Map(_) => self.port_map(&Section::new(Some(&entry.value), PORT), &path),
                Value::Scalar(scalar) => (fixed(scalar.as_int()), None),
                _ => continue,
            };
            // A number that the file gives is meant; one that we chose may be any other.
            let conflict = conflict.unwrap_or(match choice {
                PortChoice::Auto => PortConflict::Next,
                _ => PortConflict::Fail,
            });
            let name = entry.key.clone();
            out.push(PortSpec { name, choice, conflict });
        }
        out
    }

    fn port_map(
        &mut self,
        section: &Section<'_>,
        path: &str,
    ) -> (PortChoice, Option<PortConflict>) {
        let mut choice = fixed(section.int("base"));
        if section.truth("per_instance") {
            match choice {
                PortChoice::Fixed(base) => choice = PortChoice::PerInstance(base),
                _ => {
                    self.problems
                        .error(
                            section.at("per_instance"),
                            path,
                            "`per_instance` needs a number as `base`",
                        )
                        .help("`auto` gives each instance a port of its own anyway");
                }
            }
        }
        let conflict = match section.text("conflict") {
            Some("next") => Some(PortConflict::Next),
            Some("fail") => Some(PortConflict::Fail),
            _ => None,
        };
        (choice, conflict)
    }

    fn passed_sockets(
        &mut self,
        section: &Section<'_>,
        sockets: &[SocketSpec],
        path: &str,
    ) -> Vec<SocketSpec> {
        if section.get("sockets").is_none() {
            return sockets.to_vec();
        }
        let mut out = Vec::new();
        for item in section.list("sockets") {
            let Some(name) = item.as_scalar_text() else {
                continue;
            };
            match sockets.iter().find(|s| s.name == name || s.port.to_string() == name) {
                Some(socket) if out.contains(socket) => {}
                Some(socket) => out.push(socket.clone()),
                None if self.sockets_may_hold(name) => {}
                None => {
                    let problem = self.problems.error(
                        item.at,
                        &join(path, "sockets"),
                        format!("there is no socket {}", quote(name)),
                    );
                    match nearest(name, sockets.iter().map(|s| s.name.as_str())) {
                        Some(near) => problem.help(format!("did you mean `{near}`?")),
                        None => problem.help("declare it in the top-level `sockets`"),
                    };
                }
            }
        }
        out
    }

    /// Whether a shared socket of this name or number may be in what could not be read.
    fn sockets_may_hold(&self, name: &str) -> bool {
        let gaps = &self.problems.gaps;
        gaps.below("sockets") && gaps.may_hold(name)
    }

    /// `[0, 1]`, `2`, or `0-3,6`.
    fn cpus(&mut self, section: &Section<'_>, path: &str) -> Option<Vec<usize>> {
        let node = section.get("cpus")?;
        let mut cpus: Vec<usize> = match &node.value {
            Value::List(items) => {
                items.iter().filter_map(|i| i.as_scalar_text()?.parse().ok()).collect()
            }
            Value::Scalar(scalar) => match ranges(&scalar.text) {
                Some(cpus) => cpus,
                None => {
                    self.problems
                        .error(
                            node.at,
                            &join(path, "cpus"),
                            format!("{} is no list of processors", quote(&scalar.text)),
                        )
                        .help("write `[0, 1]` or `0-3,6`");
                    return None;
                }
            },
            _ => return None,
        };
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.is_empty() && matches!(node.value, Value::List(_)) {
            self.problems.error(
                node.at,
                &join(path, "cpus"),
                "an empty list of processors leaves none to run on",
            );
        }
        Some(cpus)
    }
}

fn fixed(number: Option<i64>) -> PortChoice {
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(port) => PortChoice::Fixed(port),
        None => PortChoice::Auto,
    }
}

/// `0-3,6` as numbers.
fn ranges(text: &str) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_CPU {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

fn limits(service: &Section<'_>) -> Limits {
    let section = Section::new(service.get("limits"), LIMITS);
    let unlimited = |key: &str| section.text(key) == Some("unlimited");
    let or_unlimited = |key: &str, value: Option<u64>| {
        if unlimited(key) { Some(u64::MAX) } else { value }
    };
    let count =
        |key: &str| or_unlimited(key, section.int(key).and_then(|int| u64::try_from(int).ok()));
    let size = |key: &str| or_unlimited(key, section.size(key).map(|bytes| bytes.0));
    let cpu = section.duration("cpu").map(|cpu| cpu.as_secs_f64().ceil() as u64);
    Limits {
        nofile: count("nofile"),
        nproc: count("nproc"),
        core: size("core"),
        address_space: size("as"),
        cpu: or_unlimited("cpu", cpu),
        stack: size("stack"),
        memory_max: section.size("memory_max"),
        cpu_max: section.number("cpu_max"),
        pids_max: section.int("pids_max").and_then(|int| u64::try_from(int).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_numbers_and_ranges() {
        assert_eq!(ranges("0-3,6"), Some(vec![0, 1, 2, 3, 6]));
        assert_eq!(ranges("2"), Some(vec![2]));
        for text in ["", "3-1", "a", "0-99999999", "1,"] {
            assert_eq!(ranges(text), None, "{text}");
        }
    }
}
