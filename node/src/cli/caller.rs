//! Who calls services from the command line: finds out what an ADDRESS means, calls it, and explains what went wrong.
//!
//! An ADDRESS is, in this order: an endpoint (`tcp://…`, `ipc://…`); `node`, the project's running node; an instance that this node runs
//! (`echo.2`); a service of the registry; an instance of it as `echo:ID`, by the first digits of its id or identity; a service that the
//! running node keeps. The node of another host is never taken for the own one: `node.stop` would end somebody else's services.
//! Nothing is asked before a name has to be found: calls of endpoints need neither a node nor a configuration.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hilum_shared::registry::{Memory, Registry};
use hilum_shared::rpc::{CallOptions, Client, Config, Endpoint, Error, Incoming, Reply, Sockets};
use hilum_shared::transport::reach;
use hilum_shared::wire::Value;
use tokio::sync::OnceCell;

pub(crate) use self::failure::{CallFailed, unknown_service};
pub(crate) use self::methods::Method;
pub(crate) use self::place::{Place, REGISTRY};
use super::exit::CliError;
use super::request::Subject;
use super::session::Session;

mod complete;
mod failure;
mod methods;
mod place;

/// How long a question of our own may take, beside the call that the user wanted.
const ASIDE: Duration = Duration::from_secs(1);

/// The words about our own side of calls.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct CallerArgs {
    /// Take the answers of lymph's services at this address of ours [default: one that leads to them]
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
    /// Take them at the address that leads outside
    #[arg(short, long, conflicts_with = "ip")]
    guess_external_ip: bool,
}

impl CallerArgs {
    /// Whether the user said where answers are taken.
    pub(crate) fn names_an_address(&self) -> bool {
        self.ip.is_some() || self.guess_external_ip
    }

    /// In a shell all calls have one address of ours.
    ///
    /// # Errors
    /// When a line of it names another.
    pub(crate) fn of_the_shell(&self) -> Result<(), CliError> {
        if !self.names_an_address() {
            return Ok(());
        }
        Err(CliError::usage(
            "answers to all lines of a shell are taken at one address",
            "`hilum shell --ip IP`, or `-g`, says which",
        ))
    }
}

/// Calls services. It lives in a runtime: see [`run`].
pub(crate) struct Caller<'a> {
    pub(crate) session: &'a Session,
    args: CallerArgs,
    registry: OnceCell<Arc<dyn Registry>>,
    /// By the address of ours that answers come to.
    clients: RefCell<HashMap<IpAddr, Client>>,
}

/// Runs a command that calls services.
pub(crate) fn run<'a, T>(
    session: &'a Session,
    args: &CallerArgs,
    work: impl AsyncFnOnce(&Caller<'a>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed(format!("no event loop: {error}")))?;
    let caller = Caller {
        session,
        args: args.clone(),
        registry: OnceCell::new(),
        clients: RefCell::default(),
    };
    let outcome = runtime.block_on(work(&caller));
    drop(caller);
    // A thread that waits for stdin is not waited for.
    runtime.shutdown_background();
    outcome
}

impl Caller<'_> {
    /// The registry that the configuration names.
    pub(crate) async fn registry(&self) -> Result<&Arc<dyn Registry>, CliError> {
        self.registry.get_or_try_init(async || super::registry::open(self.session).await).await
    }

    /// A call of `subject` at a place.
    ///
    /// # Errors
    /// As it went wrong; [`Caller::explain`] says more.
    pub(crate) async fn call(
        &self,
        place: &Place,
        subject: &str,
        body: &Value,
        options: CallOptions,
    ) -> Result<Reply, CallFailed> {
        let (client, options) = self.prepared(place, options).await?;
        Ok(client.request(subject, body, &options).await?)
    }

    /// The same, and a refusal or an error is an answer, too.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn exchange(
        &self,
        place: &Place,
        subject: &str,
        body: &Value,
        options: CallOptions,
    ) -> Result<Reply, CallFailed> {
        let (client, options) = self.prepared(place, options).await?;
        Ok(client.exchange(subject, body, &options).await?)
    }

    /// A client that reaches a place, and the options that name it.
    pub(crate) async fn prepared(
        &self,
        place: &Place,
        options: CallOptions,
    ) -> Result<(Client, CallOptions), CliError> {
        let client = self.client(place).await?;
        Ok((client, CallOptions { target: Some(place.target()), ..options }))
    }

    /// Takes the address of ours that the user named, if he named one, before anything is called.
    ///
    /// # Errors
    /// When it is not ours.
    pub(crate) async fn listen(&self) -> Result<(), CliError> {
        if self.args.names_an_address() {
            self.client(&Place::at("", [])).await?;
        }
        Ok(())
    }

    /// lymph's services answer by connecting to us, so we must listen where they can.
    async fn client(&self, place: &Place) -> Result<Client, CliError> {
        let ip = self.own_ip(place);
        if let Some(client) = self.clients.borrow().get(&ip) {
            return Ok(client.clone());
        }
        let registry = match self.registry.get() {
            Some(registry) => Arc::clone(registry),
            None => Arc::new(Memory::new()), // nothing but endpoints was asked for so far
        };
        let ours = SocketAddr::new(ip, 0).to_string();
        let ours = format!("tcp://{}*", ours.trim_end_matches('0'));
        let nobody = Arc::new(|_: Incoming| {});
        let config = Config::default();
        let endpoint = Endpoint::open(Arc::new(Sockets), &[&ours], nobody, config).await;
        let endpoint = endpoint.map_err(|error| {
            CliError::usage(
                format!("cannot take answers at `{ip}`: {error}"),
                "`--ip` must be an address of this machine",
            )
        })?;
        let client = Client::new(endpoint, registry);
        // One that was made before a name was asked for knows no names.
        if self.registry.get().is_some() {
            self.clients.borrow_mut().insert(ip, client.clone());
        }
        Ok(client)
    }

    fn own_ip(&self, place: &Place) -> IpAddr {
        const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if let Some(ip) = self.args.ip {
            return ip;
        }
        if self.args.guess_external_ip {
            return reach::outside().unwrap_or(HERE);
        }
        let instances = place.instances.iter();
        let ways = instances.filter_map(|one| reach::way_to(one.endpoint.strip_prefix("tcp://")?));
        // One that leads to other hosts leads here, too, and not the other way round.
        ways.min_by_key(IpAddr::is_loopback).unwrap_or(HERE)
    }

    /// Whether a refused call cannot but be refused again, as far as the service describes itself: a method or parameter that it does not
    /// have, one that is missing.
    pub(crate) async fn is_wrong(&self, place: &Place, subject: &Subject, body: &Value) -> bool {
        let methods = self.methods(place, ASIDE).await;
        methods.is_ok_and(|methods| failure::wrong_word(subject, body, &methods).is_some())
    }

    /// What to tell the user of a call that failed.
    pub(crate) async fn explain(
        &self,
        place: &Place,
        subject: &Subject,
        body: &Value,
        trace_id: &str,
        failed: CallFailed,
    ) -> CliError {
        let reached = failed.reached_somebody();
        let mut error = self.explained(place, subject, body, failed).await;
        if let CliError::Call { trace_id: trace, .. } = &mut error {
            *trace = reached.then(|| trace_id.to_owned());
        }
        error
    }

    async fn explained(
        &self,
        place: &Place,
        subject: &Subject,
        body: &Value,
        failed: CallFailed,
    ) -> CliError {
        let CallFailed::Rpc(error @ Error::Nack { .. }) = failed else {
            return failed.plain(self.session);
        };
        let Ok(methods) = self.methods(place, ASIDE).await else {
            return CallFailed::Rpc(error).plain(self.session);
        };
        let help = failure::why_refused(subject, body, &methods);
        CliError::Call { error: Box::new(error), help: Some(help), trace_id: None }
    }
}
