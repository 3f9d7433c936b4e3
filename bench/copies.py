"""The least that a write costs two nodes on one machine where no disk limits them: its bytes go the way that they have to
go, and nothing is done to them. Client, Unix socket, primary, two files (journal and volume), TCP, standby, two files. No
protocol, no checksum, no answers, no bookkeeping: no program that keeps a journal and a volume on each of two nodes
through the page cache gets beyond this."""
import os, resource, socket, time

PIECE = 1 << 20
BUFFER = 4 << 20


def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def receive(source, room):
    at = 0
    while at < PIECE:
        got = source.recv_into(room[at:])
        if got == 0:
            raise EOFError
        at += got


def node(source, onward, files, pieces, told):
    """Twice: first into files that are made by that, as journals and volumes are there already when it counts."""
    room = memoryview(bytearray(PIECE))
    out = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in files]
    for _ in range(2):
        before = spent()
        for n in range(pieces):
            receive(source, room)
            for file in out:
                os.pwrite(file, room, n * PIECE)
            if onward:
                onward.sendall(room)
    os.write(told, f"{time.monotonic()} {spent() - before}\n".encode())


def measure(base, total):
    """MB/s until the standby has all of `total` bytes, and the seconds on the processors for each GiB."""
    pieces, each = total // PIECE, (1 << 30) / total
    client, door = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    for end in (client, door, link, peer):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    children = []
    for role, source, onward in (("primary", door, link), ("standby", peer, None)):
        answer, told = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                client.close()
                node(source, onward, [os.path.join(base, f"{role}-{n}") for n in range(2)], pieces, told)
                code = 0
            finally:
                os._exit(code)
        os.close(told)
        children.append((role, child, answer))
    for end in (door, link, peer):
        end.close()
    piece = memoryview(os.urandom(PIECE))
    for n in range(2 * pieces):
        if n == pieces:
            begun = time.monotonic()
        client.sendall(piece)
    run = {"bytes": total}
    for role, child, answer in children:
        with os.fdopen(answer) as line:
            ended, seconds = map(float, line.readline().split())
        os.waitpid(child, 0)
        run[role + "_cpu_s_per_gib"] = seconds * each
    client.close()
    run["mb_per_second"] = total / (ended - begun) / 1e6
    return run


if __name__ == "__main__":
    import tempfile
    with tempfile.TemporaryDirectory(dir="/dev/shm") as base:
        for _ in range(3):
            print({key: round(value, 3) for key, value in measure(base, 512 << 20).items()})
