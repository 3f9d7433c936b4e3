"""The standby is away for long: the most memory of the primary while it goes on at a steady rate, 2,000 SETs of 128 bytes
and 20 writes of 64 KiB into a volume in a second. Not part of run.py, since it takes an hour.

Usage: bench/away.py [PROGRAM [MINUTES]]"""
import os, random, socket, sys, threading, time
import systems as s, volumes

AT_ONCE, EACH_S = 200, 0.1
VALUE = b"v" * 128


def blocks(pair, until):
    while time.monotonic() < until:
        volumes.write(pair, "disk1", "--size", "65536", "--flight", "1", "--total", str(20 * 65536), "--span", str(1 << 30))
        time.sleep(1)


def items(pair, until, look):
    client = socket.create_connection(("127.0.0.1", pair.port))
    replies, sent, due = client.makefile("rb"), 0, time.monotonic()
    while time.monotonic() < until:
        client.sendall(b"".join(b"SET key:%012d %s\r\n" % (random.randrange(1_000_000), VALUE) for _ in range(AT_ONCE)))
        for _ in range(AT_ONCE):
            if replies.readline() != b"+OK\r\n":
                sys.exit("an update was refused")
        sent += AT_ONCE
        if sent % (300 * AT_ONCE) == 0:
            look(sent)
        due += EACH_S
        time.sleep(max(0, due - time.monotonic()))
    look(sent)


def measure(where, minutes=60):
    with s.Base(where) as base:
        pair = volumes.Volumes(base.room("hot-backup"), quota="8G")
        try:
            pair.kill(1)
            pid, until = pair.processes()["primary"][0], time.monotonic() + 60 * minutes

            def look(sent):
                memory, journal = s.resident(pid), pair.status()["journal"]
                print(f"{sent:,} updates, journal {journal['bytes'] >> 20:,} MiB, memory {memory['VmRSS']} MiB, "
                      f"at most {memory['VmHWM']} MiB", flush=True)

            writer = threading.Thread(target=blocks, args=(pair, until), daemon=True)
            writer.start()
            items(pair, until, look)
            writer.join()
        finally:
            pair.stop()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        s.PROGRAM = os.path.abspath(sys.argv[1])
    measure(None, float(sys.argv[2]) if len(sys.argv) > 2 else 60)
