//! *Stopped means empty*: what is left of a run whose leader has ended, and its end.
//!
//! Whatever a run leaves behind hangs below us: an orphan's parent is the nearest subreaper, which we
//! are, and there the main thread. So one reading of that thread's list of children answers for a whole batch of ended
//! runs; those that we did not start are looked at closer, once each, and remembered until they are reaped. Where
//! the kernel does not help (no subreaper, no list), all of `/proc` is searched for the marks.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use hilum_shared::name::{InstanceId, Run};
use hilum_shared::signal::Signal;

use super::child::{Adopted, Owner, Processes, Stray, Table};
use super::procfs::{self, Stat};
use super::sys;

/// What is left of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing; the run is forgotten.
    Empty,
    /// These processes.
    Left {
        /// All that were found.
        pids: Vec<u32>,
        /// They were sent KILL and all of them are in uninterruptible sleep.
        stuck: bool,
    },
}

/// So many looks for children that were forked between a look and the KILL.
const KILL_ROUNDS: usize = 4;

impl Processes {
    /// Looks what is left of these runs. A run whose leader has not been taken out by
    /// [`take_exits`](Self::take_exits) is never empty.
    pub fn sweep(&self, runs: &[(InstanceId, Run)]) -> Vec<(InstanceId, Run, Remains)> {
        let mut table = self.table();
        table.refresh();
        table.remains_of(runs)
    }

    /// Sends KILL to everything of these runs: group, descendants, what left both. The
    /// answer is what has not yet gone, usually just dying: sweep again when
    /// [`reap_strays`](Self::reap_strays) names the run, or its leader ends.
    pub fn kill(&self, runs: &[(InstanceId, Run)]) -> Vec<(InstanceId, Run, Remains)> {
        let mut table = self.table();
        let owners: Vec<Owner> = runs.iter().map(|(i, r)| Owner::Run(i.clone(), *r)).collect();
        table.kill(&owners);
        table.remains_of(runs)
    }

    /// Sends a signal to processes that a sweep found, as far as they still belong to the run.
    pub fn signal_left(&self, instance: &InstanceId, run: Run, signal: Signal, pids: &[u32]) {
        let table = self.table();
        let owner = Owner::Run(instance.clone(), run);
        for &pid in pids {
            // The descriptor first: what is then looked at is what is signalled.
            let Ok(pidfd) = sys::pidfd_open(pid) else { continue };
            if table.attribute(pid).as_ref() == Some(&owner) {
                let _ = sys::send(pidfd.as_fd(), signal); // EPERM: the KILL at the end is all we have
                if signal == Signal::TERM {
                    let _ = sys::send(pidfd.as_fd(), Signal::CONT);
                }
            }
        }
    }

    /// Reaps processes that came to us as orphans and have ended; call it when somebody ended and it was no leader. The
    /// answer is that of [`lost`](Self::lost).
    pub fn reap_strays(&self) -> Vec<(InstanceId, Run)> {
        self.table().refresh();
        self.lost()
    }

    /// The runs of which an orphan was reaped since the last call: what was left of them may be gone now.
    pub fn lost(&self) -> Vec<(InstanceId, Run)> {
        let mut table = self.table();
        let mut runs: Vec<(InstanceId, Run)> = table
            .lost
            .drain(..)
            .filter_map(|owner| match owner {
                Owner::Run(instance, run) => Some((instance, run)),
                Owner::Command(_) => None,
            })
            .collect();
        runs.sort_unstable();
        runs.dedup();
        runs
    }

    /// Orphans that no run can be named for, alive at the last look.
    pub fn strays(&self) -> Vec<Stray> {
        let table = self.table();
        let unowned = table.adopted.iter().filter(|(_, a)| a.owner.is_none());
        unowned.map(|(&pid, adopted)| Stray { pid, name: adopted.name.clone() }).collect()
    }

    /// The end of the node: sends KILL to everything below it and to every stray. The answer is what has not yet gone;
    /// call it again until that is empty or patience ends.
    pub fn kill_everything(&self) -> Vec<u32> {
        let mut table = self.table();
        let owners: Vec<Owner> = table.entries.keys().cloned().collect();
        table.kill(&owners);
        let mut seen = HashSet::new();
        for _ in 0..KILL_ROUNDS {
            let unowned: Vec<u32> = table
                .adopted
                .iter()
                .filter(|(_, adopted)| adopted.owner.is_none())
                .map(|(&pid, _)| pid)
                .collect();
            let mut targets = procfs::descendants(&unowned);
            targets.extend(unowned);
            if !kill_new(&targets, &mut seen) {
                break;
            }
            table.refresh();
        }
        let owners: Vec<Owner> = table.entries.keys().cloned().collect();
        let mut left: Vec<u32> = table.members(&owners).into_values().flatten().collect();
        left.extend(table.adopted.iter().filter(|(_, a)| a.owner.is_none()).map(|(&pid, _)| pid));
        left.retain(|&pid| Stat::read(pid).is_some_and(|stat| !stat.is_zombie()));
        left
    }

    /// Ends a command and all that it started.
    pub(super) fn end_command(&self, number: u64) {
        let mut table = self.table();
        let owner = Owner::Command(number);
        table.refresh();
        if !table.members(std::slice::from_ref(&owner)).is_empty() {
            table.kill(std::slice::from_ref(&owner));
        }
        // Its leader has ended or is dying of KILL: `refresh` reaps it as a stray.
        table.abandon(&owner);
    }
}

impl Table {
    /// Brings `adopted` up to date: reaps orphans that ended, looks at new ones.
    pub(super) fn refresh(&mut self) {
        if self.orphans.is_none() {
            self.search_everywhere();
            return;
        }
        // A parent that ends while we read hands us its children behind our back: read
        // until nothing more is found to reap.
        loop {
            let mut reaped = false;
            let mut listed = std::mem::take(&mut self.listed);
            if let Some(file) = &mut self.orphans
                && file.read(&mut listed).is_err()
            {
                listed.clear();
            }
            listed.extend(&self.abandoned);
            for &pid in &listed {
                if self.leaders.contains_key(&pid) {
                    continue;
                }
                match sys::reap_pid(pid) {
                    Ok(None) => {
                        if !self.adopted.contains_key(&pid) {
                            self.adopt(pid);
                        }
                    }
                    Ok(Some(_)) => {
                        reaped = true;
                        self.lose(pid);
                    }
                    // ECHILD: gone since the list was read. Nothing to read the list again for.
                    Err(_) => self.lose(pid),
                }
            }
            self.listed = listed;
            if !reaped {
                return;
            }
        }
    }

    fn adopt(&mut self, pid: u32) {
        let owner = self.attribute(pid);
        let name = Stat::read(pid).map_or_else(String::new, |stat| stat.name);
        self.adopted.insert(pid, Adopted { owner, name });
    }

    fn lose(&mut self, pid: u32) {
        self.abandoned.retain(|&other| other != pid);
        if let Some(Adopted { owner: Some(owner), .. }) = self.adopted.remove(&pid) {
            self.lost.push(owner);
        }
    }

    /// Without a subreaper or a list: looks at all processes for the marks.
    fn search_everywhere(&mut self) {
        let before: Vec<u32> = self.adopted.keys().copied().collect();
        for pid in before {
            let _ = sys::reap_pid(pid); // ECHILD: it is not our child
            if Stat::read(pid).is_none_or(|stat| stat.is_zombie()) {
                self.lose(pid);
            }
        }
        let own = std::process::id();
        for pid in procfs::all() {
            if pid == own || self.leaders.contains_key(&pid) || self.adopted.contains_key(&pid) {
                continue;
            }
            let Some(stat) = Stat::read(pid).filter(|stat| !stat.is_zombie()) else {
                continue;
            };
            if let Some(owner) = self.attribute(pid) {
                let owner = Some(owner);
                let name = stat.name;
                self.adopted.insert(pid, Adopted { owner, name });
            }
        }
    }

    /// The living processes of these owners: leaders that have not ended, adopted ones. Owners without
    /// any are not in it. Costs nothing for owners that are not asked for.
    pub(super) fn members<'a>(&self, owners: &'a [Owner]) -> HashMap<&'a Owner, Vec<u32>> {
        let living = |owner: &'a Owner| {
            let entry = self.entries.get(owner).filter(|entry| entry.exit.is_none())?;
            Some((owner, vec![entry.pid]))
        };
        let mut members: HashMap<&Owner, Vec<u32>> = owners.iter().filter_map(living).collect();
        if self.adopted.is_empty() {
            return members;
        }
        let asked: HashSet<&'a Owner> = owners.iter().collect();
        for (&pid, adopted) in &self.adopted {
            if let Some(owner) = adopted.owner.as_ref().and_then(|owner| asked.get(owner)) {
                members.entry(*owner).or_default().push(pid);
            }
        }
        members
    }

    fn remains_of(&mut self, runs: &[(InstanceId, Run)]) -> Vec<(InstanceId, Run, Remains)> {
        let owners: Vec<Owner> = runs.iter().map(|(i, r)| Owner::Run(i.clone(), *r)).collect();
        let mut members = self.members(&owners);
        owners
            .iter()
            .zip(runs)
            .map(|(owner, (instance, run))| {
                let remains = match members.remove(owner) {
                    Some(roots) => self.left(owner, roots),
                    None => {
                        self.finish(owner);
                        Remains::Empty
                    }
                };
                (instance.clone(), *run, remains)
            })
            .collect()
    }

    fn left(&self, owner: &Owner, roots: Vec<u32>) -> Remains {
        let mut pids = procfs::descendants(&roots);
        pids.extend(roots);
        pids.sort_unstable();
        let killed = self.entries.get(owner).is_some_and(|entry| entry.killed);
        let asleep = |&pid: &u32| Stat::read(pid).is_some_and(|stat| stat.state == b'D');
        let stuck = killed && pids.iter().all(asleep);
        Remains::Left { pids, stuck }
    }

    /// Sends KILL to all of these, and again to what they forked meanwhile.
    fn kill(&mut self, owners: &[Owner]) {
        self.refresh();
        let mut seen = HashSet::new();
        for round in 0..KILL_ROUNDS {
            let members = self.members(owners);
            let mut targets = Vec::new();
            for owner in owners {
                let Some(entry) = self.entries.get_mut(owner) else {
                    continue;
                };
                entry.killed = true;
                if round == 0 {
                    // The leader, living or a zombie, holds the number: this reaches nobody else.
                    // EPERM: all of it became other users'; each is tried below, then it counts as left.
                    let _ = sys::send_group(entry.pid, Signal::KILL);
                    let _ = sys::send(entry.pidfd.as_fd(), Signal::KILL); // as above
                }
                let roots = members.get(owner).map_or(&[][..], Vec::as_slice);
                targets.extend(procfs::descendants(roots));
                targets.extend_from_slice(roots);
            }
            if !kill_new(&targets, &mut seen) {
                return;
            }
            self.refresh();
        }
    }

    /// Forgets a leader without waiting for it: it and what is left of it are strays from now on.
    fn abandon(&mut self, owner: &Owner) {
        let Some(entry) = self.entries.get(owner) else {
            return;
        };
        let (pid, ended) = (entry.pid, entry.exit.is_some());
        self.finish(owner);
        for adopted in self.adopted.values_mut() {
            if adopted.owner.as_ref() == Some(owner) {
                adopted.owner = None;
            }
        }
        if !ended && matches!(sys::reap_pid(pid), Ok(None)) {
            self.abandoned.push(pid);
            self.adopt(pid);
        }
    }
}

/// Sends KILL to those that are not in `seen` yet and says whether there were any.
pub(super) fn kill_new(pids: &[u32], seen: &mut HashSet<(u32, u64)>) -> bool {
    let mut any = false;
    for &pid in pids {
        let Some(before) = Stat::read(pid).filter(|stat| !stat.is_zombie()) else {
            continue;
        };
        if !seen.insert((pid, before.start)) {
            continue;
        }
        any = true;
        let Ok(pidfd) = sys::pidfd_open(pid) else {
            continue;
        };
        // The descriptor names the process that we looked at, or its number was given away between.
        if Stat::read(pid).is_some_and(|now| now.start == before.start) {
            let _ = sys::send(pidfd.as_fd(), Signal::KILL); // EPERM: it stays in the list of what is left
        }
    }
    any
}
