"""A container as Python services have them, for tests: two ROUTER sockets, five frames, special values.

Usage: peer.py [--python2] [PORT]. With --python2 it packs as Python 2 does: every text that it makes up itself is bin.
It serves `py.upper`, `py.types`, `py.headers`, `py.fail`, `py.plain`, `py.ack`, `py.silent` (never answers) and `py.pings`
(how many it got), and takes orders on stdin, one JSON list a line:

["call", endpoint, subject, body, version?]   asks as a container does; [kind, body, headers]
["dealer", endpoint, subject, body]           the same on one connection
["raw", endpoint, [frame in hex, ...]]        sends what the test wants; ["sent"]
["register", hosts, service, version?]        registers as lymph does, in ZooKeeper; its path
["find", hosts, service]                      what ZooKeeper knows of a service, by id
["versions", hosts]                           the versions of each service, sorted as lymph sorts them
["log", level, text]                          publishes a line where its entries say
["leave"]                                     ends the session with ZooKeeper

It prints its endpoint, then one JSON line for each order.
"""

import datetime
import decimal
import hashlib
import json
import sys
import threading
import time
import uuid

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

SPECIAL = {
    set: ("set", list),
    datetime.datetime: ("datetime", lambda v: v.strftime("%Y-%m-%dT%H:%M:%S%z")),
    datetime.date: ("date", lambda v: v.strftime("%Y-%m-%d")),
    datetime.time: ("time", lambda v: v.strftime("%H:%M:%SZ")),
    decimal.Decimal: ("Decimal", str),
    uuid.UUID: ("UUID", str),
}
TYPES = {
    "set": set([1, 2]),
    "datetime": datetime.datetime(2015, 3, 14, 9, 26, 53, tzinfo=datetime.timezone.utc),
    "date": datetime.date(2015, 3, 14),
    "time": datetime.time(9, 26, 53),
    "Decimal": decimal.Decimal("1.50"),
    "UUID": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "bytes": b"\x00\xff",
    "none": None,
}


PYTHON2 = "--python2" in sys.argv


def native(value):
    """A value as Python 2 has it: its texts are bytes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return {native(key): native(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [native(inner) for inner in value]
    return value


def dump(value):
    name, text = SPECIAL[type(value)]
    special = {"__type__": name, "_": text(value)}
    return native(special) if PYTHON2 else special


def pack(value):
    return msgpack.packb(native(value) if PYTHON2 else value, default=dump, use_bin_type=True)


def unpack(data):
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


class Version(str):
    """A version, as it stands in what is hashed."""

    def __repr__(self):
        return "Version(%s)" % str.__repr__(self)


def md5(*parts):
    """lymph's hash: of the text that Python prints for a tuple."""
    return hashlib.md5(repr(parts).encode()).hexdigest()


def message(kind, subject, body, trace="py-trace", version=None):
    headers = {"version": version, "trace_id": trace}
    return [uuid.uuid4().hex.encode(), kind, subject.encode(), pack(headers), pack(body)]


class Container:
    def __init__(self, port=None):
        self.context = zmq.Context()
        if port is None:
            probe = self.context.socket(zmq.ROUTER)
            port = probe.bind_to_random_port("tcp://127.0.0.1", 35536, 65535)
            probe.close(0)
        self.endpoint = "tcp://127.0.0.1:%d" % port
        self.recv = self.context.socket(zmq.ROUTER)
        self.recv.setsockopt(zmq.IDENTITY, self.endpoint.encode())
        self.bind()
        self.send = self.context.socket(zmq.ROUTER)
        self.send.setsockopt(zmq.IDENTITY, self.endpoint.encode())
        self.monitor = self.send.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.connected = set()
        self.lock = threading.RLock()
        self.answers = {}
        self.answered = threading.Condition()
        self.pings = 0
        self.logs = self.context.socket(zmq.PUB)
        self.log_endpoint = "tcp://127.0.0.1:%d" % self.logs.bind_to_random_port("tcp://127.0.0.1")
        self.zookeeper = None

    def bind(self):
        for _ in range(200):
            try:
                return self.recv.bind(self.endpoint)
            except zmq.ZMQError:  # the port of one that has just ended
                time.sleep(0.05)
        sys.exit("%s cannot be had" % self.endpoint)

    def send_to(self, endpoint, frames):
        with self.lock:
            if endpoint not in self.connected:
                self.connected.add(endpoint)
                self.send.connect(endpoint)
                if self.monitor.poll(5000):
                    recv_monitor_message(self.monitor)
                time.sleep(0.05)
            self.send.send_multipart([endpoint.encode()] + frames)

    def answer(self, subject, headers, body):
        if subject == "py.upper":
            return b"REP", body["text"].upper()
        if subject == "py.types":
            return b"REP", TYPES
        if subject == "py.headers":
            return b"REP", headers
        if subject == "py.fail":
            return b"ERROR", {"type": "TooLong", "message": "no"}
        if subject == "py.plain":
            return b"ERROR", {}
        if subject == "py.ack":
            return b"ACK", None
        if subject == "py.pings":
            return b"REP", self.pings
        if subject == "py.silent":
            return None, None
        if subject == "lymph.ping":
            self.pings += 1
            return b"REP", body["payload"]
        if subject == "lymph.inspect":
            method = {"name": "py.upper", "version": "None", "params": ["text"], "help": "Returns the text in upper case."}
            return b"REP", {"methods": [method]}
        return b"NACK", None

    def loop(self):
        while True:
            sender, ident, kind, subject, headers, body = self.recv.recv_multipart()
            if kind == b"REQ":
                headers = unpack(headers)
                kind, result = self.answer(subject.decode(), headers, unpack(body))
                if kind is None:
                    continue
                frames = message(kind, ident.decode(), result, headers["trace_id"], headers["version"])
                self.send_to(sender.decode(), frames)
            else:
                with self.answered:
                    self.answers[subject] = [kind.decode(), unpack(body), unpack(headers)]
                    self.answered.notify_all()

    def call(self, endpoint, subject, body, version=None, wait=20):
        frames = message(b"REQ", subject, body, version=version)
        self.send_to(endpoint, frames)
        with self.answered:
            self.answered.wait_for(lambda: frames[0] in self.answers, wait)
            return self.answers.pop(frames[0], ["none", None, None])

    def raw(self, endpoint, frames):
        self.send_to(endpoint, [bytes.fromhex(frame) for frame in frames])
        return ["sent"]

    def session(self, hosts):
        import kazoo.client

        if self.zookeeper is None:
            self.zookeeper = kazoo.client.KazooClient(hosts=hosts + "/lymph")
            self.zookeeper.start(30)
        return self.zookeeper

    def register(self, hosts, service, version=None):
        zookeeper = self.session(hosts)
        identity = md5(self.endpoint)
        # lymph has the version of its own interface as a text.
        ident = md5(identity, service, Version(version) if version and service != "lymph" else version)
        data = {
            "id": ident,
            "identity": identity,
            "version": version,
            "endpoint": self.endpoint,
            "log_endpoint": self.log_endpoint,
            "monitoring_endpoint": None,
            "backdoor_endpoint": None,
            "fqdn": "localhost",
            "hostname": "py",
            "ip": "127.0.0.1",
            "type": False,
        }
        path = "/services/%s/%s" % (service, ident)
        if zookeeper.exists(path):
            zookeeper.delete(path)
        zookeeper.create(path, json.dumps(data).encode(), ephemeral=True, makepath=True)
        return [path]

    def find(self, hosts, service):
        zookeeper = self.session(hosts)
        zookeeper.ensure_path("/services/" + service)
        base = "/services/" + service
        return {one: json.loads(zookeeper.get(base + "/" + one)[0]) for one in zookeeper.get_children(base)}

    def log(self, level, text):
        self.logs.send_multipart([level.encode(), self.log_endpoint.encode(), text.encode()])
        time.sleep(0.02)
        return ["published"]

    def versions(self, hosts):
        found = {}
        for service in self.session(hosts).get_children("/services"):
            versions = {one["version"] for one in self.find(hosts, service).values()}
            found[service] = sorted(versions)  # None and a text have no order: lymph's `discover --versions` ends here
        return found

    def leave(self):
        self.zookeeper.stop()
        self.zookeeper.close()
        self.zookeeper = None
        return ["left"]

    def dealer(self, endpoint, subject, body):
        socket = self.context.socket(zmq.DEALER)
        socket.connect(endpoint)
        frames = message(b"REQ", subject, body)
        socket.send_multipart(frames)
        if not socket.poll(20000):
            return ["none", None, None]
        _, kind, _, headers, body = socket.recv_multipart()
        socket.close(0)
        return [kind.decode(), unpack(body), unpack(headers)]


def main():
    ports = [int(word) for word in sys.argv[1:] if word.isdigit()]
    container = Container(*ports)
    threading.Thread(target=container.loop, daemon=True).start()
    print(container.endpoint, flush=True)
    for line in sys.stdin:
        how, *arguments = json.loads(line)
        print(json.dumps(getattr(container, how)(*arguments)), flush=True)


main()
