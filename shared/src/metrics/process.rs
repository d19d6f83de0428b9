//! What Linux knows of this process, under lymph's names.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

use super::series::{Kind, Series, Tags, Value};

/// The figures `rusage.*` and `proc.*` of this process. It reads three small files and one folder below `/proc/self`; what cannot be
/// read there is left out.
pub fn process(into: &mut Vec<Series>) {
    let mut put = |name: &'static str, kind, value: Value, help: &'static str| {
        into.push(Series { name: name.into(), value, tags: Tags::none(), kind, help: help.into() });
    };
    usage(&mut put);
    status(&mut put);
    io(&mut put);
    files(&mut put);
}

fn usage(put: &mut impl FnMut(&'static str, Kind, Value, &'static str)) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return };
    let seconds =
        |time: nix::sys::time::TimeVal| Value::Float(time.num_microseconds() as f64 / 1e6);
    let (user, system) = (seconds(usage.user_time()), seconds(usage.system_time()));
    let counter = Kind::Counter;
    put("rusage.utime", counter, user, "Seconds of CPU time spent in the program.");
    put("rusage.stime", counter, system, "Seconds of CPU time spent in the kernel.");
    put(
        "rusage.maxrss",
        Kind::Gauge,
        usage.max_rss().into(),
        "Largest resident memory so far, in KiB.",
    );
    let unused = "Not counted on Linux.";
    put("rusage.ixrss", Kind::Gauge, usage.shared_integral().into(), unused);
    put("rusage.idrss", Kind::Gauge, usage.unshared_data_integral().into(), unused);
    put("rusage.isrss", Kind::Gauge, usage.unshared_stack_integral().into(), unused);
    put("rusage.minflt", counter, usage.minor_page_faults().into(), "Page faults without reading.");
    put("rusage.majflt", counter, usage.major_page_faults().into(), "Page faults with reading.");
    put("rusage.nswap", counter, usage.full_swaps().into(), unused);
    put("rusage.inblock", counter, usage.block_reads().into(), "Blocks read from disks.");
    put("rusage.oublock", counter, usage.block_writes().into(), "Blocks written to disks.");
    put("rusage.msgsnd", counter, usage.ipc_sends().into(), unused);
    put("rusage.msgrcv", counter, usage.ipc_receives().into(), unused);
    put("rusage.nsignals", counter, usage.signals().into(), unused);
    let (waited, pushed) = ("Times a thread waited.", "Times a thread was put aside.");
    put("rusage.nvcsw", counter, usage.voluntary_context_switches().into(), waited);
    put("rusage.nivcsw", counter, usage.involuntary_context_switches().into(), pushed);
    put("proc.cpu.user", counter, user, "Seconds of CPU time spent in the program.");
    put("proc.cpu.system", counter, system, "Seconds of CPU time spent in the kernel.");
}

/// The lines `name: number …` of a file below `/proc/self`.
fn numbers(file: &str) -> HashMap<String, i64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    });
    pairs.collect()
}

fn status(put: &mut impl FnMut(&'static str, Kind, Value, &'static str)) {
    let status = numbers("status");
    let mut figure = |name, key, factor: i64, kind, help| {
        if let Some(value) = status.get(key) {
            put(name, kind, value.saturating_mul(factor).into(), help);
        }
    };
    figure("proc.mem.rss", "VmRSS", 1024, Kind::Gauge, "Resident memory, in bytes.");
    figure("proc.mem.vms", "VmSize", 1024, Kind::Gauge, "Address space, in bytes.");
    figure("proc.threads.count", "Threads", 1, Kind::Gauge, "Threads.");
    let (waited, pushed) =
        ("Times the main thread waited.", "Times the main thread was put aside.");
    let counter = Kind::Counter;
    figure("proc.ctxt_switches.voluntary", "voluntary_ctxt_switches", 1, counter, waited);
    figure("proc.ctxt_switches.involuntary", "nonvoluntary_ctxt_switches", 1, counter, pushed);
}

fn io(put: &mut impl FnMut(&'static str, Kind, Value, &'static str)) {
    let io = numbers("io");
    for (name, key, help) in [
        ("proc.io.read_count", "syscr", "Calls that read."),
        ("proc.io.write_count", "syscw", "Calls that wrote."),
        ("proc.io.read_bytes", "read_bytes", "Bytes fetched from disks."),
        ("proc.io.write_bytes", "write_bytes", "Bytes sent to disks."),
    ] {
        if let Some(value) = io.get(key) {
            put(name, Kind::Counter, (*value).into(), help);
        }
    }
}

fn files(put: &mut impl FnMut(&'static str, Kind, Value, &'static str)) {
    if let Ok(folder) = std::fs::read_dir("/proc/self/fd") {
        let links = folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let (mut files, mut sockets) = (0_i64, 0_i64);
        for link in links {
            files += 1;
            sockets += i64::from(link.as_os_str().as_bytes().starts_with(b"socket:"));
        }
        // One of them is the folder's own.
        put("proc.files.count", Kind::Gauge, (files - 1).max(0).into(), "Open descriptors.");
        put("proc.sockets.count", Kind::Gauge, sockets.into(), "Open sockets.");
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // -1 is "no limit", as in Python.
        let limit = |value: u64| Value::Int(i64::try_from(value).unwrap_or(-1));
        put("proc.files.soft_limit", Kind::Gauge, limit(soft), "Descriptors that may be open.");
        put(
            "proc.files.hard_limit",
            Kind::Gauge,
            limit(hard),
            "The most that limit may be raised to.",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described_under_lymphs_names() {
        let files = || {
            let mut all = Vec::new();
            process(&mut all);
            all.into_iter()
                .map(|series| (series.name.into_owned(), series.value.as_f64()))
                .collect::<HashMap<_, _>>()
        };
        let before = files();
        for name in "rusage.utime rusage.nivcsw proc.mem.rss proc.mem.vms proc.ctxt_switches.voluntary proc.cpu.user \
                     proc.files.count proc.files.soft_limit proc.threads.count proc.sockets.count"
            .split_whitespace()
        {
            assert!(before.contains_key(name), "{name} is not in {before:?}");
        }
        assert!(before["proc.mem.rss"] > 1e6 && before["proc.mem.vms"] >= before["proc.mem.rss"]);
        assert!(before["rusage.maxrss"] * 1024.0 >= before["proc.mem.rss"] * 0.5);
        let opened: Vec<_> =
            (0..5).map(|_| std::os::unix::net::UnixDatagram::unbound().unwrap()).collect();
        let after = files();
        // Tests of other files may open some, too, where all share a process.
        assert!(after["proc.files.count"] >= before["proc.files.count"] + 5.0);
        assert!(after["proc.sockets.count"] >= before["proc.sockets.count"] + 5.0);
        drop(opened);
    }
}
