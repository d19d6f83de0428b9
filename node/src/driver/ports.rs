//! Port numbers of instances: chosen once, stable through restarts and, where the table is stored, through nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hilum_shared::config::spec::{PortChoice, PortConflict, PortSpec, ServiceSpec};
use hilum_shared::name::InstanceId;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use super::dye::Colour;
use super::holder::{self, Held};
use crate::core::input::{FailureClass, SpawnFailure};
use crate::launch::context::Ports;

/// Where `auto` chooses: above what is registered, below what the kernel gives to outgoing connections
/// (`net.ipv4.ip_local_port_range` begins at 32768).
const AUTO: std::ops::Range<u16> = 20000..32000;

/// The numbers of all instances. [`all`](Self::all) is what the caller may store and give back.
#[derive(Clone, Debug, Default)]
pub struct PortTable {
    numbers: Ports,
    /// Whose each number is; made of `numbers`.
    users: BTreeMap<u16, BTreeSet<InstanceId>>,
    /// Who has been started with its numbers. The others' are only known, and one that the file fixes yields to whoever
    /// starts with it.
    taken: BTreeSet<InstanceId>,
    cluster_id: String,
}

/// A port that could not be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Somebody else has it, for now at least.
    #[error("port `{name}` of `{instance}`: {port} is held by {by}")]
    Taken {
        /// Whose.
        instance: InstanceId,
        /// The port's name.
        name: String,
        /// The number.
        port: u16,
        /// Who has it.
        by: Held,
    },
    /// Given to another instance of this cluster.
    #[error("port `{name}` of `{instance}`: {port} is given to `{other}` already")]
    Given {
        /// Whose.
        instance: InstanceId,
        /// The port's name.
        name: String,
        /// The number.
        port: u16,
        /// Who has it.
        other: InstanceId,
    },
    /// No number is left.
    #[error("port `{name}` of `{instance}`: no free number from {from} on")]
    Exhausted {
        /// Whose.
        instance: InstanceId,
        /// The port's name.
        name: String,
        /// Where the search began.
        from: u32,
    },
}

impl From<PortError> for SpawnFailure {
    fn from(error: PortError) -> Self {
        let class = match error {
            PortError::Taken { .. } => FailureClass::Conflict,
            // No time passes that changes this.
            PortError::Given { .. } | PortError::Exhausted { .. } => FailureClass::Permanent,
        };
        Self { message: error.to_string(), class }
    }
}

impl PortTable {
    /// A table for the cluster with this id, with the numbers of an earlier node's life.
    pub fn new(cluster_id: &str, stored: Ports) -> Self {
        let mut table = Self { cluster_id: cluster_id.to_owned(), ..Self::default() };
        for (instance, ports) in stored {
            table.set(&instance, ports);
        }
        table
    }

    /// The numbers that are given.
    pub fn all(&self) -> &Ports {
        &self.numbers
    }

    /// Gives numbers to instances that may start later. Nothing fails here: a number that the file insists on is known
    /// though it may not be free, and what is wrong with it is said at the start.
    pub fn reserve(&mut self, instances: &[(InstanceId, Arc<ServiceSpec>)], ip: IpAddr) {
        // What is insisted on first: the others can give way.
        for insisted in [true, false] {
            for (instance, service) in instances {
                for spec in &service.launch.ports {
                    if (insists(spec) == insisted)
                        && let Some(port) = self.reserved(instance, spec, ip)
                    {
                        let mut ports = self.numbers.get(instance).cloned().unwrap_or_default();
                        ports.insert(spec.name.clone(), port);
                        self.set(instance, ports);
                    }
                }
            }
        }
    }

    fn reserved(&self, instance: &InstanceId, spec: &PortSpec, ip: IpAddr) -> Option<u16> {
        if insists(spec) {
            return u16::try_from(self.first(instance, spec)).ok();
        }
        let had = self.numbers.get(instance);
        let known = had.and_then(|had| had.get(&spec.name)).copied();
        if let Some(port) = known.filter(|&port| fits(spec, instance, port)) {
            return Some(port);
        }
        let mine: Vec<u16> = had.into_iter().flat_map(|had| had.values().copied()).collect();
        self.choose(instance, spec, None, &mine, ip).ok()
    }

    /// Sees to it that an instance that is about to start has its numbers and that they are free on
    /// `ip`. Its own earlier run in TIME_WAIT is no conflict.
    ///
    /// # Errors
    /// See [`PortError`]; what the instance had stays given.
    pub fn allocate(
        &mut self,
        instance: &InstanceId,
        specs: &[PortSpec],
        ip: IpAddr,
    ) -> Result<(), PortError> {
        let mut chosen = BTreeMap::new();
        for spec in specs {
            let had = self.numbers.get(instance).and_then(|had| had.get(&spec.name));
            let had = had.copied().filter(|&port| fits(spec, instance, port));
            let mine: Vec<u16> = chosen.values().copied().collect();
            let port = self.choose(instance, spec, had, &mine, ip)?;
            chosen.insert(spec.name.clone(), port);
        }
        if chosen.is_empty() {
            self.release(instance);
        } else {
            self.set(instance, chosen);
            self.taken.insert(instance.clone());
        }
        Ok(())
    }

    /// Gives up the numbers of an instance that is gone for good.
    pub fn release(&mut self, instance: &InstanceId) {
        self.forget(instance);
        self.taken.remove(instance);
    }

    /// Gives an instance these numbers, and those that it had no longer.
    fn set(&mut self, instance: &InstanceId, ports: BTreeMap<String, u16>) {
        self.forget(instance);
        for port in ports.values() {
            self.users.entry(*port).or_default().insert(instance.clone());
        }
        self.numbers.insert(instance.clone(), ports);
    }

    fn forget(&mut self, instance: &InstanceId) {
        for port in self.numbers.remove(instance).into_iter().flat_map(BTreeMap::into_values) {
            if let Some(users) = self.users.get_mut(&port) {
                users.remove(instance);
                if users.is_empty() {
                    self.users.remove(&port);
                }
            }
        }
    }

    fn choose(
        &self,
        instance: &InstanceId,
        spec: &PortSpec,
        had: Option<u16>,
        mine: &[u16],
        ip: IpAddr,
    ) -> Result<u16, PortError> {
        let first = match had {
            Some(port) => u32::from(port),
            None => self.first(instance, spec),
        };
        let exhausted = || PortError::Exhausted {
            instance: instance.clone(),
            name: spec.name.clone(),
            from: first,
        };
        let auto = spec.choice == PortChoice::Auto;
        let span = u32::from(AUTO.end - AUTO.start);
        for step in 0..span {
            let number = match (auto, first + step) {
                // `auto` goes round in its range.
                (true, number) if number >= u32::from(AUTO.end) => number - span,
                (_, number) => number,
            };
            let port = u16::try_from(number).ok().filter(|&port| port > 0).ok_or_else(exhausted)?;
            let refusal = match self.given(instance, spec, port, mine) {
                Some(Given::Sharing) => return Ok(port),
                Some(Given::To(other)) => PortError::Given {
                    instance: instance.clone(),
                    name: spec.name.clone(),
                    port,
                    other,
                },
                None if is_free(ip, port) => return Ok(port),
                None => PortError::Taken {
                    instance: instance.clone(),
                    name: spec.name.clone(),
                    port,
                    by: Held::Unseen,
                },
            };
            if spec.conflict == PortConflict::Fail && !(auto && had.is_none()) {
                return Err(named(refusal));
            }
        }
        Err(exhausted())
    }

    fn first(&self, instance: &InstanceId, spec: &PortSpec) -> u32 {
        match spec.choice {
            PortChoice::Fixed(port) => u32::from(port),
            PortChoice::PerInstance(base) => u32::from(base) + instance.index - 1,
            PortChoice::Auto => {
                // The same checkout gets the same numbers, another one others.
                let text = format!("{}/{instance}/{}", self.cluster_id, spec.name);
                let span = u64::from(AUTO.end - AUTO.start);
                u32::from(AUTO.start) + (Colour::of(&text).number() % span) as u32
            }
        }
    }

    fn given(
        &self,
        instance: &InstanceId,
        spec: &PortSpec,
        port: u16,
        mine: &[u16],
    ) -> Option<Given> {
        if mine.contains(&port) {
            return Some(Given::To(instance.clone()));
        }
        let counts = |other| !insists(spec) || self.taken.contains(other);
        let users = self.users.get(&port)?;
        let other = users.iter().find(|&other| other != instance && counts(other))?;
        // "This number for every instance" is asked for by name: they share it (SO_REUSEPORT).
        let shared = spec.choice == PortChoice::Fixed(port)
            && spec.conflict == PortConflict::Fail
            && other.service == instance.service
            && self.numbers.get(other).and_then(|ports| ports.get(&spec.name)) == Some(&port);
        Some(if shared { Given::Sharing } else { Given::To(other.clone()) })
    }
}

enum Given {
    To(InstanceId),
    Sharing,
}

/// Whether the file allows one number only.
fn insists(spec: &PortSpec) -> bool {
    spec.choice != PortChoice::Auto && spec.conflict == PortConflict::Fail
}

/// Whether a number given before is still what the spec asks for.
fn fits(spec: &PortSpec, instance: &InstanceId, port: u16) -> bool {
    let from = match spec.choice {
        PortChoice::Auto => return AUTO.contains(&port),
        PortChoice::Fixed(number) => u32::from(number),
        PortChoice::PerInstance(base) => u32::from(base) + instance.index - 1,
    };
    match spec.conflict {
        PortConflict::Fail => u32::from(port) == from,
        PortConflict::Next => u32::from(port) >= from,
    }
}

fn named(error: PortError) -> PortError {
    match error {
        PortError::Taken { instance, name, port, .. } => {
            PortError::Taken { by: holder::look(port), instance, name, port }
        }
        other => other,
    }
}

/// Whether an instance could bind the port on `ip` and on all addresses.
fn is_free(ip: IpAddr, port: u16) -> bool {
    [ip, IpAddr::V4(Ipv4Addr::UNSPECIFIED)].into_iter().all(|ip| {
        match try_bind(SocketAddr::new(ip, port)) {
            Ok(()) => true,
            Err(error) => error.raw_os_error() != Some(Errno::EADDRINUSE as i32),
        }
    })
}

/// Binds as a server does, without listening: nobody can connect by mistake, and it is gone at once.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn spec(choice: PortChoice, conflict: PortConflict) -> PortSpec {
        PortSpec { name: "http".into(), choice, conflict }
    }

    fn web(index: u32) -> InstanceId {
        InstanceId::parse(&format!("web.{index}")).unwrap()
    }

    fn port(table: &PortTable, index: u32) -> u16 {
        table.all()[&web(index)]["http"]
    }

    #[test]
    fn auto_ports_are_stable_and_differ() {
        let auto = [spec(PortChoice::Auto, PortConflict::Next)];
        let mut table = PortTable::new("0123456789ab", Ports::new());
        for index in 1..=20 {
            table.allocate(&web(index), &auto, HERE).unwrap();
        }
        let before: Vec<u16> = (1..=20).map(|index| port(&table, index)).collect();
        let mut unique = before.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 20);
        assert!(before.iter().all(|port| AUTO.contains(port)));
        let mut again = PortTable::new("0123456789ab", table.all().clone());
        for index in (1..=20).rev() {
            again.allocate(&web(index), &auto, HERE).unwrap();
        }
        let after: Vec<u16> = (1..=20).map(|index| port(&again, index)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn a_port_per_instance_counts_from_its_base() {
        let base = 31000 + (std::process::id() % 900) as u16;
        let per = [spec(PortChoice::PerInstance(base), PortConflict::Next)];
        let mut table = PortTable::new("x", Ports::new());
        table.allocate(&web(1), &per, HERE).unwrap();
        table.allocate(&web(2), &per, HERE).unwrap();
        assert!(port(&table, 1) >= base);
        assert!(port(&table, 2) > port(&table, 1));
        let high = [spec(PortChoice::PerInstance(65535), PortConflict::Next)];
        let error = table.allocate(&web(3), &high, HERE).unwrap_err();
        assert!(matches!(error, PortError::Exhausted { from: 65537, .. }), "{error}");
    }

    #[test]
    fn a_taken_port_is_passed_over_or_named() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        let mut table = PortTable::new("x", Ports::new());
        let fail = [spec(PortChoice::Fixed(taken), PortConflict::Fail)];
        let error = table.allocate(&web(1), &fail, HERE).unwrap_err().to_string();
        let expected =
            format!("port `http` of `web.1`: {taken} is held by pid {}", std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        if taken < 65000 {
            let next = [spec(PortChoice::Fixed(taken), PortConflict::Next)];
            table.allocate(&web(1), &next, HERE).unwrap();
            assert!(port(&table, 1) > taken);
        }
    }

    #[test]
    fn a_port_on_which_closed_connections_linger_is_held_by_nobody() {
        // A server that does not set SO_REUSEADDR, as the standard library's does, and closes first.
        let any = SockaddrStorage::from(SocketAddr::new(HERE, 0));
        let server = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let server = server.unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&server), &any).unwrap();
        nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let server = TcpListener::from(server);
        let address = server.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        drop(server.accept().unwrap());
        assert_eq!(io::Read::read(&mut client, &mut [0]).unwrap(), 0, "closed by the server");
        drop((client, server));
        let fail = [spec(PortChoice::Fixed(address.port()), PortConflict::Fail)];
        let error = PortTable::new("x", Ports::new()).allocate(&web(1), &fail, HERE).unwrap_err();
        assert!(error.to_string().contains("held by nobody: closed connections linger"), "{error}");
        assert_eq!(SpawnFailure::from(error).class, FailureClass::Conflict);
    }

    #[test]
    fn one_fixed_number_is_shared_only_within_its_service() {
        let free = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let fixed = [spec(PortChoice::Fixed(free), PortConflict::Fail)];
        let mut table = PortTable::new("x", Ports::new());
        table.allocate(&web(1), &fixed, HERE).unwrap();
        table.allocate(&web(2), &fixed, HERE).unwrap();
        assert_eq!(port(&table, 2), free);
        let db = InstanceId::parse("db.1").unwrap();
        let error = table.allocate(&db, &fixed, HERE).unwrap_err();
        assert!(matches!(error, PortError::Given { .. }), "{error}");
        table.release(&web(1));
        table.release(&web(2));
        table.allocate(&db, &fixed, HERE).unwrap();
    }

    fn with_ports(id: &str, ports: Vec<PortSpec>) -> (InstanceId, Arc<ServiceSpec>) {
        let id = InstanceId::parse(id).unwrap();
        let mut spec = crate::core::fixtures::service(id.service.as_str(), 1);
        spec.launch.ports = ports;
        (id, Arc::new(spec))
    }

    #[test]
    fn what_is_reserved_is_known_stays_and_yields_only_where_the_file_insists() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        let fixed = || vec![spec(PortChoice::Fixed(taken), PortConflict::Fail)];
        let auto = || vec![spec(PortChoice::Auto, PortConflict::Next)];
        let all = [
            with_ports("auto.1", auto()),
            with_ports("one.1", fixed()),
            with_ports("two.1", fixed()),
        ];
        let mut table = PortTable::new("x", Ports::new());
        table.reserve(&all, HERE);
        let number = |table: &PortTable, at: usize| table.all()[&all[at].0]["http"];
        let before = number(&table, 0);
        assert_eq!((number(&table, 1), number(&table, 2)), (taken, taken), "known, though taken");
        table.reserve(&all, HERE);
        assert_eq!(number(&table, 0), before);
        table.allocate(&all[0].0, &auto(), HERE).unwrap();
        assert_eq!(number(&table, 0), before);
        let error = table.allocate(&all[2].0, &fixed(), HERE).unwrap_err();
        assert!(matches!(error, PortError::Taken { .. }), "not the other's yet: {error}");
        drop(other);
        table.allocate(&all[2].0, &fixed(), HERE).unwrap();
        let error = table.allocate(&all[1].0, &fixed(), HERE).unwrap_err();
        assert!(matches!(error, PortError::Given { .. }), "{error}");
    }
}
