#!/usr/bin/env python3
"""A client of an NBD server that keeps N writes in flight over one connection and says what came of it, as JSON.

fio's NBD engine has no FUA, so this one does it, and it is the same for all servers that are compared. Requests are
made in place in buffers that are sent together, replies are read many at once: 3 to 5 microseconds a write, which the
result tells (`client_us`), so that one sees whether the client was what limited it."""
import argparse, json, os, random, resource, socket, struct, sys, time

OPTION, REPLY, REQUEST = struct.Struct(">QII"), struct.Struct(">IIQ"), struct.Struct(">IHHQQI")
WRITE, DISC, FLUSH, FUA = 1, 2, 3, 1


class Connection:
    def __init__(self, where, export):
        if where.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where)
        else:
            host, port = where.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.exactly(18)[:16] != b"NBDMAGICIHAVEOPT":
            sys.exit("not a server of the newstyle handshake")
        name = export.encode()
        self.socket.sendall(struct.pack(">I", 3) + OPTION.pack(0x49484156454F5054, 1, len(name)) + name)
        self.size, self.flags = struct.unpack(">QH", self.exactly(10))

    def exactly(self, count):
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            if not more:
                sys.exit("the server hung up")
            got += more
        return got

    def send(self, parts):
        left = sum(map(len, parts)) - self.socket.sendmsg(parts)
        if left:
            self.socket.sendall(b"".join(parts)[-left:])


def load(c, size, flight, span, seconds, total, sequential, fua):
    """Writes until `seconds` are over or `total` bytes are written, and a flush; what was answered, and when."""
    slots = [bytearray(REQUEST.size) + bytearray(os.urandom(size)) for _ in range(flight)]
    times, taken, clock = [0.0] * flight, [], time.perf_counter
    blocks, issued, most, flags = span // size, 0, total // size if total else 1 << 62, FUA if fua else 0
    begun = clock()
    until = begun + (seconds or 1e9)

    def fill(slot):
        nonlocal issued
        at = issued % blocks if sequential else int(random.random() * blocks)
        issued += 1
        REQUEST.pack_into(slots[slot], 0, 0x25609513, flags, WRITE, slot, at * size, size)
        times[slot] = clock()
        return slots[slot]

    c.send([fill(slot) for slot in range(min(flight, most))])
    rest = b""
    while len(taken) < issued:
        got = c.socket.recv(1 << 16)
        if not got:
            sys.exit("the server hung up")
        got = rest + got
        whole = len(got) // 16 * 16
        rest, now, ready = got[whole:], clock(), []
        for magic, error, slot in REPLY.iter_unpack(got[:whole]):
            if error or magic != 0x67446698:
                sys.exit(f"reply {magic:x}, error {error}")
            taken.append(now - times[slot])
            if now < until and issued < most:
                ready.append(fill(slot))
        if ready:
            c.send(ready)
    written = clock() - begun
    c.socket.sendall(REQUEST.pack(0x25609513, 0, FLUSH, 0, 0, 0))
    if REPLY.unpack(c.exactly(16))[1]:
        sys.exit("the flush failed")
    lasted = clock() - begun
    c.socket.sendall(REQUEST.pack(0x25609513, 0, DISC, 0, 0, 0))
    taken.sort()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"writes": len(taken), "bytes": len(taken) * size, "seconds": lasted, "flush_seconds": lasted - written,
            "per_second": len(taken) / lasted, "mb_per_second": len(taken) * size / lasted / 1e6,
            "p50_ms": taken[len(taken) // 2] * 1e3, "p99_ms": taken[int(len(taken) * 0.99)] * 1e3,
            "client_us": (usage.ru_utime + usage.ru_stime) / len(taken) * 1e6}


if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("where", help="path of a socket, or HOST:PORT")
    ask.add_argument("export")
    ask.add_argument("--size", type=int, default=4096)
    ask.add_argument("--flight", type=int, default=32)
    ask.add_argument("--span", type=int, default=1 << 30, help="the first so many bytes are written; 0: all")
    ask.add_argument("--seconds", type=float)
    ask.add_argument("--total", type=int, help="bytes to write")
    ask.add_argument("--sequential", action="store_true")
    ask.add_argument("--fua", action="store_true")
    ask = ask.parse_args()
    c = Connection(ask.where, ask.export)
    print(json.dumps(load(c, ask.size, ask.flight, ask.span or c.size, ask.seconds, ask.total, ask.sequential, ask.fua)))
