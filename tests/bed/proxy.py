"""A TCP proxy between client and server that ends, resets or stalls a connection at a chosen byte."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import namedtuple

TO_SERVER = "to server"
TO_CLIENT = "to client"
CLOSE = "close"  # both sides see the end of the stream
RESET = "reset"  # both sides see the connection reset
STALL = "stall"  # nothing moves any more, until `resume`

Fault = namedtuple("Fault", "direction after action")
Fault.__doc__ = "`action` on a connection once `after` bytes went through it in `direction`; not one byte more does."

TICK = 0.05  # seconds until a thread that waits for data sees that it is to end
BUFFER = 1 << 18  # bytes taken in one direction before the other side has read them


class Proxy:
    """Forwards 127.0.0.1:`port` to a server's port; `fault` is what the connections made from now on meet.

    `transferred` has a dict {TO_SERVER: bytes, TO_CLIENT: bytes} for each connection so far, in order, so that a test
    can learn from an undisturbed run at which bytes to disturb the next.
    """

    def __init__(self, target_port, target_host="127.0.0.1"):
        self._target = (target_host, target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TICK)
        self.port = self._listener.getsockname()[1]
        self.fault = None
        self._connections = []
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def transferred(self):
        """The bytes of each connection so far, open or ended."""
        return [connection.transferred for connection in self._connections]

    def cut(self, after, direction=TO_SERVER, action=CLOSE):
        """Let each connection from now on meet `action` after `after` bytes in `direction`."""
        self.fault = Fault(direction, after, action)

    def mend(self):
        """Let the connections from now on go through undisturbed."""
        self.fault = None

    def resume(self):
        """Let the stalled connections go on."""
        for connection in self._connections:
            connection.fault = None

    def drop_all(self):
        """Cut every connection that is open now; returns when they are."""
        dropped = [*self._connections]  # who is cut may connect anew at once, and is not waited for
        for connection in dropped:
            connection.dropped = True
        for connection in dropped:
            connection.thread.join(10)

    def close(self):
        """Cut everything and listen no more."""
        self._closed = True
        self._thread.join(10)
        self._listener.close()
        self.drop_all()

    def _accept(self):
        while not self._closed:
            with contextlib.suppress(TimeoutError, socket.timeout):
                client, _ = self._listener.accept()
                self._join(client)

    def _join(self, client):
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            client.close()
            return
        connection = _Connection(client, server, self.fault)
        self._connections.append(connection)
        connection.thread.start()


class _Connection:
    # One thread moves the bytes of both directions: a socket closes at once only when no other thread waits on it.

    def __init__(self, client, server, fault):
        self.fault = fault
        self.dropped = False
        self.transferred = {TO_SERVER: 0, TO_CLIENT: 0}
        self._lanes = [_Lane(client, server, TO_SERVER), _Lane(server, client, TO_CLIENT)]
        for each in (client, server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        with contextlib.suppress(OSError):
            while not self.dropped and not all(lane.ended for lane in self._lanes):
                if not self._is_struck():
                    self._move()
                elif self.fault.action == STALL:
                    time.sleep(TICK)
                else:
                    break
        self._end()

    def _is_struck(self):
        fault = self.fault
        return fault is not None and self.transferred[fault.direction] >= fault.after

    def _room(self, lane):
        fault = self.fault
        room = BUFFER - len(lane.waiting)
        if fault is not None and fault.direction == lane.direction:
            room = min(room, fault.after - self.transferred[lane.direction] - len(lane.waiting))
        return room

    def _move(self):
        readers = {lane.source: lane for lane in self._lanes if not lane.at_end and self._room(lane) > 0}
        writers = {lane.sink: lane for lane in self._lanes if lane.waiting}
        readable, writable, _ = select.select([*readers], [*writers], [], TICK)
        for lane in (readers[each] for each in readable):
            data = lane.source.recv(self._room(lane))
            lane.waiting += data
            lane.at_end = not data
        for lane in (writers[each] for each in writable):
            sent = lane.sink.send(lane.waiting)
            del lane.waiting[:sent]
            self.transferred[lane.direction] += sent
        for lane in self._lanes:
            if lane.at_end and not lane.waiting and not lane.ended:
                lane.sink.shutdown(socket.SHUT_WR)
                lane.ended = True

    def _end(self):
        for each in (self._lanes[0].source, self._lanes[0].sink):
            with contextlib.suppress(OSError):
                if self.fault is not None and self._is_struck() and self.fault.action == RESET:
                    # A linger time of zero makes close send a reset (socket(7), SO_LINGER).
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    each.shutdown(socket.SHUT_RDWR)
            each.close()


class _Lane:
    # One direction of a connection: bytes read from `source` wait for `sink` to take them.

    def __init__(self, source, sink, direction):
        self.source = source
        self.sink = sink
        self.direction = direction
        self.waiting = bytearray()
        self.at_end = False
        self.ended = False
