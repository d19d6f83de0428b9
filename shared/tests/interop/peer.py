"""A container as Python services have them, for tests: two ROUTER sockets, five frames, special values.

It serves `py.upper`, `py.types`, `py.fail` and `py.refuse`, and takes orders on stdin, one JSON list a line:
["call", endpoint, subject, body] asks as a container does, ["dealer", endpoint, subject, body] on one connection.
It prints its endpoint, then one JSON line for each order: [type, body].
"""

import datetime
import decimal
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


def dump(value):
    name, text = SPECIAL[type(value)]
    return {"__type__": name, "_": text(value)}


def pack(value):
    return msgpack.packb(value, default=dump, use_bin_type=True)


def unpack(data):
    return msgpack.unpackb(data, raw=False, strict_map_key=False)


def message(kind, subject, body, trace="py-trace", version=None):
    headers = {"version": version, "trace_id": trace}
    return [uuid.uuid4().hex.encode(), kind, subject.encode(), pack(headers), pack(body)]


class Container:
    def __init__(self):
        self.context = zmq.Context()
        self.recv = self.context.socket(zmq.ROUTER)
        port = None
        probe = self.context.socket(zmq.ROUTER)
        port = probe.bind_to_random_port("tcp://127.0.0.1", 35536, 65535)
        probe.close(0)
        time.sleep(0.05)
        self.endpoint = "tcp://127.0.0.1:%d" % port
        self.recv.setsockopt(zmq.IDENTITY, self.endpoint.encode())
        self.recv.bind(self.endpoint)
        self.send = self.context.socket(zmq.ROUTER)
        self.send.setsockopt(zmq.IDENTITY, self.endpoint.encode())
        self.monitor = self.send.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.connected = set()
        self.lock = threading.RLock()
        self.answers = {}
        self.answered = threading.Condition()

    def send_to(self, endpoint, frames):
        with self.lock:
            if endpoint not in self.connected:
                self.connected.add(endpoint)
                self.send.connect(endpoint)
                if self.monitor.poll(5000):
                    recv_monitor_message(self.monitor)
                time.sleep(0.05)
            self.send.send_multipart([endpoint.encode()] + frames)

    def answer(self, subject, body):
        if subject == "py.upper":
            return b"REP", body["text"].upper()
        if subject == "py.types":
            return b"REP", TYPES
        if subject == "py.fail":
            return b"ERROR", {"type": "TooLong", "message": "no"}
        if subject == "lymph.ping":
            return b"REP", body["payload"]
        return b"NACK", None

    def loop(self):
        while True:
            sender, ident, kind, subject, headers, body = self.recv.recv_multipart()
            if kind == b"REQ":
                headers = unpack(headers)
                kind, result = self.answer(subject.decode(), unpack(body))
                frames = message(kind, ident.decode(), result, headers["trace_id"], headers["version"])
                self.send_to(sender.decode(), frames)
            else:
                with self.answered:
                    self.answers[subject] = [kind.decode(), unpack(body), unpack(headers)]
                    self.answered.notify_all()

    def call(self, endpoint, subject, body):
        frames = message(b"REQ", subject, body)
        self.send_to(endpoint, frames)
        with self.answered:
            self.answered.wait_for(lambda: frames[0] in self.answers, 20)
            return self.answers.pop(frames[0], ["none", None, None])

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
    container = Container()
    threading.Thread(target=container.loop, daemon=True).start()
    print(container.endpoint, flush=True)
    for line in sys.stdin:
        how, endpoint, subject, body = json.loads(line)
        print(json.dumps(getattr(container, how)(endpoint, subject, body)), flush=True)


main()
