"""Drives scripts/soak: a mixed load for some minutes, then an account of every line, descriptor and byte."""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

from common import Cluster

# Numbered lines on both streams, in small writes and in large ones that straddle lines.
WRITER = """
import os, random, sys, time
run, number, rng = os.environ["HILUM_RUN"], 0, random.Random(os.getpid())
while True:
    block = b""
    for _ in range(rng.choice((1, 1, 1, 5, 400))):
        number += 1
        block += f"line {run} {number} {'x' * rng.randrange(120)}\\n".encode()
    cut = rng.randrange(len(block))
    for part in (block[:cut], block[cut:]):
        while part:
            part = part[os.write(1, part):]
    time.sleep(rng.random() * 0.02)
"""

SERVICES = """
  writer: {{command: [python3, writer.py], numprocesses: 3, stop: {{timeout: 2s}}}}
  crash: {{command: sh -c 'echo life $HILUM_RUN; sleep 0.2; exit 1', numprocesses: 3, restart: {{delay: 50ms, max_delay: 100ms, min_uptime: 0s}}}}
  loud: {{command: sh -c 'exec yes a line that says nothing', autostart: false, log: {{rate: {rate}}}}}
  flood: {{command: sh -c 'exec yes a flood of lines that say nothing at all', autostart: false}}
"""
MORE = "logs: {budget: 2GiB, segment: 16MiB, keep_free: 0%, compress: true}\nnode: {watch_config: false}\n"


class Account:
    """Reads `logs -f` as it comes: every line of a run must follow the one before."""

    def __init__(self, cluster):
        command = [cluster.hilum, "-c", str(cluster.config), "logs", "-f", "-n", "all", "--json", "writer"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.last, self.lines, self.wrong = {}, 0, []

    def read(self):
        for raw in self.process.stdout:
            entry = json.loads(raw)
            if entry.get("dropped"):
                self.wrong.append(f"a gap: {entry['line']}")
            words = (entry.get("line") or "").split()
            if entry["stream"] != "out" or len(words) < 3 or words[0] != "line":
                continue
            who, run, number = entry["instance"], int(words[1]), int(words[2])
            if entry["run"] != run:
                self.wrong.append(f"{who}: a line of run {run} under run {entry['run']}")
            if entry["partial"]:
                continue  # the last one of a run that was killed in the middle of it
            before = self.last.get((who, run), 0)
            if number != before + 1:
                self.wrong.append(f"{who} run {run}: {number} after {before}")
            self.last[who, run] = number
            self.lines += 1


def descriptors(cluster):
    return len(list(pathlib.Path(f"/proc/{cluster.node}/fd").iterdir()))


def resident(cluster):
    status = pathlib.Path(f"/proc/{cluster.node}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def trouble(cluster, rng):
    """One thing that people and programs do to a node."""
    what = rng.choice(("kill", "restart", "scale", "reload", "flood", "loud", "stop", "reopen", "read", "reader"))
    writer = f"writer.{rng.randint(1, 3)}"
    if what == "kill":
        cluster.run("signal", "KILL", writer)
    elif what == "restart":
        # A rolling one stops where an instance was just killed: that is its answer then.
        cluster.run("restart", "writer", *rng.choice(([], ["--rolling"])), fails=True)
    elif what == "scale":
        cluster.run("scale", f"crash={rng.randint(1, 20)}")
    elif what == "reload":
        cluster.config.write_text(
            f"name: bench\n{MORE}instances:\n{SERVICES.format(rate=rng.randint(10, 1000))}"
        )
        cluster.run("reload")
    elif what in ("flood", "loud"):
        cluster.run("start", what)
        time.sleep(rng.random() * 0.5)
        cluster.run("stop", what)
    elif what == "stop":
        cluster.run("stop", writer)
        cluster.run("start", writer)
    elif what == "reopen":
        os.kill(cluster.node, signal.SIGUSR1)
    elif what == "read":
        cluster.run("logs", "-n", "1000", "--grep", "life [0-9]")
        cluster.run("ps")
        cluster.run("events", "-n", "100")
    else:
        # A follower that does not read, for a moment.
        command = [cluster.hilum, "-c", str(cluster.config), "logs", "-f"]
        slow = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.5)
        slow.kill()
        slow.communicate()
    return what


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak", description="a long mixed load on a real node")
    parser.add_argument("--hilum", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("minutes", type=float, nargs="?", default=3)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"soak: {options.minutes:g} minutes, --seed {options.seed}", flush=True)
    with Cluster(options, SERVICES.format(rate=100), MORE, files={"writer.py": WRITER}) as cluster:
        account = Account(cluster)
        reader = threading.Thread(target=account.read, daemon=True)
        reader.start()
        time.sleep(3)
        before = descriptors(cluster), resident(cluster)
        done = {}
        end = time.monotonic() + options.minutes * 60
        while time.monotonic() < end:
            what = trouble(cluster, rng)
            done[what] = done.get(what, 0) + 1
        cluster.run("scale", "crash=3")
        cluster.run("stop", "writer", "crash")
        cluster.run("start", "crash")
        time.sleep(5)
        after = descriptors(cluster), resident(cluster)
        account.process.send_signal(signal.SIGINT)
        reader.join(timeout=30)
        lines = sum(1 for line in cluster.run("logs", "writer", "--stream", "out", "--no-prefix").splitlines()
                    if line.startswith("line "))
        status = cluster.status()
    print("soak: " + ", ".join(f"{count} {what}" for what, count in sorted(done.items())))
    print(f"soak: {account.lines} lines of {len(account.last)} runs followed, {lines} read afterwards")
    print(f"soak: descriptors {before[0]} -> {after[0]}, memory {before[1]:.1f} -> {after[1]:.1f} MiB")
    for warning in status["node"].get("warnings", []):
        print(f"soak: warning: {warning}")
    wrong = account.wrong
    if account.lines == 0:
        wrong.append("nothing was followed")
    if after[0] > before[0] + 12:
        wrong.append("descriptors leak")
    if after[1] > before[1] + 32:
        wrong.append("memory grows")
    for line in wrong[:20]:
        print(f"soak: WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
