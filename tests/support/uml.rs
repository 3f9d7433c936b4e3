//! A Linux kernel of its own, run as a process on the files of this machine, with a network that leads to volumes only.

use super::{shell, tool, wait_until};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// Carries connections from the network of a kernel to sockets in the file system.
const GATE: &str = "import asyncio, sys

async def pipe(source, sink):
    try:
        while data := await source.read(1 << 18):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    sink.close()

def to(path):
    async def carry(source, sink):
        try:
            far_source, far_sink = await asyncio.open_unix_connection(path)
        except OSError:
            return sink.close()
        await asyncio.gather(pipe(source, far_sink), pipe(far_source, sink))
    return carry

async def main():
    for port, path in enumerate(sys.argv[1:], 10809):
        await asyncio.start_server(to(path), '10.214.0.1', port)
    print('ready', flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
";

/// Starts a program for which ptrace(2) has no extended registers. Debian's kernel gives them back in 2696 bytes, and a
/// machine takes them only whole, which are more where the processor has AMX: it ends with "ptrace set fp regs failed,
/// errno = 14". Without them it is content with the older ones, and loses the others at each page fault, so what it runs
/// must not use them: [`NARROW`].
const WITHOUT_XSTATE: &str = "import ctypes, os, sys
PTRACE, GETREGSET, SETREGSET, NT_X86_XSTATE = 101, 0x4204, 0x4205, 0x202
LOAD, EQUAL, RETURN, REFUSE, ALLOW = 0x20, 0x15, 0x06, 0x00050000 | 5, 0x7fff0000
class Step(ctypes.Structure):
    _fields_ = [('code', ctypes.c_uint16), ('yes', ctypes.c_uint8), ('no', ctypes.c_uint8), ('value', ctypes.c_uint32)]
class Filter(ctypes.Structure):
    _fields_ = [('len', ctypes.c_uint16), ('steps', ctypes.POINTER(Step))]
# struct seccomp_data: number at 0, arguments from 16 on.
steps = (Step * 9)(
    Step(LOAD, 0, 0, 0), Step(EQUAL, 0, 5, PTRACE),
    Step(LOAD, 0, 0, 16), Step(EQUAL, 1, 0, GETREGSET), Step(EQUAL, 0, 2, SETREGSET),
    Step(LOAD, 0, 0, 32), Step(EQUAL, 1, 0, NT_X86_XSTATE),
    Step(RETURN, 0, 0, ALLOW), Step(RETURN, 0, 0, REFUSE))
SECCOMP, MODE_FILTER, NO_NEW_PRIVILEGES = 22, 2, 38
prctl = ctypes.CDLL(None).prctl
assert prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
assert prctl(SECCOMP, MODE_FILTER, ctypes.byref(Filter(len(steps), steps)), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
";

/// For the environment of a kernel's first process, and so of all: no functions that use wide registers.
const NARROW: &str =
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX_Fast_Unaligned_Load,-AVX2,-FMA,-AVX512F,-AVX512VL,-AVX512BW";

/// What every script of a kernel begins with: it logs to the shared directory, has the network and the driver for NBD,
/// and in the end switches itself off.
const BEFORE: &str = r#"#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /run/shared /run/ext4 /run/xfs
mount -t hostfs none /run/shared -o SHARED
off() {
    echo "ended with $1"
    sync -f /run/shared
    echo o >/proc/sysrq-trigger
    sleep 9
}
trap 'off $?' EXIT
exec >>/run/shared/log 2>&1
set -ex
ip link set lo up
ip address add 10.214.0.2/24 dev eth0
ip link set eth0 up
python3 -c "import ctypes, os
path = f'/usr/lib/uml/modules/{os.uname().release}/kernel/drivers/block/nbd.ko'
finit_module = 313
assert ctypes.CDLL(None).syscall(finit_module, os.open(path, os.O_RDONLY), b'', 0) == 0"
attach() { nbd-client -N "$1" 10.214.0.1 "$2" "$3"; }
"#;

/// A network of its own. Needs root, ip, nsenter and python3.
pub(crate) struct Lan {
    name: String,
    gate: Option<Child>,
}

impl Lan {
    /// One whose ports from 10809 on lead to these sockets.
    #[track_caller]
    pub(crate) fn new(sockets: &[PathBuf]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let name = format!("hb{}-u{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Held before anything is made: whatever was made is undone when a step fails.
        let mut lan = Self { name: name.clone(), gate: None };
        shell(&["ip", "netns", "add", &name]);
        shell(&["ip", "-n", &name, "tuntap", "add", "dev", "tap0", "mode", "tap"]);
        shell(&["ip", "-n", &name, "address", "add", "10.214.0.1/24", "dev", "tap0"]);
        shell(&["ip", "-n", &name, "link", "set", "tap0", "up"]);
        let mut gate = lan.within(&["python3", "-c", GATE]);
        let mut gate = gate.args(sockets).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let _ = BufReader::new(gate.stdout.take().unwrap()).read_line(&mut ready);
        lan.gate = Some(gate);
        assert_eq!(ready, "ready\n", "the gate did not open");
        lan
    }

    /// A program that will see this network and no other. It does not outlive the test program.
    fn within(&self, words: &[&str]) -> Command {
        let mut command = Command::new(tool("nsenter").expect("it was looked for"));
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.args(["setpriv", "--pdeathsig", "KILL"]).args(words).stdin(Stdio::null());
        command
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Some(gate) = &mut self.gate {
            let _ = gate.kill();
            let _ = gate.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).stderr(Stdio::null()).status();
    }
}

/// A kernel and its one script. Ended with all its processes when it is dropped.
pub(crate) struct Kernel {
    shared: PathBuf,
    process: Child,
}

impl Kernel {
    /// Starts the script as root on this machine's files, which cannot be changed but for those in `shared`, which is
    /// /run/shared there. In the script, `attach EXPORT PORT DEVICE` makes an export a disk.
    #[track_caller]
    pub(crate) fn boot(lan: &Lan, shared: &Path, script: &str) -> Self {
        let init = shared.join("init");
        let text = BEFORE.replace("SHARED", shared.to_str().unwrap()) + script;
        std::fs::write(&init, text).unwrap();
        shell(&["chmod", "755", init.to_str().unwrap()]);
        let console = File::create(shared.join("console")).unwrap();
        // Its processes leave every group: only a namespace of processes holds them together.
        let mut command = lan.within(&["unshare", "--pid", "--fork", "--kill-child=KILL"]);
        command.args(["timeout", "-s", "KILL", "300"]);
        if std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" amx_tile ")) {
            command.args(["python3", "-c", WITHOUT_XSTATE]);
        }
        command.args(["linux.uml", NARROW]);
        command.args(["mem=384M", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "eth0=tuntap,tap0"]);
        command.args(["con=null", "con0=null,fd:1"]).arg(format!("init={}", init.display()));
        // Its memory is a file there, which nobody else can see.
        command.env("TMPDIR", shared).stderr(console.try_clone().unwrap()).stdout(console);
        let process = command.spawn().unwrap();
        Self { shared: shared.to_owned(), process }
    }

    /// What the script said so far.
    pub(crate) fn log(&self) -> String {
        let texts = ["console", "log"].map(|name| std::fs::read(self.shared.join(name)).unwrap_or_default());
        String::from_utf8_lossy(&texts.concat()).into_owned()
    }

    /// Waits until the script has made a file in the shared directory.
    #[track_caller]
    pub(crate) fn makes(&mut self, name: &str) {
        let found = wait_until(&format!("the kernel to make {name}"), || {
            let there = self.shared.join(name).exists();
            (there || self.process.try_wait().unwrap().is_some()).then_some(there)
        });
        assert!(found, "it ended without {name}: {}", self.log());
    }

    /// Waits for the script to end.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        wait_until("the kernel to end", || self.process.try_wait().unwrap());
        assert!(self.log().contains("\nended with 0\n"), "{}", self.log());
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.kill();
    }
}
