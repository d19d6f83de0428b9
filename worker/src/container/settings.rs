//! The `container` section, lymph's words for how a process takes part.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hilum_shared::config::Diagnostics;
use hilum_shared::config::service::Section;
use hilum_shared::rpc;
use hilum_shared::transport::reach;
use serde::Deserialize;

/// `container`, and what stands in its place on the command line and in the environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that is listened on, and told to others; of `0.0.0.0` and `::` the one that leads outside is told.
    pub ip: IpAddr,
    /// The port; `None` = a free one.
    pub port: Option<u16>,
    /// How connections are watched.
    pub connection: Connection,
    /// Calls that are worked on at once, of each interface; more wait.
    pub pool: Option<usize>,
    /// Calls of each interface that wait beside those; one more is told that it is overloaded.
    pub queue: usize,
    /// Tags of every metric, beside `service`, `host` and `identity`.
    pub tags: BTreeMap<String, String>,
    /// Whether metrics are published, too, as lymph does; who asks gets them in any case.
    pub publish_metrics: bool,
    /// What this process is called in metrics.
    pub service_name: Option<String>,
    /// Whether others are to find it.
    pub isolated: bool,
}

/// `container.rpc.connection`: in seconds, as in lymph.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Between two pings of a connection; 0 = none.
    pub heartbeat_interval: f64,
    /// Silence after which the other side gets no more requests.
    pub timeout: f64,
    /// Time without calls after which nothing is expected of a connection any more.
    pub idle_timeout: f64,
    /// Silence after which a connection is closed.
    pub unresponsive_disconnect: f64,
    /// Time without calls after which a connection is closed.
    pub idle_disconnect: f64,
}

impl Default for Connection {
    /// lymph's.
    fn default() -> Self {
        Self {
            heartbeat_interval: 1.0,
            timeout: 3.0,
            idle_timeout: 10.0,
            unresponsive_disconnect: 30.0,
            idle_disconnect: 60.0,
        }
    }
}

/// What the command line says over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--ip`.
    pub ip: Option<IpAddr>,
    /// `--guess-external-ip`.
    pub guess_external_ip: bool,
    /// `--port`.
    pub port: Option<u16>,
    /// `--isolated`.
    pub isolated: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    class: Option<String>,
    ip: Option<IpAddr>,
    port: Option<u16>,
    service_name: Option<String>,
    pool: Pool,
    rpc: Rpc,
    metrics: Metrics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Pool {
    class: Option<String>,
    size: Option<usize>,
    queue: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rpc {
    class: Option<String>,
    ip: Option<IpAddr>,
    port: Option<u16>,
    connection: Connection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Metrics {
    tags: BTreeMap<String, String>,
    publish: bool,
}

/// So many calls wait for each that is worked on, where `container.pool.queue` does not say it: what waits longer is mostly given
/// up by its caller before its turn.
const WAITING: usize = 16;
/// So many may wait at least.
const LEAST_WAITING: usize = 64;

/// Keys of `container` that somebody else reads: the registry, the node, the event system.
const OTHERS: [&str; 3] = ["registry", "log_endpoint", "events"];

/// The variable in which a node says where its services listen.
const NODE_IP: &str = "LYMPH_NODE_IP";

/// The variable in which a node says what its services are called.
const SERVICE_NAME: &str = "LYMPH_SERVICE_NAME";

impl Default for Settings {
    /// lymph's: this machine only, a free port.
    fn default() -> Self {
        Self {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: None,
            connection: Connection::default(),
            pool: None,
            queue: LEAST_WAITING,
            tags: BTreeMap::new(),
            publish_metrics: false,
            service_name: None,
            isolated: false,
        }
    }
}

impl Settings {
    /// Reads them from a service's configuration.
    ///
    /// # Errors
    /// With what is wrong in `container`.
    pub fn read(
        config: &Section,
        overrides: &Overrides,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, Diagnostics> {
        let section = config.get("container");
        let written: Written = section.without(&OTHERS).read()?;
        for (key, class) in [
            ("container.class", &written.class),
            ("container.pool.class", &written.pool.class),
            ("container.rpc.class", &written.rpc.class),
        ] {
            if let Some(class) = class.as_ref().filter(|class| !class.starts_with("lymph.")) {
                tracing::warn!(key, class, "there is one kind of this here; the class is not used");
            }
        }
        let given = match env.get(NODE_IP).map(|text| text.parse::<IpAddr>()) {
            Some(Ok(ip)) => Some(ip),
            Some(Err(_)) => {
                tracing::warn!(variable = NODE_IP, "is no IP address and is not used");
                None
            }
            None => None,
        };
        let guessed = if overrides.guess_external_ip { Some(external_ip()) } else { None };
        let connection = written.rpc.connection;
        connection
            .check()
            .map_err(|message| section.get("rpc").get("connection").error(message, None))?;
        let size = section.get("pool").get("size");
        if written.pool.size.is_none() && written.pool.queue.is_some() {
            let help = "write `size`, too, or leave `queue` out";
            return Err(section
                .get("pool")
                .get("queue")
                .error("without a `size` no call waits", Some(help.to_owned())));
        }
        if written.pool.size == Some(0) {
            let help = "write how many calls each interface works on at once, or leave it out: then all that come";
            return Err(
                size.error("a pool of 0 would never work on any call", Some(help.to_owned()))
            );
        }
        Ok(Self {
            ip: (overrides.ip.or(guessed).or(written.rpc.ip).or(written.ip).or(given))
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: overrides.port.or(written.rpc.port).or(written.port).filter(|port| *port != 0),
            connection,
            pool: written.pool.size,
            queue: written.pool.queue.unwrap_or_else(|| {
                written.pool.size.unwrap_or_default().saturating_mul(WAITING).max(LEAST_WAITING)
            }),
            tags: written.metrics.tags,
            publish_metrics: written.metrics.publish,
            service_name: match (env.get(SERVICE_NAME), written.service_name) {
                (Some(name), _) if !name.is_empty() => Some(name.clone()),
                (_, Some(name)) => Some(name),
                _ => config.get("name").text()?,
            },
            isolated: overrides.isolated,
        })
    }
}

impl Connection {
    /// The same for connections; durations were checked when they were read.
    pub(crate) fn config(&self) -> rpc::Config {
        let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        rpc::Config {
            heartbeat_interval: seconds(self.heartbeat_interval),
            timeout: seconds(self.timeout),
            idle_timeout: seconds(self.idle_timeout),
            unresponsive_disconnect: seconds(self.unresponsive_disconnect),
            idle_disconnect: seconds(self.idle_disconnect),
            ..rpc::Config::default()
        }
    }

    fn check(&self) -> Result<(), String> {
        let all = [
            self.heartbeat_interval,
            self.timeout,
            self.idle_timeout,
            self.unresponsive_disconnect,
            self.idle_disconnect,
        ];
        if all.iter().any(|seconds| Duration::try_from_secs_f64(*seconds).is_err()) {
            return Err("durations are seconds, not below 0".to_owned());
        }
        if self.heartbeat_interval < self.timeout && self.timeout < self.idle_timeout {
            return Ok(());
        }
        let Self { heartbeat_interval, timeout, idle_timeout, .. } = self;
        Err(format!(
            "`heartbeat_interval` ({heartbeat_interval}) must be below `timeout` ({timeout}), and that below `idle_timeout` \
             ({idle_timeout})"
        ))
    }
}

/// The address of the interface that leads outside; 127.0.0.1 where none does.
fn external_ip() -> IpAddr {
    reach::outside().unwrap_or_else(|| {
        tracing::warn!("no address leads outside: 127.0.0.1 is used");
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    })
}

#[cfg(test)]
mod tests {
    use hilum_shared::config::service::{self, ServiceOptions};

    use super::*;

    fn read(text: &str, overrides: &Overrides, env: &[(&str, &str)]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".lymph.yml"), text).unwrap();
        let options = ServiceOptions { folder: folder.path().to_owned(), ..Default::default() };
        let config = service::load(&options).unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::read(&config, overrides, &env.collect()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn the_nearest_word_on_the_address_counts() {
        let file = "container: {ip: 10.0.0.1, port: 4444, rpc: {ip: 10.0.0.2, port: 5555}}";
        let node = [("LYMPH_NODE_IP", "10.0.0.9")];
        let at = |text: &str, overrides: &Overrides, env: &[(&str, &str)]| {
            let settings = read(text, overrides, env).unwrap();
            (settings.ip.to_string(), settings.port)
        };
        let is = |ip: &str, port: Option<u16>| (ip.to_owned(), port);
        let nothing = Overrides::default();
        assert_eq!(at("name: x", &nothing, &[]), is("127.0.0.1", None));
        assert_eq!(at("name: x", &nothing, &node), is("10.0.0.9", None));
        let nonsense = [("LYMPH_NODE_IP", "nonsense")];
        assert_eq!(at("name: x", &nothing, &nonsense), is("127.0.0.1", None));
        let own = "container: {ip: 10.0.0.1, port: 0}";
        assert_eq!(at(own, &nothing, &node), is("10.0.0.1", None));
        assert_eq!(at(file, &nothing, &node), is("10.0.0.2", Some(5555)));
        let said =
            Overrides { ip: Some([10, 0, 0, 3].into()), port: Some(6666), ..Overrides::default() };
        assert_eq!(at(file, &said, &node), is("10.0.0.3", Some(6666)));
        let guessed = Overrides { guess_external_ip: true, ..Overrides::default() };
        let outside = reach::outside().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(at(file, &guessed, &node), is(&outside.to_string(), Some(5555)));
    }

    #[test]
    fn the_rest_of_the_section_is_read_and_its_slips_are_told() {
        let file = "name: shop
container:
  pool: {size: 5}
  metrics: {tags: {zone: a}, publish: true}
  rpc: {connection: {timeout: 2}}
";
        let alone = Overrides { isolated: true, ..Overrides::default() };
        let settings = read(file, &alone, &[]).unwrap();
        assert_eq!(settings.pool, Some(5));
        assert!(settings.publish_metrics && settings.isolated);
        assert_eq!(settings.tags["zone"], "a");
        assert_eq!(settings.connection.config().timeout, Duration::from_secs(2));
        assert_eq!(settings.service_name.as_deref(), Some("shop"));
        let under_a_node = read(file, &alone, &[("LYMPH_SERVICE_NAME", "front")]).unwrap();
        assert_eq!(under_a_node.service_name.as_deref(), Some("front"));
        for (text, says) in [
            ("container: {rpc: {connection: {timeout: 20}}}", "must be below `timeout` (20)"),
            ("container: {rpc: {connection: {timeout: -1}}}", "not below 0"),
            ("container: {prot: 1}", "prot"),
            ("container: {pool: {size: 0}}", "never work on any call"),
            ("container: {ip: nowhere}", "container.ip"),
        ] {
            let wrong = read(text, &alone, &[]).unwrap_err();
            assert!(wrong.contains(says), "{says}: {wrong}");
        }
    }
}
