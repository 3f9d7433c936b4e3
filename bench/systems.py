"""The systems that are measured: started in a directory of their own, on loopback, and ended by their process ids."""
import json, os, pwd, shutil, signal, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.abspath(os.path.join(HERE, "..", "target", "release"))
PROGRAM = os.path.join(TARGET, "hot-backup")
LOAD = os.path.join(TARGET, "examples", "bench-load")
JOURNAL = os.path.join(TARGET, "examples", "bench-journal")
RESULTS = os.path.join(HERE, "results")
POSTGRES = "/usr/lib/postgresql/15/bin"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(what, look, seconds=60, step=0.02):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if look():
            return
        time.sleep(step)
    sys.exit(f"{what} did not come within {seconds} s")


def ask(port, request, timeout=1):
    """One inline command; None when nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as s:
            s.sendall(request + b"\r\n")
            return s.recv(4096)
    except OSError:
        return None


def answers(port):
    return (ask(port, b"PING") or b"").startswith(b"+PONG")


class HotBackup:
    """A pair of nodes; the default file of the RESP door is app,items."""
    name = "hot-backup"

    def __init__(self, base, ack="local", init=(), encryption="none"):
        self.base, self.dirs = base, [os.path.join(base, n) for n in "AB"]
        link = free_ports(2)
        self.port = free_ports(1)[0]
        for n, directory in enumerate(self.dirs):
            resp = ["--resp", f"127.0.0.1:{self.port}", "--resp-default", "app,items"] if n == 0 else []
            self.run("init", "--dir", directory, "--name", "ab"[n], "--role", ["primary", "standby"][n],
                     "--link-listen", f"127.0.0.1:{link[n]}", "--peer", f"127.0.0.1:{link[1 - n]}",
                     "--encryption", encryption, "--ack-level", ack, "--on-peer-loss", "block", *init, *resp)
        for n in (0, 1):
            self.run("trust", "--dir", self.dirs[n], self.run("identity", "--dir", self.dirs[1 - n]).strip())
        self.children = [None, None]
        self.start(0)
        self.start(1)
        wait_for("the primary", lambda: answers(self.port))
        wait_for("the link", lambda: self.status()["peer"]["connected"])
        self.run("account", "create", "app", "--dir", self.dirs[0])
        self.run("file", "create", "app,items", "--records", "--flags", "L", "--dir", self.dirs[0])

    def start(self, n):
        self.children[n] = subprocess.Popen([PROGRAM, "serve", "--dir", self.dirs[n]], stdout=subprocess.DEVNULL,
                                            stderr=open(self.dirs[n] + ".log", "a"))

    def kill(self, n):
        self.children[n].kill()
        self.children[n].wait()

    def run(self, *args):
        done = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{args}: {done.stderr}")
        return done.stdout

    def status(self, n=0):
        done = subprocess.run([PROGRAM, "status", "--json", "--dir", self.dirs[n]], capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else {"peer": {"connected": False}}

    def processes(self):
        return {"primary": [self.children[0].pid], "standby": [self.children[1].pid]}

    def stop(self):
        for child in self.children:
            if child and child.poll() is None:
                child.send_signal(signal.SIGTERM)
                child.wait()


class Redis:
    """Redis with `appendfsync always` and a replica alike; with `persist` off, one server that keeps nothing."""
    name = "Redis"

    def __init__(self, base, persist=True):
        ports = free_ports(2 if persist else 1)
        self.port = ports[0]
        self.children = []
        for n, port in enumerate(ports):
            directory = os.path.join(base, str(port))
            os.makedirs(directory)
            kept = ["--appendonly", "yes", "--appendfsync", "always"] if persist else ["--appendonly", "no"]
            of = ["--replicaof", "127.0.0.1", str(self.port)] if n else []
            self.children.append(subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "", *kept, *of],
                stdout=open(directory + ".log", "w")))
            wait_for("Redis", lambda: answers(port))
        if persist:
            wait_for("the replica", lambda: b"state=online" in (ask(self.port, b"INFO replication") or b""))

    def processes(self):
        return {n: [c.pid] for n, c in zip(("primary", "standby"), self.children)}

    def stop(self):
        for child in self.children:
            child.kill()
            child.wait()


class Postgres:
    """PostgreSQL with a synchronous standby, `synchronous_commit = on`, everything else as it comes."""
    name = "PostgreSQL"
    script = ("\\set id random(1, 100000)\n"
              "INSERT INTO items VALUES (:id, repeat('v', 128)) ON CONFLICT (id) DO UPDATE SET value = excluded.value;\n")

    def __init__(self, base):
        self.base, ports = base, free_ports(2)
        self.port = ports[0]
        self.children = []
        if os.geteuid() == 0:
            os.chown(base, pwd.getpwnam("postgres").pw_uid, -1)
        self.dirs = [os.path.join(base, "primary"), os.path.join(base, "standby")]
        self.tool("initdb", "-D", self.dirs[0], "-A", "trust", "-U", "bench", "--no-instructions")
        settings = (f"listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 100\n"
                    "synchronous_commit = on\n")
        self.configure(0, settings + f"port = {ports[0]}\n")
        self.start(0)
        self.sql("CREATE TABLE items (id int PRIMARY KEY, value text)")
        self.tool("pg_basebackup", "-D", self.dirs[1], "-h", "127.0.0.1", "-p", str(ports[0]), "-U", "bench", "-R",
                  "-c", "fast")
        self.configure(1, f"port = {ports[1]}\n")
        self.start(1)
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        wait_for("the synchronous standby", lambda: "sync" in self.sql("SELECT sync_state FROM pg_stat_replication"))
        self.script_file = os.path.join(base, "upsert.sql")
        with open(self.script_file, "w") as out:
            out.write(self.script)

    def command(self, *args):
        become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*become, os.path.join(POSTGRES, args[0]), *args[1:]]

    def tool(self, *args):
        done = subprocess.run(self.command(*args), capture_output=True, text=True, cwd=self.base)
        if done.returncode:
            sys.exit(f"{args}: {done.stderr}")
        return done.stdout

    def configure(self, n, text):
        with open(os.path.join(self.dirs[n], "postgresql.conf"), "a") as out:
            out.write(text)

    def start(self, n):
        self.tool("pg_ctl", "-D", self.dirs[n], "-w", "-l", self.dirs[n] + ".log", "start")

    def sql(self, text):
        return self.tool("psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", "-c", text,
                         "postgres")

    def processes(self):
        """The postmasters and all their children."""
        found = {}
        for n, role in enumerate(("primary", "standby")):
            with open(os.path.join(self.dirs[n], "postmaster.pid")) as pid:
                found[role] = family(int(pid.readline()))
        return found

    def pgbench(self, clients, seconds):
        """As the load client: its figures, from pgbench's log of every transaction."""
        log = os.path.join(self.base, "log")
        done = subprocess.run(
            [os.path.join(POSTGRES, "pgbench"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", "-n", "-M",
             "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds), "-f", self.script_file, "-l",
             "--log-prefix", log, "postgres"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"pgbench: {done.stderr}")
        taken = []
        for name in os.listdir(self.base):
            if name.startswith("log."):
                path = os.path.join(self.base, name)
                with open(path) as lines:
                    taken += [int(line.split()[2]) for line in lines]
                os.remove(path)
        if not taken:
            sys.exit("pgbench: nothing was answered")
        taken.sort()
        at = lambda part: taken[int(len(taken) * part)] / 1000
        return {"updates": len(taken), "per_second": len(taken) / seconds, "p50_ms": at(0.5), "p99_ms": at(0.99),
                "p999_ms": at(0.999)}

    def stop(self):
        for n in (1, 0):
            subprocess.run(self.command("pg_ctl", "-D", self.dirs[n], "-m", "immediate", "-w", "stop"),
                           capture_output=True, cwd=self.base)


def family(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [pid] + [p for child in children.read().split() for p in family(int(child))]


def load(port, clients=64, seconds=5, *more):
    done = subprocess.run([LOAD, "--port", str(port), "--clients", str(clients), "--seconds", str(seconds), *more],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the load client: {done.stderr}")
    return json.loads(done.stdout)


def resident(pid):
    """The most memory so far, and now (MiB)."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {key: round(int(fields[key].split()[0]) / 1024) for key in ("VmHWM", "VmRSS")}


def flushes():
    """Flushes that all block devices have carried out so far."""
    total = 0
    for name in os.listdir("/sys/block"):
        with open(f"/sys/block/{name}/stat") as stat:
            fields = stat.read().split()
        total += int(fields[15]) if len(fields) > 15 else 0
    return total


class Base:
    """A directory that goes away."""

    def __init__(self, where):
        self.where = where or "/var/tmp"

    def __enter__(self):
        # So that an end by a signal stops and removes everything too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
        os.makedirs(self.where, exist_ok=True)
        self.path = tempfile.mkdtemp(prefix="hot-backup-bench-", dir=self.where)
        os.chmod(self.path, 0o755)
        return self

    def room(self, name):
        path = os.path.join(self.path, name)
        os.makedirs(path)
        return path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def tool_version(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.stdout else "?"


def machine(where):
    import platform
    model = "?"
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "?")
    kind = subprocess.run(["stat", "-f", "-c", "%T", where or "/var/tmp"], capture_output=True, text=True).stdout.strip()
    with open("/proc/meminfo") as info:
        memory = int(info.readline().split()[1]) // (1 << 20)
    return f"{os.cpu_count()} processors ({model}), {memory} GiB, Linux {platform.release()}, {kind}"
