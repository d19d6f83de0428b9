"""What all measurements share: a node with a configuration of its own, the bare side, words for people."""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time


class Cluster:
    """One node with this configuration, gone at the end."""

    def __init__(self, options, instances, more="", files=()):
        self.hilum = str(pathlib.Path(options.hilum).resolve())
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hilum-bench-"))
        self.config = self.folder / "bench.yml"
        self.config.write_text(f"name: bench\n{more}instances:\n{instances}")
        for name in files:
            (self.folder / name).write_text(files[name])

    def __enter__(self):
        try:
            begin = time.monotonic()
            self.run("up", "-d")
            self.up_seconds = time.monotonic() - begin
            self.node = self.status()["node"]["pid"]
            stat = pathlib.Path(f"/proc/{self.node}/stat").read_text()
            self.keeper = int(stat.rsplit(")", 1)[1].split()[1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self.run("down", "--now")
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *words, fails=False):
        command = [self.hilum, "-c", str(self.config), *words]
        # No terminal, no waiting for a reader: what a script sees. Instances run in the folder, where their files are.
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        if done.returncode != 0 and not fails:
            raise SystemExit(f"bench: {' '.join(command)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def status(self):
        return json.loads(self.run("ps", "--json"))

    def events(self, since=0):
        lines = (json.loads(line) for line in self.run("events", "--json").splitlines())
        return [event for event in lines if event["at"] >= since]

    def cpu(self):
        """Processor seconds of all our processes, to the nanosecond."""
        total = 0
        for pid in (self.keeper, self.node):
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def peak(self):
        """The largest resident size of the node so far, in MiB."""
        status = pathlib.Path(f"/proc/{self.node}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024

    def pss(self):
        """Proportional set size of all our processes, in KiB."""
        total = 0
        for pid in (self.keeper, self.node):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total

    def scale(self, count):
        """Seconds in the node from the order to the last report, seconds of the whole command, processor seconds."""
        before = self.cpu()
        began = time.time()
        self.run("scale", f"sleep={count}")
        whole = time.time() - began
        used = self.cpu() - before
        events = self.events(began)
        ordered = next(event["at"] for event in events if event["event"] == "scaled")
        word = "started" if count else "stopped"
        reports = [event["at"] for event in events if event["event"] == word]
        return max(reports) - ordered, whole, used, len(reports)


def bare(options, *words):
    command = [options.bare, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def milliseconds(seconds):
    return f"{seconds * 1e3:.2f} ms"


def verdict(value, bar, shown, at_least=False):
    met = value >= bar if at_least else value <= bar
    return f"{shown} (bar {bar}: {'met' if met else 'MISSED'})"


def median_ratio(pairs):
    """The median of the rounds' ratios: each round has the same weather on both sides."""
    return statistics.median(ours / theirs for ours, theirs in pairs)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]
