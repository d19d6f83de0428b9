//! `depends_on`: what is there, what it can mean, and no cycles.

use std::collections::BTreeMap;

use super::super::diagnostic::{nearest, quote};
use super::super::spec::{Condition, Dependency, Kind, Quorum, RestartWhen, ServiceSpec};
use super::Check;
use crate::name::ServiceName;

/// How far the walk through a service has come.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Open,
    Done,
}

impl Check<'_> {
    /// All edges, then all cycles.
    pub(super) fn dependencies(&mut self) {
        let cluster = self.cluster;
        for service in cluster.services.values() {
            for dependency in &service.policy.depends_on {
                self.edge(service, dependency);
            }
        }
        self.cycles();
    }

    fn edge(&mut self, service: &ServiceSpec, dependency: &Dependency) {
        let name = dependency.service.as_str();
        let key = ["depends_on", name];
        if dependency.service == service.name {
            self.error(service, &key, "a service cannot depend on itself", "remove it");
            return;
        }
        let Some(other) = self.cluster.service(name) else {
            if self.problems.gaps.may_hold_service(name) {
                return;
            }
            let known = self.cluster.services.keys().map(ServiceName::as_str);
            let known = known.filter(|known| *known != service.name.as_str());
            let help = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it below `instances`, or remove it".to_owned(),
            };
            self.error(service, &key, format!("there is no service {}", quote(name)), help);
            return;
        };
        let gaps = &self.problems.gaps;
        if gaps.in_service(name) || gaps.in_service(service.name.as_str()) {
            return;
        }
        let condition = ["depends_on", name, "condition"];
        let never_ends =
            other.policy.kind == Kind::Service && other.policy.restart.when == RestartWhen::Always;
        if dependency.condition == Condition::Completed && never_ends {
            self.error(
                service,
                &condition,
                format!("`{name}` is a service that is always restarted: it never completes"),
                format!("give `{name}` `kind: job`, or wait for `started` or `ready`"),
            );
        }
        let no_readiness = other.policy.ready.is_none() && other.policy.kind == Kind::Service;
        if dependency.condition == Condition::Ready
            && no_readiness
            && self.written_in(service, &condition)
        {
            self.warning(
                service,
                &condition,
                format!("`{name}` has no readiness: `ready` means no more than `started`"),
                format!("give `{name}` a `ready` check"),
            );
        }
        if let Quorum::Count(count) = dependency.quorum
            && count > other.numprocesses
        {
            let processes = other.numprocesses;
            self.error(
                    service,
                    &["depends_on", name, "quorum"],
                    format!("a quorum of {count} of `{name}`, which has {processes} processes, is never reached"),
                    format!("use at most {processes}, or a share such as `50%`"),
                );
        }
    }

    /// Every cycle once, by a walk that keeps its own stack: a chain may be as long as there are services.
    fn cycles(&mut self) {
        let services = &self.cluster.services;
        let mut marks: BTreeMap<&str, Mark> = BTreeMap::new();
        let mut found: Vec<Vec<&str>> = Vec::new();
        for start in services.keys() {
            if marks.contains_key(start.as_str()) {
                continue;
            }
            let mut stack: Vec<(&str, usize)> = vec![(start.as_str(), 0)];
            marks.insert(start.as_str(), Mark::Open);
            while let Some((name, next)) = stack.last_mut() {
                let edges =
                    services.get(*name).map_or(&[][..], |service| &service.policy.depends_on);
                let Some(edge) = edges.get(*next) else {
                    marks.insert(name, Mark::Done);
                    stack.pop();
                    continue;
                };
                *next += 1;
                let target = edge.service.as_str();
                match marks.get(target) {
                    Some(Mark::Open) if target != *name => {
                        let from = stack.iter().position(|(name, _)| *name == target).unwrap_or(0);
                        found.push(stack[from..].iter().map(|(name, _)| *name).collect());
                    }
                    None if services.contains_key(target) => {
                        marks.insert(target, Mark::Open);
                        stack.push((target, 0));
                    }
                    _ => {}
                }
            }
        }
        for cycle in found {
            self.cycle(&cycle);
        }
    }

    fn cycle(&mut self, cycle: &[&str]) {
        let Some((first, last)) = cycle.first().zip(cycle.last()) else {
            return;
        };
        let names: Vec<&str> = cycle.iter().chain([first]).copied().collect();
        let places: Vec<String> = names
            .windows(2)
            .map(|pair| {
                let at = self.at(&["instances", pair[0], "depends_on", pair[1]]);
                format!("`{}` -> `{}` {}", pair[0], pair[1], self.origin(at))
            })
            .collect();
        let at = self.at(&["instances", last, "depends_on", first]);
        let path = super::service_path(last, &format!("depends_on.{first}"));
        self.problems
            .error(at, &path, format!("services depend on one another: {}", shorten(&names)))
            .help(format!("remove one of {}", places.join(", ")));
    }
}

/// `a -> b -> a`, its middle left out when it is very long.
fn shorten(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    if names.len() <= SHOWN {
        return names.join(" -> ");
    }
    let (head, tail) = (&names[..SHOWN / 2], &names[names.len() - SHOWN / 2..]);
    format!("{} -> … -> {}", head.join(" -> "), tail.join(" -> "))
}
