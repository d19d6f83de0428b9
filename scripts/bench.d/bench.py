"""Drives the measurements of scripts/bench: hilum and the bare loop in turns, medians of several rounds.

What happened when comes from hilum's own events, whose times are taken after the fact they tell (`started` after
exec succeeded, `stopped` after nothing of the run is left), so nothing can look faster than it is."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time

import logs
from common import Cluster, bare, median_ratio, milliseconds, percentile, verdict

SLEEP = "command: [/bin/sleep, '100000']"


def cycles(options, count):
    """Starts and stops `count` sleeping instances, in turns with the bare loop."""
    rounds = []
    with Cluster(options, f"  sleep: {{numprocesses: 0, {SLEEP}}}\n") as cluster:
        for number in range(options.rounds + 1):
            start = cluster.scale(count)
            time.sleep(0.3)
            stop = cluster.scale(0)
            if start[3] != count or stop[3] != count:
                raise SystemExit(f"bench: {start[3]} started and {stop[3]} stopped of {count}")
            other = [nanos / 1e9 for nanos in bare(options, "cycle", count)[0]]
            if number > 0:  # the first one warms both up
                rounds.append((start, stop, other))
    return rounds


def show_cycles(rounds, which, bar, count):
    pairs = [(one[which][0], one[2][which]) for one in rounds]
    ours, theirs = (statistics.median(side) for side in zip(*pairs))
    whole = statistics.median(one[which][1] for one in rounds)
    used = statistics.median(one[which][2] for one in rounds)
    ratio = median_ratio(pairs)
    name = ("start", "stop")[which]
    spread = f"{min(a / b for a, b in pairs):.2f}..{max(a / b for a, b in pairs):.2f}"
    said = f"{ratio:.2f}" if bar is None else verdict(ratio, bar, f"{ratio:.2f}")
    print(
        f"{name} {count}: hilum {milliseconds(ours)}, bare {milliseconds(theirs)}, ratio {said}, rounds {spread}; "
        f"the whole command {milliseconds(whole)}; node CPU {used / count * 1e6:.0f} us each",
        flush=True,
    )


def start(options, sizes=(1, 100, 1000)):
    for count in sizes:
        show_cycles(cycles(options, count), 0, 1.2, count)


def stop(options, sizes=(100, 1000)):
    for count in sizes:
        show_cycles(cycles(options, count), 1, 2, count)


def start_and_stop(options):
    for count in (1, 100, 1000):
        rounds = cycles(options, count)
        show_cycles(rounds, 0, 1.2, count)
        show_cycles(rounds, 1, None if count == 1 else 2, count)


def restart(options, count=100, turns=10):
    policy = "{min_uptime: 0s, delay: 0s}"
    ours, theirs = [], []
    lost = 0
    with Cluster(options, f"  sleep: {{numprocesses: {count}, {SLEEP}, restart: {policy}}}\n") as cluster:
        for _ in range(turns):
            time.sleep(0.3)
            began = time.time()
            kills = {}
            for one in cluster.status()["instances"]:
                kills[one["instance"]] = (one["run"], time.time())
                os.kill(one["pid"], signal.SIGKILL)
                time.sleep(0.005)
            time.sleep(0.3)
            ups = {
                (event["instance"], event["run"]): event["at"]
                for event in cluster.events(began)
                if event["event"] == "started"
            }
            for instance, (run, at) in kills.items():
                up = ups.get((instance, run + 1))
                if up is None:
                    lost += 1
                else:
                    ours.append(up - at)
            theirs += [line[0] / 1e9 for line in bare(options, "restart", count, count)]
        instances = cluster.status()["instances"]
        wrong = [one["instance"] for one in instances if one["state"] != "running" or one["run"] != turns + 1]
    for share, name, bar in ((0.5, "p50", 1.4), (0.99, "p99", None)):
        mine, other = percentile(ours, share), percentile(theirs, share)
        ratio = mine / other
        said = f"{ratio:.2f}" if bar is None else verdict(ratio, bar, f"{ratio:.2f}")
        print(f"restart {name}: hilum {milliseconds(mine)}, bare {milliseconds(other)}, ratio {said}", flush=True)
    print(f"restart: {turns * count} kills, {verdict(lost + len(wrong), 0, f'{lost + len(wrong)} lost')}", flush=True)


def idle(options, seconds=60):
    for count in (100, 1000):
        with Cluster(options, f"  sleep: {{numprocesses: {count}, {SLEEP}}}\n") as cluster:
            first = cluster.up_seconds
            time.sleep(3)
            before = cluster.cpu()
            time.sleep(seconds)
            used = (cluster.cpu() - before) * 60 / seconds
            pss = cluster.pss() / 1024
            said = f"{pss:.2f} MiB" if count < 1000 else verdict(pss, 10, f"{pss:.2f} MiB")
            print(
                f"idle {count}: PSS {said}, CPU a minute {verdict(used, 0.01, f'{used:.4f} s')}; "
                f"`up -d` took {milliseconds(first)}",
                flush=True,
            )


def storm(options, seconds=20):
    tick = f"command: [{json.dumps(os.path.abspath(options.bare))}, tick, '10']"
    policy = "{delay: 100ms, max_delay: 100ms, jitter: 0}"
    crash = f"command: [/bin/false], autostart: false, numprocesses: 1, restart: {policy}"
    services = "".join(f"  crash{number}: {{{crash}}}\n" for number in range(50))
    healthy = "".join(f"  well{number}: {{{tick}}}\n" for number in range(5))

    def lateness(cluster, began):
        late, missing = [], 0
        for number in range(5):
            last = None
            for line in cluster.run("logs", f"well{number}", "--no-prefix", "--stream", "out").splitlines():
                words = line.split()
                if len(words) != 4 or words[0] != "tick":
                    raise SystemExit(f"bench: a line that nobody wrote: {line!r}")
                at = int(words[1])
                missing += 0 if last is None else at - last - 1
                last = at
                late.append(int(words[3]) / 1e9)
        return late[began:], missing, len(late)

    with Cluster(options, services + healthy) as cluster:
        runs = {one["instance"]: one["pid"] for one in cluster.status()["instances"] if one["pid"]}
        before, calm_seconds = cluster.cpu(), 5
        time.sleep(calm_seconds)
        calm_share = (cluster.cpu() - before) / calm_seconds
        calm, _, _ = lateness(cluster, 0)
        cluster.run("start", "crash*", "--no-wait")
        time.sleep(2)

        def restarts():
            return sum(one["restarts"] for one in cluster.status()["instances"])

        crashes, before = restarts(), cluster.cpu()
        time.sleep(seconds)
        used = cluster.cpu() - before
        crashes = restarts() - crashes
        stormy, missing, _ = lateness(cluster, len(calm))
        after = {one["instance"]: one["pid"] for one in cluster.status()["instances"] if one["instance"] in runs}
    whole = used / max(crashes, 1) * 1e3
    each = (used - calm_share * seconds) / max(crashes, 1) * 1e3
    plain = bare(options, "crash", 1000)[0][0] / 1e6
    print(
        f"storm: {crashes / seconds:.0f} crashes a second, node CPU a crash {verdict(each, 0.2, f'{each:.3f} ms')}, "
        f"{whole:.3f} ms with what the healthy ones' lines cost, bare {plain:.3f} ms",
        flush=True,
    )
    print(
        f"storm: healthy ones: {'same processes' if after == runs else 'RESTARTED'}, {missing} lines lost, "
        f"late p50/p99 {milliseconds(percentile(calm, 0.5))}/{milliseconds(percentile(calm, 0.99))} in calm, "
        f"{milliseconds(percentile(stormy, 0.5))}/{milliseconds(percentile(stormy, 0.99))} in the storm",
        flush=True,
    )


def everything(options):
    start_and_stop(options)
    restart(options)
    idle(options)
    storm(options)
    logs.logs(options)


def main():
    commands = {
        "start": start, "stop": stop, "restart": restart, "idle": idle, "storm": storm, "logs": logs.logs,
        "history": logs.history, "all": everything,
    }
    parser = argparse.ArgumentParser(prog="scripts/bench", description="hilum beside the least that anybody can do")
    parser.add_argument("--hilum", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--bare", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--flood", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of start, stop and logs [default: 7]")
    parser.add_argument("what", choices=commands)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    real_time = os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)
    print(
        f"{time.strftime('%Y-%m-%d %H:%M')}, Linux {platform.release()}, {os.cpu_count()} cores, load {load}"
        f"{', real-time class' if real_time else ''}",
        flush=True,
    )
    if os.getloadavg()[0] > 1 and not real_time:
        print(
            "others use the processors: what takes milliseconds is noise then, and `nice` does not reach over sessions.\n"
            "As root, both sides can go before them: chrt -r 1 scripts/bench ...",
            flush=True,
        )
    commands[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
