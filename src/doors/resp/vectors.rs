//! What Redis 7.0.15 replied, byte for byte, to commands on an empty database that mean the same here.
//! In HELLO, version and id are set to what the test's door has.

/// Commands (separated by `;`) and the replies to them.
pub(super) const REPLIES: &[(&str, &str)] = &[
    (
        "foo; foo a b c; FOO",
        "-ERR unknown command 'foo', with args beginning with: \r\n-ERR unknown command 'foo', with args beginning with: 'a' 'b' 'c' \r\n-ERR unknown command 'FOO', with args beginning with: \r\n",
    ),
    (
        "foo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbb",
        "-ERR unknown command 'foo', with args beginning with: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' \r\n",
    ),
    (
        "get; GET a b; set a; getrange a 0",
        "-ERR wrong number of arguments for 'get' command\r\n-ERR wrong number of arguments for 'get' command\r\n-ERR wrong number of arguments for 'set' command\r\n-ERR wrong number of arguments for 'getrange' command\r\n",
    ),
    (
        "set a 1 NX XX; set a 1 foo; set a 1 get foo",
        "-ERR syntax error\r\n-ERR syntax error\r\n-ERR syntax error\r\n",
    ),
    (
        "set a 1; set a 2 NX; set a 3 XX GET; get a; set a 4 GET NX; set b 1 GET NX; get b; set c 1 XX; set c 1 XX GET; set a 5 KEEPTTL; get a",
        "+OK\r\n$-1\r\n$1\r\n1\r\n$1\r\n3\r\n$1\r\n3\r\n$-1\r\n$1\r\n1\r\n$-1\r\n$-1\r\n+OK\r\n$1\r\n5\r\n",
    ),
    (
        "incr a; incr a; decr a; incrby a 10; decrby a 3; incrby a x; incrby a 01; set s hello; incr s",
        ":1\r\n:2\r\n:1\r\n:11\r\n:8\r\n-ERR value is not an integer or out of range\r\n-ERR value is not an integer or out of range\r\n+OK\r\n-ERR value is not an integer or out of range\r\n",
    ),
    (
        "set m 9223372036854775807; incr m; decrby m -1; decrby a -9223372036854775808; decrby a 9223372036854775808; incrby m -9223372036854775808; get m",
        "+OK\r\n-ERR increment or decrement would overflow\r\n-ERR increment or decrement would overflow\r\n-ERR decrement would overflow\r\n-ERR value is not an integer or out of range\r\n:-1\r\n$2\r\n-1\r\n",
    ),
    ("append s hel; append s lo; strlen s; strlen none; get s", ":3\r\n:5\r\n:5\r\n:0\r\n$5\r\nhello\r\n"),
    (
        "set s hello; getrange s 0 -1; getrange s 1 2; getrange s -3 -1; getrange s 5 2; getrange s 0 x; getrange none 0 1; getrange s 4 9; getrange s -9 0; getrange s -9 -8; getrange s -1 -3; getrange s 2 -9; substr s 1 1",
        "+OK\r\n$5\r\nhello\r\n$2\r\nel\r\n$3\r\nllo\r\n$0\r\n\r\n-ERR value is not an integer or out of range\r\n$0\r\n\r\n$1\r\no\r\n$1\r\nh\r\n$1\r\nh\r\n$0\r\n\r\n$0\r\n\r\n$1\r\ne\r\n",
    ),
    (
        "exists a b; set a 1; exists a a b; touch a b; del a b; unlink a; type a; set a 1; type a; ttl a; pttl b; ttl b; persist a; expiretime a; pexpiretime b",
        ":0\r\n+OK\r\n:2\r\n:1\r\n:1\r\n:0\r\n+none\r\n+OK\r\n+string\r\n:-1\r\n:-2\r\n:-2\r\n:0\r\n:-1\r\n:-2\r\n",
    ),
    ("set a 1; set b 2; del a a b; exists a b; unlink a b", "+OK\r\n+OK\r\n:2\r\n:0\r\n:0\r\n"),
    (
        "mset a 1 b; mset a 1 b 2; mget a b c; msetnx a 1 d 2; msetnx d 1 e 2; mget d e; msetnx x; mset a 1 a 2; get a",
        "-ERR wrong number of arguments for 'mset' command\r\n+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n:0\r\n:1\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n-ERR wrong number of arguments for 'msetnx' command\r\n+OK\r\n$1\r\n2\r\n",
    ),
    (
        "getset a 1; getset a 2; getdel a; getdel a; setnx a 1; setnx a 2; get a",
        "$-1\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n:1\r\n:0\r\n$1\r\n1\r\n",
    ),
    (
        "multi; set a 1; get a; incr a; del a; exists a; append a x; getset a z; exec; get a",
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*7\r\n+OK\r\n$1\r\n1\r\n:2\r\n:1\r\n:0\r\n:1\r\n$1\r\nx\r\n$1\r\nz\r\n",
    ),
    (
        "multi; multi; watch a; exec",
        "+OK\r\n-ERR MULTI calls can not be nested\r\n-ERR WATCH inside MULTI is not allowed\r\n*0\r\n",
    ),
    (
        "exec; discard; multi; discard; multi; exec",
        "-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n+OK\r\n+OK\r\n+OK\r\n*0\r\n",
    ),
    (
        "multi; foo; get; set a 1; exec; get a",
        "+OK\r\n-ERR unknown command 'foo', with args beginning with: \r\n-ERR wrong number of arguments for 'get' command\r\n+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n",
    ),
    (
        "multi; set a x; incr a; set b y; exec; get b",
        "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n-ERR value is not an integer or out of range\r\n+OK\r\n$1\r\ny\r\n",
    ),
    (
        "watch a; set a 1; multi; get a; exec; multi; get a; exec",
        "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n",
    ),
    (
        "watch a; unwatch; set a 1; multi; get a; exec",
        "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n",
    ),
    ("watch b; set a 1; multi; get a; exec", "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"),
    (
        "watch a; multi; discard; set a 1; multi; get a; exec",
        "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n",
    ),
    (
        "watch; watch a b a; multi; unwatch; ping; echo hi; exec",
        "-ERR wrong number of arguments for 'watch' command\r\n+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n+PONG\r\n$2\r\nhi\r\n",
    ),
    (
        "ping; ping hi; ping a b; echo; echo x; PiNg",
        "+PONG\r\n$2\r\nhi\r\n-ERR wrong number of arguments for 'ping' command\r\n-ERR wrong number of arguments for 'echo' command\r\n$1\r\nx\r\n+PONG\r\n",
    ),
    (
        "select 0; select 99; select x",
        "+OK\r\n-ERR DB index is out of range\r\n-ERR value is not an integer or out of range\r\n",
    ),
    (
        "auth x; auth default x; auth a b c",
        "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n+OK\r\n-ERR syntax error\r\n",
    ),
    (
        "hello 4; hello x; hello 2 foo; hello 2 setname",
        "-NOPROTO unsupported protocol version\r\n-ERR Protocol version is not an integer or out of range\r\n-ERR Syntax error in HELLO option 'foo'\r\n-ERR Syntax error in HELLO option 'setname'\r\n",
    ),
    ("hello 3 setname me x; client getname", "-ERR Syntax error in HELLO option 'x'\r\n$2\r\nme\r\n"),
    (
        "hello 3 setname me; client getname",
        "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n$2\r\nme\r\n",
    ),
    (
        "client getname; client setname foo; client getname; client foo; client; client getname x; client no-evict on; client no-evict x; client setname; client reply on",
        "$-1\r\n+OK\r\n$3\r\nfoo\r\n-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n-ERR wrong number of arguments for 'client' command\r\n-ERR wrong number of arguments for 'client|getname' command\r\n+OK\r\n-ERR syntax error\r\n-ERR wrong number of arguments for 'client|setname' command\r\n+OK\r\n",
    ),
    (
        "command foo; command getkeys mset a 1 b 2; command getkeys get a; command getkeys ping; command getkeys get; command info nosuch; command count x",
        "-ERR unknown subcommand 'foo'. Try COMMAND HELP.\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n$1\r\na\r\n-ERR wrong number of arguments for 'command|getkeys' command\r\n-ERR wrong number of arguments for 'command|getkeys' command\r\n*1\r\n$-1\r\n-ERR wrong number of arguments for 'command|count' command\r\n",
    ),
    (
        "config get save; config; config get; config foo; config resetstat; config get nosuch",
        "*2\r\n$4\r\nsave\r\n$0\r\n\r\n-ERR wrong number of arguments for 'config' command\r\n-ERR wrong number of arguments for 'config|get' command\r\n-ERR unknown subcommand 'foo'. Try CONFIG HELP.\r\n+OK\r\n*0\r\n",
    ),
    (
        "wait a b; wait 0 x; wait 0 -1",
        "-ERR value is not an integer or out of range\r\n-ERR timeout is not an integer or out of range\r\n-ERR timeout is negative\r\n",
    ),
    (
        "scan x; scan 0 count 0; scan 0 count x; scan 0 match; scan 0 foo bar; scan 0; keys *; keys",
        "-ERR invalid cursor\r\n-ERR syntax error\r\n-ERR value is not an integer or out of range\r\n-ERR syntax error\r\n-ERR syntax error\r\n*2\r\n$1\r\n0\r\n*0\r\n*0\r\n-ERR wrong number of arguments for 'keys' command\r\n",
    ),
    (
        "set a 1; scan 0; scan 0 match a* count 5 type string; scan 0 type hash; scan 0 match b*; keys a; keys b; dbsize; scan 0 match [ab]",
        "+OK\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n*2\r\n$1\r\n0\r\n*0\r\n*2\r\n$1\r\n0\r\n*0\r\n*1\r\n$1\r\na\r\n*0\r\n:1\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n",
    ),
    (
        "debug; dbsize x; keys a b; time x; role x",
        "-ERR wrong number of arguments for 'debug' command\r\n-ERR wrong number of arguments for 'dbsize' command\r\n-ERR wrong number of arguments for 'keys' command\r\n-ERR wrong number of arguments for 'time' command\r\n-ERR wrong number of arguments for 'role' command\r\n",
    ),
    ("reset; multi; reset; exec", "+RESET\r\n+OK\r\n+RESET\r\n-ERR EXEC without MULTI\r\n"),
    ("multi; set a 1; quit; exec", "+OK\r\n+QUEUED\r\n+OK\r\n"),
    (
        "set a 1; hello 3; get a; get b; mget a b; watch a; set a 2; multi; get a; exec; multi; get a; get b; exec; config get save; client getname; getdel b; set b 1 NX GET; keys b; scan 0 match a; command info nosuch; command docs nosuch; reset; get c",
        "+OK\r\n%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n$1\r\n1\r\n_\r\n*2\r\n$1\r\n1\r\n_\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n_\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\n2\r\n_\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n_\r\n_\r\n_\r\n*1\r\n$1\r\nb\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n*1\r\n_\r\n%0\r\n+RESET\r\n$-1\r\n",
    ),
];
