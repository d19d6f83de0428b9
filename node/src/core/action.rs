//! What the core asks the drivers to do. No action waits; each answer comes back as an input.

use std::sync::Arc;
use std::time::Duration;

use hilum_shared::config::spec::{Hook, ServiceSpec};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::protocol::control;
use hilum_shared::registry::directory::{View, Views};
use hilum_shared::signal::{Exit, Signal};

use super::event::Event;
use super::input::{HookPoint, ProbePurpose, RequestId};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Execute it. Answer: `Spawned` or `SpawnFailed`; later `Exited`, once.
    Spawn {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// With what.
        spec: Arc<ServiceSpec>,
    },
    /// Send a signal. No answer.
    Signal {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// Which signal.
        signal: Signal,
        /// To whom of the run.
        scope: Scope,
    },
    /// Send a signal to what a leader left behind. No answer.
    SignalLeft {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// Which signal.
        signal: Signal,
        /// To these, as far as they still belong to the run.
        pids: Vec<u32>,
    },
    /// KILL everything that belongs to the run, also what left its group and session.
    /// Answer: `Empty` or `Left`.
    Kill {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
    },
    /// Look whether anything of the run is left. Answer: `Empty` or `Left`.
    Sweep {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
    },
    /// Send an order on the shutdown channel, and repeat it to late subscribers until the run has
    /// ended. Answer: `Unheard` when nobody listens now.
    Order {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// What.
        order: OrderKind,
        /// Why, for people.
        reason: String,
    },
    /// Ask the probe's question every interval until told to stop or the run is over.
    StartProbe {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// Which of the two.
        purpose: ProbePurpose,
        /// Where the probe is described.
        spec: Arc<ServiceSpec>,
    },
    /// Ask no more.
    StopProbe {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// Which of the two.
        purpose: ProbePurpose,
    },
    /// Look whether the leader is stopped, traced, or waits for a processor. Answer: `Pulse`.
    Inspect {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
    },
    /// Run a hook. Answer: `HookDone`.
    Hook {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
        /// Which.
        point: HookPoint,
        /// The command.
        hook: Arc<Hook>,
        /// With whose environment and folder.
        spec: Arc<ServiceSpec>,
        /// The end that it may ask about.
        exit: Option<Exit>,
    },
    /// The run is over and empty: let go of all that was held for it.
    Forget {
        /// Whose.
        instance: InstanceId,
        /// Which life.
        run: Run,
    },
    /// These instances have come or have other ports now: number the ports, before anybody starts who may ask for them.
    Reserve(Vec<(InstanceId, Arc<ServiceSpec>)>),
    /// The instance is gone for good (scaled away, removed): give up its ports.
    Drop {
        /// Whose.
        instance: InstanceId,
    },
    /// A watched file changed and `action: run` is configured.
    RunWatchCommand {
        /// With whose environment and folder.
        spec: Arc<ServiceSpec>,
        /// Program and arguments.
        command: Vec<String>,
    },
    /// History.
    Publish(Event),
    /// Answer a client.
    Reply {
        /// Whose call.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// All is gone; the node ends with this exit code.
    Exit(i32),
}

/// To whom a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process that was executed.
    Leader,
    /// Its process group.
    Group,
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Drain and exit within this time.
    Shutdown {
        /// Until KILL.
        grace: Duration,
    },
    /// Read the configuration again.
    Reload,
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Something was begun.
    Accepted(control::Accepted),
    /// Something is done.
    Outcome(control::Outcome),
    /// A reload was planned or begun.
    Reloaded(control::Reloaded),
    /// It could not be.
    Fault(control::Fault),
    /// Services of the registry.
    Views(Views),
    /// One service of the registry.
    View(View),
    /// It is done, and there is nothing to say.
    Nothing,
}
