"""How fast logs are taken, and questions about them answered: hilum beside `cat >> file` and a bare pump."""

import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

from common import Cluster, percentile, verdict

WORKERS = 4
KINDS = {"line": ("one write a line", 0.9), "block": ("64 KiB blocks that straddle lines", 0.5)}


def moments(path, what):
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(int(first), int(second)) for word, first, second in lines if word == what]


def begun(path):
    return min(first for first, _ in moments(path, "writer"))


def check(options, lines, files):
    """Every line of every worker whole, once, in order: the C side reads the files itself."""
    done = subprocess.run([options.flood, "check", str(lines), *map(str, files)], capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.startswith(f"{WORKERS} workers"):
        raise SystemExit(f"bench: lines are not as they were written: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Folder:
    """A folder on the same disk as the node's, gone at the end."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="hilum-bench-"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def pumped(options, lines, kind):
    """Seconds and processor seconds of a bare pump."""
    with Folder() as folder:
        times = folder / "times"
        command = [options.flood, "pump", folder / "all", WORKERS, lines, kind, times]
        subprocess.run(list(map(str, command)), check=True)
        end, used = moments(times, "pump")[0]
        return (end - begun(times)) / 1e9, used / 1e9


def catted(options, lines, kind):
    """Seconds of one `cat >> file` a worker."""
    with Folder() as folder:
        times = folder / "times"
        shells = [
            subprocess.Popen(["sh", "-c", f"{options.flood} write {n} {lines} {kind} {times} | cat >> {folder}/{n}"])
            for n in range(WORKERS)
        ]
        for shell in shells:
            shell.wait()
        return time.time() - begun(times) / 1e9


def flooding(options, lines, kind, times, more="", others=""):
    command = json.dumps([options.flood, "write", "$(instance.index)", str(lines), kind, str(times)])
    service = f"command: {command}, numprocesses: {WORKERS}, autostart: false, restart: {{policy: never}}"
    return Cluster(options, f"  flood: {{{service}}}\n{others}", more or "logs: {budget: 8GiB, keep_free: 0%}\n")


def finish(cluster):
    """Waits until all writers have ended and everything they wrote is on the disk."""
    while True:
        states = [one["state"] for one in cluster.status()["instances"] if one["instance"].startswith("flood.")]
        if len(states) == WORKERS and all(state in ("completed", "failed") for state in states):
            break
        time.sleep(0.05)
    if "failed" in states:
        raise SystemExit("bench: a writer failed")


def segments(cluster):
    return sorted(cluster.folder.glob(".hilum/*/logs/*.log"))


def written(cluster):
    return max(path.stat().st_mtime_ns for path in segments(cluster))


def captured(options, lines, kind, reader=False):
    """Seconds, processor seconds, the check's words and by how many MiB the node grew."""
    with Folder() as folder:
        times = folder / "times"
        with flooding(options, lines, kind, times) as cluster:
            slow = None
            if reader:
                # It follows and is never read from: its pipe fills, and it stands still.
                slow = subprocess.Popen([cluster.hilum, "-c", str(cluster.config), "logs", "-f"], stdout=subprocess.PIPE)
                time.sleep(0.3)
            used, before = cluster.cpu(), cluster.peak()
            cluster.run("start", "flood", "--no-wait")
            while not times.exists() or len(moments(times, "writer")) < WORKERS:
                time.sleep(0.01)
            time.sleep(0.2)
            used = cluster.cpu() - used
            finish(cluster)
            took = (written(cluster) - begun(times)) / 1e9
            said = check(options, lines, segments(cluster))
            if slow is not None:
                slow.kill()
                slow.wait()
            return took, used, said, cluster.peak() - before


def logs(options, total=2_000_000):
    lines = total // WORKERS
    for kind, (words, bar) in KINDS.items():
        rounds = []
        for number in range(options.rounds + 1):
            bare, bare_cpu = pumped(options, lines, kind)
            ours, cpu, said, _ = captured(options, lines, kind)
            cats = catted(options, lines, kind)
            if number > 0:  # the first one warms all up
                rounds.append((bare, ours, cats, bare_cpu, cpu))
        bare, ours, cats, bare_cpu, cpu = (statistics.median(column) for column in zip(*rounds))
        ratios = [one[0] / one[1] for one in rounds]
        ratio = statistics.median(ratios)
        each = cpu / total * 1e6
        print(
            f"logs, {words}: hilum {total / ours / 1e6:.2f} M lines/s, pump {total / bare / 1e6:.2f}, "
            f"ratio {verdict(ratio, bar, f'{ratio:.2f}', at_least=True)}, rounds {min(ratios):.2f}..{max(ratios):.2f}; "
            f"cat >> file {total / cats / 1e6:.2f}\n"
            f"  CPU a line {verdict(each, 0.3, f'{each:.3f} us')}, pump {bare_cpu / total * 1e6:.3f} us; {said}",
            flush=True,
        )
    _, _, said, grown = captured(options, lines, "block", reader=True)
    print(f"logs, with a reader that stands still: the node grew by {grown:.1f} MiB; {said}", flush=True)


def timed(words):
    """The least of three times in seconds, and how many lines were printed."""
    took, count = [], 0
    for _ in range(3):
        begin = time.monotonic()
        done = subprocess.run(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
        took.append(time.monotonic() - begin)
        count = done.stdout.count(b"\n")
    return min(took), count


def history(options, total=7_000_000):
    """Questions about a gigabyte: `logs`, which has an index, beside `grep` on the same text."""
    lines = total // WORKERS
    late = "  late: {command: [seq, '1', '100'], autostart: false, restart: {policy: never}}\n"
    for compress in (False, True):
        more = f"logs: {{budget: 8GiB, keep_free: 0%, compress: {str(compress).lower()}}}\n"
        with Folder() as folder, flooding(options, lines, "block", folder / "times", more, late) as cluster:
            cluster.run("start", "flood", "--no-wait")
            finish(cluster)
            store = next(cluster.folder.glob(".hilum/*/logs"))
            while compress and len(list(store.glob("*.log"))) > 1:
                time.sleep(1)  # the store looks around when something is written
                cluster.run("restart", "late")
            time.sleep(2)
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            cluster.run("restart", "late")
            files = sorted(map(str, store.glob("*.log*")))
            size = sum(path.stat().st_size for path in store.iterdir()) / 1e6
            print(f"history, {total / 1e6:.0f} M lines, {'compressed' if compress else 'plain'}: {size:.0f} MB on disk", flush=True)
            grep = ["zstdgrep" if compress else "grep", "-h"]
            needle = f"03 {lines // 2:010d} "
            questions = (
                ("the last 100", ["-n", "100"], None),
                ("the last 100 of one instance", ["flood.2", "-n", "100"], [*grep, " flood.2 out | "]),
                ("the last 100 of a quiet one", ["late", "-n", "100"], [*grep, " late.1 out | "]),
                ("since two seconds", ["--since", since], None),
                ("one line by its text", ["--grep", needle], [*grep, needle]),
            )
            for words, ours, theirs in questions:
                took, count = timed([options.hilum, "-c", str(cluster.config), "logs", *ours])
                beside = f", {theirs[0]} {timed([*theirs, *files])[0]:.3f} s" if theirs else ""
                print(f"  {words}: logs {took:.3f} s ({count} lines){beside}", flush=True)
