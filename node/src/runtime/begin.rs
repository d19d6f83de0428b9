//! One start: token, ports, output, process.

use std::rc::Rc;
use std::sync::Arc;

use hilum_shared::config::spec::{Limits, ReadyKind, ServiceSpec};
use hilum_shared::name::{InstanceId, Run};
use hilum_shared::wire::message::new_id;

use super::{Held, Output, Runtime, SETTLED};
use crate::channels::roster::Rhythm;
use crate::core::input::{FailureClass, SpawnFailure};
use crate::driver::cgroup::Leaf;
use crate::driver::request::Stdio;
use crate::driver::{limits, pipes, pty};
use crate::launch::prepare::Start;
use crate::log::handle::Source;

impl Runtime {
    /// Executes one run.
    ///
    /// # Errors
    /// What went wrong; nothing of the run is left then.
    pub(super) fn spawn(
        &mut self,
        instance: &InstanceId,
        run: Run,
        spec: &Arc<ServiceSpec>,
    ) -> Result<u32, SpawnFailure> {
        if !spec.launch.ports.is_empty() || self.context.ports.contains_key(instance) {
            let ip = self.context.container_ip;
            self.parts.ports.allocate(instance, &spec.launch.ports, ip)?;
            // Usually these are the numbers that were reserved.
            if self.context.ports.get(instance) != self.parts.ports.all().get(instance) {
                Rc::make_mut(&mut self.context).ports = self.parts.ports.all().clone();
            }
        }
        let begun = self.held.get(&(instance.clone(), run)).map(|held| held.token.clone());
        let token = begun.filter(|token| !token.is_empty()).unwrap_or_else(new_id);
        let context = Rc::clone(&self.context);
        let start = Start { context: &context, spec, instance, run, token: &token };
        let mut prepared = start.prepare()?;
        let mut held = Held { token: token.clone(), ..Held::default() };
        held.leaf = self.leaf(instance, &spec.launch.limits);
        prepared.request.cgroup = held.leaf.as_ref().map(|leaf| Arc::clone(&leaf.procs));
        let (stdout, stderr) = if spec.launch.tty {
            let (ours, theirs) = pty::output().map_err(shortage)?;
            prepared.request.stdio = Stdio::OutputTerminal(theirs);
            (ours, None)
        } else {
            let (out, stdout) = pipes::output().map_err(shortage)?;
            let (err, stderr) = pipes::output().map_err(shortage)?;
            limits::spares_reserve(&stderr).map_err(shortage)?;
            prepared.request.stdio = Stdio::Pipes { stdout, stderr };
            (out, Some(err))
        };
        if let Some(identity) = &prepared.request.identity {
            // `/dev/stdout` is opened by its path, which only an owner may do.
            for end in prepared.request.stdio.outputs() {
                let (uid, gid) = (Some(identity.uid), Some(identity.gid));
                std::os::unix::fs::fchown(end, uid, gid).map_err(shortage)?;
            }
        }
        if let Some(number) = prepared.notify_fd {
            let (reader, writer) = pipes::output().map_err(shortage)?;
            prepared.request.descriptors.push((writer, number));
            held.readiness = Some(self.await_newline(instance.clone(), run, reader));
        }
        let node = &self.parts.cluster.node;
        let rhythm = Rhythm { interval: node.heartbeat_interval, timeout: node.heartbeat_timeout };
        // Its first message may be faster than our next line.
        self.parts.roster.expect(instance.clone(), run, token.clone(), rhythm);
        let spawned = self.parts.processes.spawn(instance, run, &token, &mut prepared.request);
        let pid = spawned.map_err(SpawnFailure::from)?;
        let ready_pattern = match spec.policy.ready.as_ref().map(|check| &check.kind) {
            // Validated when the file was read.
            Some(ReadyKind::Log(pattern)) => regex::bytes::Regex::new(pattern).ok(),
            _ => None,
        };
        let policy = Arc::new(spec.policy.log.clone());
        let source = Source { instance: instance.clone(), run, pid, policy, ready_pattern };
        held.output = Some(Output { source, stdout, stderr });
        self.held.insert((instance.clone(), run), held);
        self.settles_at = Some(tokio::time::Instant::now() + SETTLED);
        if spec.policy.memory.is_some() {
            self.begin_sampling();
        }
        Ok(pid)
    }

    /// The instance's control group, where it has limits that need one and the node has a part of the tree.
    fn leaf(&self, instance: &InstanceId, limits: &Limits) -> Option<Leaf> {
        let cgroups = self.parts.cgroups.as_ref().filter(|_| limits.need_cgroup())?;
        match cgroups.leaf(instance, limits) {
            Ok(leaf) => {
                if !leaf.missing.is_empty() {
                    tracing::warn!(%instance, limits = leaf.missing.join(", "), "limits not in force");
                }
                Some(leaf)
            }
            Err(error) => {
                tracing::warn!(%instance, %error, "no control group");
                None
            }
        }
    }

    /// Numbers the ports of instances that may start later, so that `$(port.SERVICE.N.NAME)` is known to all.
    pub(super) fn reserve_ports(&mut self, instances: &[(InstanceId, Arc<ServiceSpec>)]) {
        self.parts.ports.reserve(instances, self.context.container_ip);
        Rc::make_mut(&mut self.context).ports = self.parts.ports.all().clone();
    }

    pub(super) fn give_up_ports(&mut self, instance: &InstanceId) {
        if self.context.ports.contains_key(instance) {
            self.parts.ports.release(instance);
            Rc::make_mut(&mut self.context).ports = self.parts.ports.all().clone();
        }
    }
}

fn shortage(error: std::io::Error) -> SpawnFailure {
    SpawnFailure {
        message: format!("no pipe for its output: {error}"),
        class: FailureClass::Shortage,
    }
}
