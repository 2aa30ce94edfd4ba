"""Strangers that take memory and places: strangers.py HOST PORT KIND COUNT FROM

Opens COUNT connections from the local address FROM, and does with each of them as KIND says. A connection that
the other side closes is opened again, so that the pressure stays. Writes "ready" when each has begun, and ends when its
standard input does.
"""

import random
import selectors
import socket
import struct
import sys
import threading
import time

HANDSHAKE = b'{"sys":{"type":"stranger","version":"1.0.0"},"user":{}}'


def package(kind, body):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def frame(body, opcode=2, fin=True, length=None):
    """A WebSocket frame with a mask of zeros, so that its bytes are those of the body."""
    length = len(body) if length is None else length
    first = (0x80 if fin else 0) | opcode
    return struct.pack("!BBQ4x", first, 0xFF, length) + body


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ROUTE = b"connector.entryHandler.echo"
ENTER = package(1, HANDSHAKE) + package(2, b"")


def request(number, size):
    head = bytes([0x00, number]) + bytes([len(ROUTE)]) + ROUTE
    return package(4, head + b'"' + b"x" * (size - 2) + b'"')


KINDS = {
    "silent": b"",
    "heads": UPGRADE[:-2] + b"A: b\r\n" * 1000,
    "random": random.Random(7).randbytes(200),
    # All of the largest handshake but its last byte.
    "half-handshakes": bytes([1]) + (16 << 10).to_bytes(3, "big") + b" " * ((16 << 10) - 1),
    # The same over WebSocket, in two fragments of which the second never ends.
    "fragments": UPGRADE + frame(b" " * 8000, fin=False) + frame(b" " * 8000, opcode=0, length=8380),
    # A client that is in, with most of a package of 4 MiB.
    "half-packages": ENTER + bytes([4]) + (4 << 20).to_bytes(3, "big") + b"x" * (512 << 10),
    # A client that is in, with all of a package of 64 KiB but its last byte, which comes in small pieces.
    "drip": ENTER + bytes([4]) + (64 << 10).to_bytes(3, "big") + b"x" * ((64 << 10) - 1),
    # A client that is in, asks for much and reads nothing.
    "deaf": ENTER + b"".join(request(n, 60_000) for n in range(1, 17)),
}
PIECE_BYTES = {"drip": 512}


class Strangers:
    def __init__(self, address, count, source, kind):
        self.address, self.source = address, source
        self.data, self.piece_bytes = KINDS[kind], PIECE_BYTES.get(kind, 65536)
        self.selector = selectors.DefaultSelector()
        self.sent = {}
        for _ in range(count):
            self.open()
            self.turn(0)

    def open(self):
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.bind((self.source, 0))
        stream.setblocking(False)
        stream.connect_ex(self.address)
        self.sent[stream] = 0
        self.selector.register(stream, selectors.EVENT_WRITE)

    def turn(self, timeout):
        closed = 0
        for key, events in self.selector.select(timeout):
            stream = key.fileobj
            sent = self.sent[stream]
            try:
                if sent < len(self.data):
                    self.sent[stream] = sent + stream.send(memoryview(self.data)[sent:sent + self.piece_bytes])
                elif events & selectors.EVENT_WRITE:
                    # From now on it only waits for its end, and reads nothing.
                    self.selector.modify(stream, selectors.EVENT_READ)
                elif stream.recv(1, socket.MSG_PEEK) == b"":
                    raise ConnectionResetError
                else:
                    # Bytes that it will never read.
                    self.selector.unregister(stream)
            except BlockingIOError:
                pass
            except OSError:
                try:
                    self.selector.unregister(stream)
                except KeyError:
                    pass
                stream.close()
                del self.sent[stream]
                closed += 1
        return closed


def main():
    host, port, kind, count, source = sys.argv[1:]
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    strangers = Strangers((host, int(port)), int(count), source, kind)
    said, again = False, 0
    while not ended.is_set():
        again += strangers.turn(0.05)
        if not said:
            print("ready", flush=True)
            said = True
        # At most 200 of them come again each second.
        for _ in range(min(again, 10)):
            strangers.open()
            again -= 1
        time.sleep(0.002)


main()
