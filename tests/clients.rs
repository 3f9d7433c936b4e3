//! Real Redis clients, as their makers ship them, against a pair of real nodes.
//!
//! What each test proves: the client connects without a setting of its own, does what it is for on the primary, reads
//! the same on the standby, and is told by the standby what Redis would tell it.

use crate::support::{Door, Pair, Plan, scratch, tier, tool};
use std::net::SocketAddr;
use std::process::Command;

fn address(door: &Door) -> SocketAddr {
    match door {
        Door::Tcp(address) => *address,
        Door::Unix(path) => panic!("{} is no TCP address", path.display()),
    }
}

/// Runs a client against a node; its output, both streams.
fn client(program: &str, door: &Door, args: &[&str]) -> String {
    let at = address(door);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let mut command = Command::new("timeout");
    command.args(["120", program, "-h", &host, "-p", &port]).args(args);
    let output = command.output().expect("it starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text.trim().to_owned()
}

#[test]
fn tier_redis_cli_reads_and_writes_and_is_refused_where_it_must_be() {
    tier!("redis-cli");
    let pair = Pair::start(&Plan::quick());
    let a = |args: &[&str]| client("redis-cli", &pair.a.door, args);
    let b = |args: &[&str]| client("redis-cli", &pair.b.door, args);
    assert_eq!(a(&["set", "app,orders,one,with,commas", "hello"]), "OK");
    assert_eq!(a(&["-3", "get", "app,orders,one,with,commas"]), "hello");
    assert_eq!(a(&["waitaof", "1", "1", "5000"]), "1\n1");
    pair.converges();
    assert_eq!(b(&["get", "app,orders,one,with,commas"]), "hello");
    assert!(b(&["set", "app,orders,x", "y"]).starts_with("READONLY"));
    for n in 0..500 {
        assert_eq!(a(&["set", &format!("app,orders,{n}"), "v"]), "OK");
    }
    assert_eq!(a(&["--scan", "--pattern", "app,orders,*"]).lines().count(), 501);
    pair.converges();
    assert_eq!(b(&["--scan", "--pattern", "app,orders,*"]).lines().count(), 501);
    assert!(a(&["info", "replication"]).contains("role:master"));
    assert!(b(&["info", "replication"]).contains("role:slave"));
    assert!(a(&["role"]).starts_with("master"));
    assert!(a(&["get", "nofile"]).contains("account,file,item-id"));
}

/// A client that goes on until it is stopped; what it said in two seconds.
fn for_two_seconds(program: &str, door: &Door, args: &[&str]) -> String {
    let at = address(door);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let mut command = Command::new("timeout");
    // It is killed with what it holds back for a pipe.
    command.args(["2", "stdbuf", "-oL", program, "-h", &host, "-p", &port]).args(args);
    let output = command.output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tier_the_reports_of_redis_cli_are_right() {
    tier!("redis-cli");
    let mut pair = Pair::set_up(&Plan::quick().init(&["--resp-default", "app,orders"]));
    pair.serve();
    let a = |args: &[&str]| client("redis-cli", &pair.a.door, args);
    a(&["mset", "small", "1", "large", &"x".repeat(1000)]);
    let stat = for_two_seconds("redis-cli", &pair.a.door, &["--stat", "-i", "0.2"]);
    let lines: Vec<Vec<&str>> = stat.lines().map(|line| line.split_whitespace().collect()).collect();
    let numbers: Vec<_> =
        lines.iter().filter(|line| line.first().is_some_and(|keys| keys.parse::<u64>().is_ok())).collect();
    assert!(numbers.len() > 3, "{stat}");
    for line in numbers {
        // Keys, memory, clients, blocked.
        assert_eq!((line[0], line[2], line[3]), ("2", "1", "0"), "{stat}");
        assert!(line[1].ends_with('M') && line[1] != "0B", "{stat}");
    }
    assert!(
        a(&["--latency", "-i", "1"])
            .split_whitespace()
            .nth(3)
            .is_some_and(|count| count.parse::<u64>().unwrap() > 10)
    );
    let largest = a(&["--bigkeys"]);
    assert!(largest.contains("Biggest string found '\"large\"' has 1000 bytes"), "{largest}");
    let heaviest = a(&["--memkeys"]);
    assert!(heaviest.contains("Biggest string found '\"large\"' has 1005 bytes"), "{heaviest}");
    pair.converges();
    let port = |door: &Door| address(door).port();
    let (of_a, of_b) = (port(&pair.a.door), port(&pair.b.door));
    let info = a(&["info"]);
    assert!(
        info.contains(&format!("tcp_port:{of_a}")) && info.contains(&format!("port={of_b},state=online")),
        "{info}"
    );
    let standby = client("redis-cli", &pair.b.door, &["info", "replication"]);
    assert!(standby.contains(&format!("master_port:{of_a}")), "{standby}");
    let role = client("redis-cli", &pair.b.door, &["role"]);
    assert!(role.starts_with("slave\n") && role.contains(&of_a.to_string()), "{role}");
}

#[test]
fn tier_redis_benchmark_runs_as_it_is() {
    tier!("redis-benchmark");
    let pair = Pair::start(&Plan::quick().init(&["--resp-default", "app,orders"]));
    let run = |args: &[&str]| client("redis-benchmark", &pair.a.door, args);
    let plain = run(&["-q", "-n", "4000", "-c", "32", "-t", "set,get,mset"]);
    for name in ["SET", "GET", "MSET"] {
        assert!(plain.contains(name) && plain.contains("requests per second"), "{plain}");
    }
    let piped = run(&["-q", "-n", "20000", "-c", "16", "-P", "16", "-t", "set,get,mset"]);
    assert!(piped.contains("MSET"), "{piped}");
    let random =
        run(&["-q", "-n", "5000", "-c", "16", "-r", "1000", "SET", "app,orders,__rand_int__", "__data__"]);
    assert!(random.contains("requests per second") && !random.contains("rror"), "{random}");
    pair.converges();
    let standby = |args: &[&str]| client("redis-benchmark", &pair.b.door, args);
    let reads = standby(&["-q", "-n", "20000", "-c", "16", "-P", "16", "-r", "1000", "-t", "get"]);
    assert!(reads.contains("GET: ") && reads.contains("requests per second"), "{reads}");
}

#[test]
fn tier_redis_py_works_unchanged_on_both_nodes() {
    tier!();
    let script = r"
import sys, time, redis
(host_a, port_a, host_b, port_b) = sys.argv[1:]
for protocol in (2, 3):
    a = redis.Redis(host=host_a, port=int(port_a), protocol=protocol)
    b = redis.Redis(host=host_b, port=int(port_b), protocol=protocol)
    assert a.ping() and b.ping()
    assert a.set('app,orders,py', b'\x00\xff value')
    with a.pipeline(transaction=True) as pipe:
        for n in range(100):
            pipe.set(f'app,orders,py{n}', n)
        assert all(pipe.execute())
    assert a.mget([f'app,orders,py{n}' for n in range(3)]) == [b'0', b'1', b'2']
    assert a.waitaof(1, 1, 5000) == [1, 1], 'not durable on both'
    assert a.execute_command('WAIT', 1, 5000) == 1
    found = set(a.scan_iter(match='app,orders,py*', count=7))
    assert len(found) == 101, len(found)
    with a.pipeline() as pipe:
        pipe.watch('app,orders,py')
        a.set('app,orders,py', 'changed')
        pipe.multi()
        pipe.set('app,orders,py', 'lost')
        try:
            pipe.execute()
            raise SystemExit('a watched item changed and nobody noticed')
        except redis.WatchError:
            pass
    assert a.delete('app,orders,py0', 'app,orders,nothing') == 1
    assert a.info('replication')['role'] == 'master'
    try:
        b.set('app,orders,py', 1)
        raise SystemExit('the standby took a write')
    except redis.exceptions.ReadOnlyError:
        pass
    a.set('app,orders,end', protocol)
    deadline = time.monotonic() + 60
    while b.get('app,orders,end') != b'%d' % protocol and time.monotonic() < deadline:
        time.sleep(0.01)
    assert b.get('app,orders,py1') == b'1'
    assert b.get('app,orders,py') == b'changed'
    assert b.mget('app,orders,py1', 'app,orders,py0') == [b'1', None]
    with b.pipeline(transaction=True) as pipe:
        for n in range(1, 100):
            pipe.get(f'app,orders,py{n}')
        assert pipe.execute() == [b'%d' % n for n in range(1, 100)]
    assert len(set(b.scan_iter(match='app,orders,py*', count=7))) == 100
    assert b.exists('app,orders,py1', 'app,orders,py0') == 1
    assert b.info('replication')['role'] == 'slave'
    assert b.role()[0] in (b'slave', 'slave'), b.role()
print('all well')
";
    all_well_says_redis_py(crate::support::here!(), script);
}

#[test]
fn tier_redis_py_is_told_what_tools_ask_for() {
    tier!();
    let script = r"
import sys, redis
(host_a, port_a, host_b, port_b) = sys.argv[1:]
for protocol in (2, 3):
    a = redis.Redis(host=host_a, port=int(port_a), protocol=protocol)
    b = redis.Redis(host=host_b, port=int(port_b), protocol=protocol)
    assert a.set('app,orders,py', 'value')
    info = a.info()
    assert info['redis_mode'] == 'standalone' and info['cluster_enabled'] == 0
    assert info['used_memory'] > 0 and len(info['run_id']) == 40 and info['tcp_port'] == int(port_a)
    assert info['db0']['keys'] == a.dbsize() and info['maxmemory'] == 0
    assert info['slave0']['port'] == int(port_b), info['slave0']
    assert b.info()['master_port'] == int(port_a)
    a.client_setname('tester')
    other = redis.Redis(host=host_a, port=int(port_a), protocol=protocol, client_name='other')
    assert other.ping()
    names = {client['name']: client for client in a.client_list()}
    assert {'tester', 'other'} <= set(names), names
    assert a.client_info()['name'] == 'tester'
    assert a.client_list(client_id=[names['other']['id']])[0]['addr'] == names['other']['addr']
    assert a.client_kill_filter(_id=names['other']['id']) == 1
    assert 'other' not in {client['name'] for client in a.client_list()}
    assert a.memory_usage('app,orders,py') > 0
    assert a.command_count() == len(a.command()) < len(a.command_list())
    assert b'get' in [bytes(name) for name in a.command_list(category='read')]
    assert a.command_getkeys('MSET', 'k', 1, 'l', 2) in ([b'k', b'l'], ['k', 'l'])
    try:
        a.expire('app,orders,py', 5)
        raise SystemExit('an item was made to expire')
    except redis.ResponseError as error:
        assert 'items do not expire' in str(error)
print('all well')
";
    all_well_says_redis_py(crate::support::here!(), script);
}

/// Runs a script with the addresses of a pair.
fn all_well_says_redis_py(name: &str, script: &str) {
    let python = std::env::var("HB_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let there = Command::new(&python).args(["-c", "import redis"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        return crate::support::lacking(name, "redis-py");
    }
    let pair = Pair::start(&Plan::quick());
    let (a, b) = (address(&pair.a.door), address(&pair.b.door));
    let output = Command::new("timeout")
        .args(["120", &python, "-c", script])
        .args([a.ip().to_string(), a.port().to_string(), b.ip().to_string(), b.port().to_string()])
        .output()
        .expect("timeout is everywhere");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.trim().ends_with("all well"), "{text}");
}

#[test]
fn tier_the_real_text_of_this_program_survives_import_and_export() {
    tier!("diff");
    let pair = Pair::start(&Plan::quick());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    pair.a.done(&["item", "import", "app,orders", source]);
    pair.converges();
    let dir = scratch();
    let out = dir.path().join("exported");
    pair.b.done(&["item", "export", "app,orders", out.to_str().expect("a plain path")]);
    let diff = tool("diff").expect("it was looked for");
    let found = Command::new(diff).args(["--recursive", "--brief", source]).arg(&out).output().unwrap();
    let differs = String::from_utf8_lossy(&found.stdout).lines().filter(|line| !line.contains(": .")).count();
    assert_eq!(differs, 0, "{}", String::from_utf8_lossy(&found.stdout));
}
