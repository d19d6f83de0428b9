//! `tail`: follows log endpoints, in lymph's frames `[LEVEL, endpoint, text]`. What it shows comes over the network: a
//! slow reader or a broken connection loses lines, and is told so; `logs -f` reads the files and loses none.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use hilum_shared::name::InstanceId;
use hilum_shared::protocol::Level;
use hilum_shared::registry::{Choice, Instance};
use hilum_shared::transport::endpoint::Endpoint;
use hilum_shared::transport::{
    Flow, Frames, Handler, Hub, Kind, Port, Socket, SocketEvent, SocketSpec,
};
use md5::{Digest, Md5};
use serde_json::json;

use super::caller::{self, CallerArgs};
use super::exit::{CliError, ExitStatus, Outcome};
use super::output::{Stream as Output, Style, reader_gone, written};
use super::session::Session;
use super::target::Selection;
use super::{discover, lines};
use crate::log::console::escape;
use crate::log::record::NODE_NAME;

/// The words of `tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    hilum tail web                          what web's instances write from now on, over the node's log endpoint\n  \
    hilum tail tcp://10.0.0.5:5600 -l error   another node's, or a lymph container's, log endpoint\n\n\
    An address is a ZeroMQ endpoint, a service or instance of the running node, or a service of the registry, wherever it runs.\n\
    Prints `[address][identity] [LEVEL] text`. What is lost on the way is told; `hilum logs -f` loses nothing.")]
pub(crate) struct TailArgs {
    /// Endpoints (`tcp://…`, `ipc://…`), services, instances and globs of the running node, services of the registry
    #[arg(value_name = "ADDRESS", required = true, add = super::completions::targets())]
    addresses: Vec<String>,
    /// At least this grave
    #[arg(short, long, value_name = "LEVEL", default_value = "info", value_parser = super::logs::level, add = super::completions::levels())]
    level: Level,
}

/// How often it is looked whether our reader is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Messages between the network and the output; then the network waits.
const WAITING: usize = 10_000;

/// One endpoint that is followed.
struct Source {
    /// As the user wrote it.
    address: String,
    /// Of the node's lines, whose are wanted.
    selection: Option<Selection>,
    /// Whether it was connected before.
    known: bool,
    /// Whether it was said that nobody is there.
    told: bool,
}

enum News {
    Message(Frames),
    Event(SocketEvent),
}

/// Runs `tail`.
pub(crate) fn run(session: &Session, args: &TailArgs) -> Outcome {
    let mut endpoints: Vec<(String, Source)> = Vec::new();
    for address in &args.addresses {
        for (endpoint, selection) in resolve(session, address)? {
            let source = Source { address: address.clone(), selection, known: false, told: false };
            endpoints.push((endpoint, source));
        }
    }
    let failed = |what: String| CliError::failed(format!("cannot listen: {what}"));
    let hub = Hub::start("zmq").map_err(|error| failed(error.to_string()))?;
    let (sender, received) = sync_channel(WAITING);
    let mut sockets = Vec::new();
    let mut sources = HashMap::new();
    for (number, (endpoint, source)) in endpoints.into_iter().enumerate() {
        let spec = SocketSpec {
            subscribe: topics(args.level),
            monitor: true,
            high_water: WAITING as u32,
            ..SocketSpec::new(Kind::Sub).connect(&endpoint)
        };
        let ear = Ear { number, sender: sender.clone() };
        sockets.push(hub.open(spec, ear).map_err(|error| failed(error.to_string()))?);
        sources.insert(number, source);
    }
    listen(session, &received, &sockets, &mut sources)
}

/// A log endpoint, and whose of its lines are meant; `None` = all are.
type Found = (String, Option<Selection>);

/// An instance whose log cannot be followed.
struct Silent {
    here: bool,
    why: String,
}

/// Where an address is: an endpoint, what the running node knows by this name, and what the registry does beside it.
fn resolve(session: &Session, address: &str) -> Result<Vec<Found>, CliError> {
    if address.contains("://") {
        Endpoint::parse(address).map_err(|error| CliError::Usage {
            message: error.to_string(),
            help: Some("an endpoint looks like `tcp://127.0.0.1:5600`".into()),
        })?;
        return Ok(vec![(address.to_owned(), None)]);
    }
    let local = of_the_node(session, address);
    let config = session.config();
    let embedded = config.is_ok_and(|it| matches!(it.cluster.container.registry, Choice::Embedded));
    if embedded && let Ok(local) = local {
        return Ok(vec![local]); // that registry knows nobody else's
    }
    match (local, of_the_registry(session, address)) {
        // What the node publishes itself is not taken a second time by way of the registry.
        (Ok(local), Ok((others, silent))) => {
            // What runs here is heard by way of the node, whatever the registry says.
            for one in silent.iter().filter(|one| !one.here) {
                session.out.note(&one.why);
            }
            let others = others.into_iter().filter(|(endpoint, _)| *endpoint != local.0);
            Ok(std::iter::once(local.clone()).chain(others).collect())
        }
        (Ok(local), Err(_)) => Ok(vec![local]),
        // Who looks for a name of the registry is to hear that it is away.
        (Err(_), Err(away @ CliError::Call { .. })) => Err(away),
        (Err(_), Ok((found, silent))) if !found.is_empty() => {
            for one in &silent {
                session.out.note(&one.why);
            }
            Ok(found)
        }
        (Err(_), Ok((_, silent))) if !silent.is_empty() => {
            let why: Vec<String> = silent.into_iter().map(|one| one.why).collect();
            Err(CliError::failed(why.join("; ")))
        }
        (Err(error), _) => Err(error),
    }
}

fn of_the_node(session: &Session, address: &str) -> Result<Found, CliError> {
    let node = session.node()?;
    let endpoint = session.status(&node)?.node.log_endpoint;
    let endpoint = endpoint.unwrap_or_else(|| node.run_dir.endpoint("pub.sock"));
    let selection = lines::select(session, &[address.to_owned()])?;
    Ok((endpoint, Some(selection)))
}

/// The log endpoints of a service's instances. That of a node is the same for all that it runs; one of lymph is its container's own.
fn of_the_registry(
    session: &Session,
    service: &str,
) -> Result<(Vec<Found>, Vec<Silent>), CliError> {
    let all = caller::run(session, &CallerArgs::default(), async |caller| caller.discover().await)?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut silent = Vec::new();
    let mut add = |instance: &Instance, why| silent.push(Silent { here: instance.is_here(), why });
    for instance in all.get(service).iter().flat_map(|instances| instances.iter()) {
        match instance.log_endpoint.as_deref() {
            Some(endpoint) if endpoint.starts_with("tcp://") || instance.is_here() => {
                let names = found.entry(endpoint.to_owned()).or_default();
                names.extend(discover::run_by(instance).map(str::to_owned));
            }
            Some(_) => add(
                instance,
                format!(
                    "`{service}` at {} publishes its log on its own machine only; `container.log_endpoint` of its node opens it",
                    instance.endpoint
                ),
            ),
            None => add(
                instance,
                format!(
                    "`{service}` at {} publishes no log for other machines; `container.log_endpoint` of its node opens it",
                    instance.endpoint
                ),
            ),
        }
    }
    let found = found.into_iter();
    let found = found
        .map(|(endpoint, names)| (endpoint, (!names.is_empty()).then(|| Selection::of(&names))))
        .collect();
    Ok((found, silent))
}

/// The levels from this one on, each a topic; the publisher sends no others.
fn topics(least: Level) -> Vec<Vec<u8>> {
    let all = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];
    let wanted = all.into_iter().filter(|level| *level >= least);
    wanted.map(|level| level.as_str().as_bytes().to_vec()).collect()
}

struct Ear {
    number: usize,
    sender: SyncSender<(usize, News)>,
}

impl Handler for Ear {
    fn message(&mut self, frames: Frames, _port: &mut Port<'_>) -> Flow {
        match self.sender.try_send((self.number, News::Message(frames))) {
            Err(TrySendError::Full((_, News::Message(frames)))) => Flow::Full(frames),
            _ => Flow::Taken,
        }
    }

    fn event(&mut self, event: SocketEvent, _port: &mut Port<'_>) {
        // Where there is no room, lines are shown anyway, which says as much.
        let _ = self.sender.try_send((self.number, News::Event(event)));
    }
}

fn listen(
    session: &Session,
    received: &Receiver<(usize, News)>,
    sockets: &[Socket],
    sources: &mut HashMap<usize, Source>,
) -> Outcome {
    let mut out = session.out.stream();
    loop {
        let news = match received.try_recv() {
            Ok(news) => Ok(news),
            Err(_) => {
                out.flush()?;
                sockets.iter().for_each(Socket::resume);
                received.recv_timeout(LOOK)
            }
        };
        let (number, news) = match news {
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout) if reader_gone() => return Ok(ExitStatus::Done),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(CliError::failed("the ZeroMQ thread has ended"));
            }
        };
        let Some(source) = sources.get_mut(&number) else { continue };
        match news {
            News::Message(frames) => show(session, source, &frames, &mut out)?,
            News::Event(event) => tell(session, source, event),
        }
    }
}

/// Connections come and go; what was published meanwhile is lost to us.
fn tell(session: &Session, source: &mut Source, event: SocketEvent) {
    let address = &source.address;
    match event {
        SocketEvent::Connected => {
            if std::mem::replace(&mut source.known, true) {
                session.out.note(&format!(
                    "{address}: connected again; what was published meanwhile is not shown here, `hilum logs` has it"
                ));
            } else {
                session.out.detail(&format!("{address}: connected"));
            }
        }
        SocketEvent::Disconnected => {
            session.out.note(&format!("{address}: the connection is lost; trying again"));
        }
        SocketEvent::Refused if !source.known && !source.told => {
            source.told = true;
            session.out.note(&format!("{address}: nobody publishes there yet; waiting"));
        }
        SocketEvent::Refused | SocketEvent::Accepted => {}
    }
}

fn show(
    session: &Session,
    source: &Source,
    frames: &Frames,
    out: &mut Output,
) -> Result<(), CliError> {
    let [level, endpoint, text] = frames.as_slice() else {
        session.out.detail(&format!("{}: {} frames are no log line", source.address, frames.len()));
        return Ok(());
    };
    if !source.selection.as_ref().is_none_or(|selection| is_wanted(selection, text)) {
        return Ok(());
    }
    let level = String::from_utf8_lossy(level);
    let identity = identity(endpoint);
    if session.out.json {
        return out.json(&json!({
            "address": source.address,
            "endpoint": String::from_utf8_lossy(endpoint),
            "identity": identity,
            "level": level,
            "text": String::from_utf8_lossy(text),
        }));
    }
    let paint = session.out.paint;
    let style = match Level::parse(&level) {
        Some(Level::Error | Level::Critical) => Style::Bad,
        Some(Level::Warning) => Style::Warn,
        _ => Style::Dim,
    };
    let mut shown = Vec::with_capacity(text.len() + 64);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for line in text.split(|byte| *byte == b'\n') {
        let mut head = Vec::new();
        escape(source.address.as_bytes(), false, &mut head);
        shown.push(b'[');
        shown.append(&mut head);
        shown.extend_from_slice(format!("][{identity}] ").as_bytes());
        escape(level.as_bytes(), false, &mut head);
        let word = format!("[{}]", String::from_utf8_lossy(&head));
        shown.extend_from_slice(paint.paint(style, &word).as_bytes());
        shown.push(b' ');
        if escape(line, paint.on(), &mut shown) {
            shown.extend_from_slice(b"\x1b[0m");
        }
        shown.push(b'\n');
    }
    written(out.write_all(&shown))
}

/// Whether a line of our node, `web.1 out | text`, is by whom we want; its word that lines were lost is for all.
fn is_wanted(selection: &Selection, text: &[u8]) -> bool {
    let name = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let Ok(name) = std::str::from_utf8(name) else { return false };
    if !text[name.len()..].starts_with(b" out |")
        && !text[name.len()..].starts_with(b" err |")
        && !text[name.len()..].starts_with(b" log |")
        && !text[name.len()..].starts_with(b" node |")
    {
        return true;
    }
    match InstanceId::parse(name) {
        Ok(id) => selection.instance(&id),
        Err(_) if name == NODE_NAME => text.starts_with("* node | … ".as_bytes()),
        Err(_) => selection.service(name),
    }
}

/// The first ten digits of what lymph calls an endpoint's identity: the MD5 of a Python tuple's text.
fn identity(endpoint: &[u8]) -> String {
    let tuple = format!("('{}',)", String::from_utf8_lossy(endpoint));
    let digest = Md5::digest(tuple.as_bytes());
    let mut hex = format!("{digest:x}");
    hex.truncate(10);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_lymphs() {
        // hashlib.md5(str(('tcp://127.0.0.1:44001',)).encode()).hexdigest()
        assert_eq!(identity(b"tcp://127.0.0.1:44001"), "799d5efc3f");
    }

    #[test]
    fn levels_are_topics() {
        assert_eq!(topics(Level::Error), [b"ERROR".to_vec(), b"CRITICAL".to_vec()]);
        assert_eq!(topics(Level::Debug).len(), 5);
    }

    #[test]
    fn lines_of_others_are_left_out_but_losses_are_for_all() {
        let web = Selection::of(&["web".into()]);
        assert!(is_wanted(&web, b"web.2 out | hello"));
        assert!(is_wanted(&web, b"web node | scaled from 1 to 2"));
        assert!(!is_wanted(&web, b"db.1 err | web.2 out | hello"));
        let lost = "* node | … 7 lines dropped (a subscriber of the log endpoint was too slow)";
        assert!(is_wanted(&web, lost.as_bytes()));
        assert!(!is_wanted(&web, b"* node | configuration unchanged"));
    }
}
