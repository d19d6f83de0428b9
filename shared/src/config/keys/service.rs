//! The keys of `instances.<name>`.

use super::Type::{
    Bool, Command, Cron, Duration, Glob, Int, Kinds as KindsOf, LevelFrom, List, Map, Mode,
    NamedOrList, Number, OneOrMore, Or, Path, Positive, Regex, Share, Short, Signal, Size, Table,
    Template, Text, Variable, Word,
};
use super::{Key, Kinds};

/// The most processes of one service; more is a slip of the pen.
pub const MAX_PROCESSES: i64 = 10_000;
/// The most of anything that is counted in 32 bits.
const MANY: i64 = i32::MAX as i64;

/// The keys of one service.
pub static SERVICE: &[Key] = &[
    Key::new("command", Command, "Program and arguments, split by the shell's quoting rules and run without a shell.").required(),
    Key::new("shell", Bool, "Runs `command` under `/bin/sh -c`.").or("false"),
    Key::new("numprocesses", Or(&[Word(&["cores"]), Int(0, MAX_PROCESSES)]), "How many processes; `cores` is the number of the machine's cores; 0 keeps the service known and stopped.").or("1"),
    Key::new("kind", Word(&["service", "job"]), "A `service` runs until it is stopped; a `job` that succeeds is `completed` and stays so.").or("service"),
    Key::new("directory", Template, "Working folder; a relative one is relative to the project folder.").or_as("project folder"),
    Key::new("env", Table(&Variable), "Environment variables; `null` removes one.").or("{}"),
    Key::new("env_file", OneOrMore(&Path), "Files of variables, relative to the file that names them; later ones win, `env` wins over all.").or("[]"),
    Key::new("inherit_env", Bool, "Whether the node's own environment is the base.").or("true"),
    Key::new("autostart", Bool, "Whether `up` starts it.").or("true"),
    Key::new("profiles", OneOrMore(&Text), "Started only when one of these is chosen with `--profile`; empty: always.").or("[]"),
    Key::new("depends_on", NamedOrList(DEPENDENCY), "Services that come first at the start and last at the stop.").or("{}"),
    Key::new("restart", Short("policy", RESTART), "What happens when a process ends.").or("{}"),
    Key::new("on_failure", Word(&["continue", "stop_dependents", "shutdown"]), "What happens to the others when it has failed for good; `stop_dependents` stops those that need it, and they come back when it is started again; `shutdown` ends the cluster: `hilum node` exits with its code, `hilum up` with 1, and says the code.").or("continue"),
    Key::new("ready", KindsOf(&READY), "How it is known to be ready.").or_as("running is ready"),
    Key::new("alive", KindsOf(&ALIVE), "How it is known to live.").or_as("`heartbeat` as soon as one was sent"),
    Key::new("stop", Map(STOP), "How it is stopped.").or("{}"),
    Key::new("rolling", Map(ROLLING), "How several instances are replaced.").or_as("all at once"),
    Key::new("watch", Short("paths", WATCH), "Files whose change restarts it; `.gitignore` is honoured.").or_as("none"),
    Key::new("reload", Or(&[Word(&["message"]), Map(RELOAD)]), "How it is told that the configuration files changed, where it goes on as it is: `{signal: HUP}` or `message`.").or_as("it is not told"),
    Key::new("hooks", Map(HOOKS), "Commands at points of an instance's life.").or("{}"),
    Key::new("ports", Table(&Or(&[Word(&["auto"]), Int(1, 65535), Map(PORT)])), "Ports by name, one number for each instance: `auto`, a number, or a map.").or("{}"),
    Key::new("sockets", List(&Or(&[Int(1, 65535), Text])), "Shared sockets to pass, by name or port.").or_as("all of the top-level `sockets`"),
    Key::new("tty", Bool, "Whether its output is a pseudo-terminal.").or("false"),
    Key::new("limits", Map(LIMITS), "Resource limits.").or("{}"),
    Key::new("user", Text, "User to run as, by name or number.").or_as("the node's"),
    Key::new("group", Text, "Group to run as, by name or number.").or_as("the user's"),
    Key::new("umask", Mode, "File mode creation mask.").or_as("the node's"),
    Key::new("nice", Int(-20, 19), "Scheduling priority; lower runs first.").or_as("the node's"),
    Key::new("cpus", Or(&[List(&Int(0, 4095)), Int(0, 4095), Text]), "Processors it may run on: `[0, 1]` or `0-3,6`.").or_as("all"),
    Key::new("no_new_privs", Bool, "Whether its programs gain no privileges from setuid files.").or("false"),
    Key::new("log", Map(LOG), "How its output is read.").or("{}"),
    Key::new("max_age", Short("age", MAX_AGE), "Restarted after this age, one instance at a time.").or_as("none"),
    Key::new("schedule", Map(SCHEDULE), "When a job runs.").or_as("at `up`"),
    Key::new("start_stagger", Duration, "Pause between the starts of its instances.").or("0s"),
    Key::new("description", Text, "Shown by `ps`.").or_as("none"),
    Key::new("labels", Table(&Text), "Names and values of your own; kept by `export`, shown by `ps --json`.").or("{}"),
];

/// One entry of `depends_on`.
pub static DEPENDENCY: &[Key] = &[
    Key::new(
        "condition",
        Word(&["started", "ready", "completed"]),
        "What of the other service is waited for.",
    )
    .or_as("`completed` of a job, `ready` where it has a readiness, else `started`"),
    Key::new(
        "quorum",
        Or(&[Word(&["all", "any"]), Int(1, super::service::MAX_PROCESSES), Text]),
        "Of how many of its instances: `all`, `any`, a number, or a share such as `50%`.",
    )
    .or("all"),
    Key::new("timeout", Positive, "How long it is waited for; then the start has failed.")
        .or_as("for ever"),
    Key::new(
        "on_restart",
        Word(&["ignore", "restart"]),
        "What a restart of the other service means for this one.",
    )
    .or("ignore"),
];

/// `restart`.
pub static RESTART: &[Key] = &[
    Key::new(
        "policy",
        Word(&["always", "on-failure", "never"]),
        "After which ends it is restarted.",
    )
    .or_as("`always`; of a job `on-failure`"),
    Key::new(
        "min_uptime",
        Duration,
        "After an uptime of this the first restart is at once; faster ends back off. `up -d --wait` waits for it where there is no `ready`.",
    )
    .or("1s"),
    Key::new("delay", Duration, "The first delay.").or("500ms"),
    Key::new("factor", Number(1.0, 100.0), "Each further delay is this many times the one before.")
        .or("2"),
    Key::new("max_delay", Duration, "The longest delay.").or("30s"),
    Key::new("jitter", Share, "Random share that is added to or taken from a delay.").or("20%"),
    Key::new("reset_after", Duration, "After an uptime of this the delays start anew.").or("60s"),
    Key::new("limit", Int(0, MANY), "So many restarts within `within`, then it has failed.")
        .or_as("none"),
    Key::new("within", Positive, "The time in which `limit` counts.").or("5m"),
    Key::new(
        "success",
        OneOrMore(&Int(0, 255)),
        "Exit codes that are success; death by a signal never is.",
    )
    .or("[0]"),
];

/// `ready`.
pub static READY: Kinds = Kinds {
    kinds: &[
        "heartbeat",
        "notify",
        "notify_fd",
        "tcp",
        "unix",
        "http",
        "exec",
        "log",
        "file",
        "registered",
        "delay",
    ],
    words: &["heartbeat", "notify", "registered"],
    keys: &[
        Key::new("heartbeat", Bool, "The first heartbeat that says ready."),
        Key::new("notify", Bool, "`READY=1` on the notify socket, as of systemd's `Type=notify`."),
        Key::new("notify_fd", Int(3, 1023), "A newline on this descriptor, as of s6."),
        Key::new("tcp", Template, "A TCP connection to `HOST:PORT` succeeds."),
        Key::new("unix", Template, "A connection to this Unix socket succeeds."),
        Key::new("http", Template, "A GET of this `http://` address answers 200 to 399."),
        Key::new("exec", Command, "This command exits 0."),
        Key::new("log", Regex, "A line of its output matches."),
        Key::new("file", Template, "This file exists."),
        Key::new(
            "registered",
            Text,
            "It has registered the service of this name at the node; `true`: any.",
        ),
        Key::new("delay", Duration, "So much time has passed."),
        Key::new("interval", Positive, "Time between two probes.").or("1s"),
        Key::new("timeout", Positive, "Time for one probe.").or("1s"),
        Key::new(
            "failures",
            Int(1, MANY),
            "So many failures in a row make a ready instance not ready.",
        )
        .or("3"),
        Key::new("within", Positive, "Not ready within this after its start is a failed start.")
            .or("60s"),
    ],
};

/// `alive`.
pub static ALIVE: Kinds = Kinds {
    kinds: &["heartbeat", "notify", "tcp", "unix", "http", "exec", "rpc"],
    words: &["heartbeat", "notify", "rpc"],
    keys: &[
        Key::new("heartbeat", Bool, "Heartbeats on the heartbeat channel."),
        Key::new(
            "notify",
            Bool,
            "`WATCHDOG=1` on the notify socket, as of systemd's `WatchdogSec=`.",
        ),
        Key::new("tcp", Template, "A TCP connection to `HOST:PORT` succeeds."),
        Key::new("unix", Template, "A connection to this Unix socket succeeds."),
        Key::new("http", Template, "A GET of this `http://` address answers 200 to 399."),
        Key::new("exec", Command, "This command exits 0."),
        Key::new(
            "rpc",
            Bool,
            "`lymph.ping` is answered at the address that it has registered at the node; asked once it has.",
        ),
        Key::new(
            "interval",
            Positive,
            "Time between two probes; of `notify` what `WATCHDOG_USEC` says.",
        )
        .or_as("1s; of `heartbeat` `node.heartbeat.interval`"),
        Key::new(
            "timeout",
            Positive,
            "Time for one probe; of `heartbeat` the silence that is too long.",
        )
        .or_as("1s; of `heartbeat` `node.heartbeat.timeout`"),
        Key::new(
            "failures",
            Int(1, MANY),
            "Lost after so many failures in a row; of `notify` after so many intervals of silence.",
        )
        .or("3"),
        Key::new(
            "diagnose",
            Map(DIAGNOSE),
            "A signal that makes a silent process say where it hangs, before the KILL.",
        )
        .or_as("none"),
    ],
};

/// `alive.diagnose`.
pub static DIAGNOSE: &[Key] = &[
    Key::new("signal", Signal, "The signal.").or("QUIT"),
    Key::new("pause", Duration, "How long the process may write before the KILL.").or("1s"),
];

/// `stop`.
pub static STOP: &[Key] = &[
    Key::new("signal", Signal, "Sent to the group, followed by CONT.").or("TERM"),
    Key::new("timeout", Duration, "After this KILL goes to all that is left.").or("10s"),
    Key::new("exec", Command, "A command in the signal's place.").or_as("none"),
];

/// `rolling`.
pub static ROLLING: &[Key] = &[
    Key::new("max_unavailable", Int(0, MAX_PROCESSES), "So many instances may be down at once.")
        .or("1"),
    Key::new(
        "max_surge",
        Int(0, MAX_PROCESSES),
        "So many new instances may run beside the old ones.",
    )
    .or("0"),
    Key::new("min_ready", Duration, "A new instance must be ready for this long.").or("1s"),
    Key::new("deadline", Positive, "Time for each new instance to become ready.").or("2m"),
    Key::new("on_failure", Word(&["pause", "rollback"]), "What happens when one does not.")
        .or("pause"),
];

/// `watch`.
pub static WATCH: &[Key] = &[
    Key::new("paths", OneOrMore(&Glob), "Globs, relative to the project folder. What is written out, up to the first wildcard, is watched also where `.gitignore` names it; what a wildcard finds is not.").required(),
    Key::new("ignore", OneOrMore(&Glob), "Globs that are passed over.").or("[]"),
    Key::new("debounce", Duration, "Quiet time after the last change.").or("300ms"),
    Key::new(
        "action",
        Or(&[Word(&["restart", "reload"]), Map(RUN)]),
        "What is done: `restart`, `reload` or `{run: CMD}`.",
    )
    .or("restart"),
];

/// `watch.action` as a map.
pub static RUN: &[Key] =
    &[Key::new("run", Command, "A command that runs once at each change.").required()];

/// `reload` as a map.
pub static RELOAD: &[Key] = &[Key::new("signal", Signal, "Sent to the leader.").required()];

/// `hooks`.
pub static HOOKS: &[Key] = &[
    Key::new(
        "before_start",
        Short("command", HOOK),
        "Before each start; its failure is a failed start.",
    ),
    Key::new("after_ready", Short("command", HOOK), "When it has become ready."),
    Key::new(
        "before_stop",
        Short("command", HOOK),
        "Before the stop signal; `stop.timeout` begins when it is done.",
    ),
    Key::new("after_stop", Short("command", HOOK), "When it is gone."),
    Key::new("on_crash", Short("command", HOOK), "When it ended abnormally."),
];

/// One hook.
pub static HOOK: &[Key] = &[
    Key::new("command", Command, "Program and arguments; told by `HILUM_*` and the exit facts.")
        .required(),
    Key::new("timeout", Positive, "After this it is killed and has failed.").or("30s"),
    Key::new("ignore_failure", Bool, "Whether the start goes on when `before_start` fails; a failure of the others is told and changes nothing.").or("false"),
];

/// One port as a map.
pub static PORT: &[Key] = &[
    Key::new(
        "base",
        Or(&[Word(&["auto"]), Int(1, 65535)]),
        "The number, or of the first instance with `per_instance`.",
    )
    .or("auto"),
    Key::new("per_instance", Bool, "Whether instance N has `base + N - 1`.").or("false"),
    Key::new("conflict", Word(&["next", "fail"]), "What happens when somebody else holds it.")
        .or_as("`fail`; of `auto` `next`"),
];

/// `limits`.
pub static LIMITS: &[Key] = &[
    Key::new("nofile", Or(&[Word(&["unlimited"]), Int(0, i64::MAX)]), "Open files.")
        .or_as("the node's"),
    Key::new("nproc", Or(&[Word(&["unlimited"]), Int(0, i64::MAX)]), "Processes of the user.")
        .or_as("the node's"),
    Key::new("core", Or(&[Word(&["unlimited"]), Size]), "Size of a core file.").or_as("the node's"),
    Key::new("as", Or(&[Word(&["unlimited"]), Size]), "Address space.").or_as("the node's"),
    Key::new(
        "cpu",
        Or(&[Word(&["unlimited"]), Positive]),
        "CPU time of a process, in whole seconds; then XCPU, and KILL 5 s of CPU time later.",
    )
    .or_as("the node's"),
    Key::new("stack", Or(&[Word(&["unlimited"]), Size]), "Size of the stack.").or_as("the node's"),
    Key::new("memory", Size, "Restart above this resident memory of the group.").or_as("none"),
    Key::new("memory_max", Size, "The cgroup's `memory.max`, where one is delegated.")
        .or_as("none"),
    Key::new(
        "cpu_max",
        Number(0.01, 4096.0),
        "The cgroup's `cpu.max` in processors, where one is delegated.",
    )
    .or_as("none"),
    Key::new("pids_max", Int(1, i64::MAX), "The cgroup's `pids.max`, where one is delegated.")
        .or_as("none"),
];

/// `log`.
pub static LOG: &[Key] = &[
    Key::new("max_line", Size, "Longer lines are split and marked; from 256 bytes to 1 MiB.")
        .or("64KiB"),
    Key::new(
        "level_from",
        LevelFrom,
        "Where a plain line's level is found: in the common forms, under a key of JSON lines, or in the first group of an expression.",
    )
    .or("auto"),
    Key::new(
        "multiline",
        Or(&[Word(&["auto", "off"]), Regex]),
        "Which lines are one record: `auto` joins stack traces of the common languages; with an expression a line that matches begins a record and others join it.",
    )
    .or("auto"),
    Key::new("color", Word(&["keep", "strip"]), "Whether colour codes stay in the store.")
        .or("keep"),
    Key::new(
        "rate",
        Int(1, 1_000_000),
        "Lines a second that an instance may write; more are dropped and counted.",
    )
    .or_as("none"),
    Key::new("file", Path, "A file that is written besides the store.").or_as("none"),
];

/// `max_age`.
pub static MAX_AGE: &[Key] = &[
    Key::new("age", Positive, "The age.").required(),
    Key::new("variance", Duration, "A part of this is added, different for each instance.")
        .or("0s"),
];

/// The keys of `schedule` of which one is given.
pub(crate) const SCHEDULE_KINDS: &[&str] = &["cron", "every"];

/// `schedule`.
pub static SCHEDULE: &[Key] = &[
    Key::new("cron", Cron, "Minute, hour, day, month, weekday in local time."),
    Key::new("every", Positive, "So long after the last start."),
    Key::new("overlap", Word(&["skip", "queue"]), "What happens when the job before still runs.")
        .or("skip"),
];
