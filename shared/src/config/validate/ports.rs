//! Ports that cannot be, or meet one another, and the references to them.

use std::collections::BTreeMap;

use super::super::diagnostic::{nearest, quote};
use super::super::shape::Reference;
use super::super::spec::{PortChoice, PortConflict, PortSpec, ServiceSpec};
use super::Check;
use crate::name::ServiceName;

/// What `$(instance.…)` may be followed by.
const INSTANCE: [&str; 3] = ["index", "id", "name"];

impl Check<'_> {
    /// All ports of all services.
    pub(super) fn ports(&mut self) {
        let cluster = self.cluster;
        let mut taken: BTreeMap<u16, String> = BTreeMap::new();
        for socket in &cluster.sockets {
            taken.insert(socket.port, format!("the shared socket `{}`", socket.name));
        }
        let metrics = cluster.node.metrics.map(|at| at.port()).filter(|port| *port != 0);
        taken.extend(metrics.map(|port| (port, "`node.metrics`".to_owned())));
        for service in cluster.services.values() {
            for port in &service.launch.ports {
                self.port(service, port, &mut taken);
            }
        }
    }

    fn port(&mut self, service: &ServiceSpec, port: &PortSpec, taken: &mut BTreeMap<u16, String>) {
        let key = ["ports", port.name.as_str()];
        let count = service.numprocesses;
        let range = match port.choice {
            PortChoice::Auto => return,
            PortChoice::Fixed(number) => {
                if count > 1 && port.conflict == PortConflict::Fail {
                    self.warning(
                        service,
                        &key,
                        format!("{count} processes get the same port {number}"),
                        "use `{base: …, per_instance: true}`, `auto`, or a shared socket in the top-level `sockets`",
                    );
                }
                number..=number
            }
            PortChoice::PerInstance(base) => {
                let last = u32::from(base) + count.max(1) - 1;
                let Ok(last) = u16::try_from(last) else {
                    self.error(
                        service,
                        &key,
                        format!(
                            "the port of instance {count} would be {last}, the last one is 65535"
                        ),
                        format!(
                            "lower `base` to at most {}",
                            65535u32.saturating_sub(count.saturating_sub(1)).max(1)
                        ),
                    );
                    return;
                };
                base..=last
            }
        };
        let name = format!("`{}` of `{}`", port.name, service.name);
        for number in range {
            if let Some(other) = taken.get(&number) {
                let message = format!("the port {number} is given to {other}, too");
                self.warning(
                    service,
                    &key,
                    message,
                    "give each a number of its own, or use `auto`",
                );
                return;
            }
            taken.insert(number, name.clone());
        }
    }

    /// All `$(instance.…)`, `$(service.…)`, `$(port.…)`.
    pub(super) fn references(&mut self, references: &[Reference]) {
        for reference in references {
            if let Err((message, help)) = self.reference(reference) {
                let problem = self.problems.error(reference.at, &reference.path, message);
                if let Some(help) = help {
                    problem.help(help);
                }
            }
        }
    }

    fn reference(&self, reference: &Reference) -> Result<(), (String, Option<String>)> {
        let shown = quote(&format!("$({})", reference.reference));
        let (namespace, name) =
            reference.reference.split_once('.').unwrap_or((&reference.reference, ""));
        match namespace {
            "instance" if INSTANCE.contains(&name) => Ok(()),
            "instance" => {
                let help = "known are `$(instance.index)`, `$(instance.id)` and `$(instance.name)`";
                Err((format!("{shown} is not known"), Some(help.to_owned())))
            }
            "service" if name == "name" => Ok(()),
            "service" => Err((
                format!("{shown} is not known"),
                Some("known is `$(service.name)`".to_owned()),
            )),
            _ => self.port_reference(reference, name, &shown),
        }
    }

    fn port_reference(
        &self,
        reference: &Reference,
        name: &str,
        shown: &str,
    ) -> Result<(), (String, Option<String>)> {
        let parts: Vec<&str> = name.split('.').collect();
        let (service, index, port) = match parts[..] {
            // In the top-level `env` it must be there for every service.
            [port] if reference.service.is_empty() => {
                let lacking = self.whole_services().into_iter().find(|s| !has_port(s, port));
                return match lacking {
                    None => Ok(()),
                    Some(service) => Err((
                        format!(
                            "{shown} is for every service here, and `{}` has no such port",
                            service.name
                        ),
                        Some("move it to the services that have it".to_owned()),
                    )),
                };
            }
            [port] => (reference.service.as_str(), None, port),
            [service, index, port] => (service, Some(index), port),
            _ => {
                let help =
                    "write `$(port.NAME)`, or `$(port.SERVICE.N.NAME)` for one of another instance";
                return Err((format!("{shown} is no reference to a port"), Some(help.to_owned())));
            }
        };
        let gaps = &self.problems.gaps;
        let partly = gaps.in_service(service);
        let Some(spec) = self.cluster.service(service) else {
            if gaps.may_hold_service(service) || (partly && gaps.may_hold(service)) {
                return Ok(());
            }
            let near = nearest(service, self.cluster.services.keys().map(ServiceName::as_str));
            let help = near.map(|near| format!("did you mean `{near}`?"));
            return Err((format!("{shown}: there is no service {}", quote(service)), help));
        };
        if let Some(index) = index {
            match index.parse::<u32>() {
                Ok(number) if (1..=spec.numprocesses).contains(&number) => {}
                // Its `numprocesses` may be what could not be read.
                Ok(number) if number > 0 && partly => {}
                Ok(number) if number > 0 => {
                    let count = spec.numprocesses;
                    return Err((
                        format!("{shown}: `{service}` has {count} processes, there is no {number}"),
                        None,
                    ));
                }
                _ => {
                    let help = Some("indexes are numbers from 1".to_owned());
                    return Err((format!("{shown}: {} is no index", quote(index)), help));
                }
            }
        }
        if has_port(spec, port) || (partly && gaps.may_hold(port)) {
            return Ok(());
        }
        let ports = spec.launch.ports.iter().map(|port| port.name.as_str());
        let help = match nearest(port, ports) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it: `ports: {{{port}: auto}}`"),
        };
        Err((format!("{shown}: `{service}` has no port {}", quote(port)), Some(help)))
    }
}

fn has_port(service: &ServiceSpec, name: &str) -> bool {
    service.launch.ports.iter().any(|port| port.name == name)
}
