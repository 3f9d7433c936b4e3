//! What is sent: a grammar for each command, words that are likely to find something, and sequences made of them.

use hot_backup::base::Prng;

/// Each command with what it takes. Capitals: `K` key, `V` value, `I` integer, `P` pattern, `W` name, `C` command, `A` any
/// word; other words stand for themselves. `a:b` is a after b, `a|b` one of them; `?` perhaps, `*` up to three, `+` one
/// to four times.
pub(super) const TAKES: &[(&str, &str)] = &[
    ("append", "K V"),
    ("auth", "A|default:A|A:A"),
    (
        "client",
        "id|getname|setname:W|info|list|list:type:normal|list:type:pubsub|list:type:A|list:id:9000000000000000|list:id:A|\
         no-evict:on|no-evict:off|no-evict:A|reply:on|help|unpause|kill:id:9000000000000000|kill:type:A:A|kill:A|getredir|trackinginfo|A",
    ),
    (
        "command",
        "count|list|docs|docs:C|info|info:C|list:filterby:pattern:P|list:filterby:aclcat:A|list:filterby:module:A|\
         getkeys:C:A:A:A|getkeys:get:K|getkeys:mset:K:V:K:V|getkeys:del:K:K|getkeysandflags:set:K:V|\
         getkeysandflags:mget:K:K|getkeysandflags:C:A:A|help|A",
    ),
    (
        "config",
        "get:A|get:databases|get:maxmemory|get:timeout|get:maxmemory-policy|get:save|get:nosuch|resetstat|help|A",
    ),
    ("dbsize", ""),
    ("decr", "K"),
    ("decrby", "K I"),
    ("del", "K+"),
    ("discard", ""),
    ("echo", "V"),
    ("exec", ""),
    ("exists", "K+"),
    ("expiretime", "K"),
    ("get", "K"),
    ("getdel", "K"),
    ("getex", "K persist?"),
    ("getrange", "K I I"),
    ("getset", "K V"),
    ("hello", "2|3|2:setname:W|3:setname:W|I|3:auth:default:A|3:A"),
    ("incr", "K"),
    ("incrby", "K I"),
    ("info", "server|clients|memory|stats|replication|keyspace|all|default|everything|nosuch"),
    ("keys", "P"),
    ("memory", "help|usage:K|usage:K:samples:I|usage:K:A"),
    ("mget", "K+"),
    ("mset", "K:V+"),
    ("msetnx", "K:V+"),
    ("multi", ""),
    ("persist", "K"),
    ("pexpiretime", "K"),
    ("ping", "V?"),
    ("pttl", "K"),
    ("quit", ""),
    ("reset", ""),
    ("role", ""),
    ("scan", "0|x match:A:A?|count:0?|count:I?|type?|type:A?|match:P?"),
    ("select", "I|0|1"),
    ("set", "K V nx|xx|get|keepttl*"),
    ("setnx", "K V"),
    ("strlen", "K"),
    ("substr", "K I I"),
    ("time", ""),
    ("touch", "K+"),
    ("ttl", "K"),
    ("type", "K"),
    ("unlink", "K+"),
    ("unwatch", ""),
    ("wait", "0|-1:0|0:A|0:I|A:0"),
    ("watch", "K+"),
];

/// Commands of the door that are not compared, and why.
pub(super) const LEFT_OUT: &[(&str, &str)] = &[
    ("client|no-touch", "Redis 7.0 does not know it"),
    ("client|receipt", "Redis has none"),
    ("client|setinfo", "Redis 7.0 does not know it"),
    ("config|rewrite", "refused: the config file is the operator's"),
    ("config|set", "refused: the config file is the operator's"),
    ("debug", "refused: nothing here is debugged by clients"),
    ("expire", "items never expire: refused with words that say so"),
    ("expireat", "items never expire: refused with words that say so"),
    ("flushall", "refused: clearing files is an operator's act"),
    ("flushdb", "refused: clearing files is an operator's act"),
    ("pexpire", "items never expire: refused with words that say so"),
    ("pexpireat", "items never expire: refused with words that say so"),
    ("psetex", "items never expire: refused with words that say so"),
    ("readonly", "Redis knows it in a cluster only; here every node may be asked"),
    ("readwrite", "Redis knows it in a cluster only; here every node may be asked"),
    ("setex", "items never expire: refused with words that say so"),
    ("waitaof", "Redis 7.0 does not know it"),
];

/// Words that may stand where a key must: no empty one, none with two commas, none over 255 bytes, as those are no keys
/// of the default file.
const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"abc",
    b"A",
    b"user:1",
    b"user:2",
    b"a*",
    b"[a]",
    b"a?c",
    b"x,y",
    b",",
    b"a\\b",
    b"sp ace",
    b"\x00\xff\r\n",
    b"app",
    "\u{3b2}".as_bytes(),
    &[b'k'; 255],
];
const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"1",
    b"-1",
    b"10",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"007",
    b"-0",
    b"+5",
    b" 1",
    b"1 ",
    b"3.0",
    b"text",
    b"\r\n\x00\xff",
    b"$5\r\nhello\r\n",
    &[b'v'; 5000],
    &[b'w'; 70_000],
];
const INTEGERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"-2",
    b"3",
    b"-3",
    b"4",
    b"-4",
    b"5",
    b"-5",
    b"-6",
    b"-9",
    b"100",
    b"-100",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775806",
    b"-9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"99999999999999999999",
    b"abc",
    b"1.5",
    b"1e3",
    b" 1",
    b"1 ",
    b"+1",
    b"00",
    b"-0",
    b"0x10",
    b"-",
];
const PATTERNS: &[&[u8]] = &[
    b"*",
    b"a*",
    b"*a",
    b"*b*",
    b"?",
    b"??",
    b"a?c",
    b"[a-c]*",
    b"[^a]*",
    b"[c-a]",
    b"[abc",
    b"[^",
    b"[",
    b"\\",
    b"a\\*",
    b"a\\",
    b"user:*",
    b"user:[12]",
    b"*,*",
    b"x\\,y",
    b"[x],y",
    b"app*",
    b"**",
    b"*?*",
    b"[\\]]*",
    b"[]a]",
    b"",
    b"A",
    b"[A-z]",
    b"k*",
    b"*\n",
    b"[a-",
    b"a,*",
    b"[a-]",
    b"[-a]",
    b"[^-]",
    b"[\\",
    b"[[]a[]]",
];
const NAMES: &[&[u8]] = &[b"me", b"a-client", b"with space", b"", b"line\n", b"\xff", b"name=x"];
const ANY: &[&[u8]] =
    &[b"x", b"0", b"-1", b"nx", b"get", b"set", b"*", b"count", b"match", b"a", b"\x00", b"help", b"on"];

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Sends a command.
    Command(Vec<Vec<u8>>),
    /// The same as a line of words.
    Inline(Vec<Vec<u8>>),
    /// Sends what is no command: the server says so and hangs up.
    Noise(&'static [u8]),
    /// SCAN with these options, from the first cursor to the last.
    Walk(Vec<Vec<u8>>),
}

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Which client.
    pub(super) client: usize,
    pub(super) what: What,
    /// Is sent together with the next step, if that is of the same client.
    pub(super) piped: bool,
}

impl Step {
    /// What is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.what {
            What::Command(words) => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                hot_backup::format::resp::command(&mut bytes, &words);
            }
            What::Inline(words) => {
                for word in words {
                    bytes.extend_from_slice(&quoted(word));
                    bytes.push(b' ');
                }
                bytes.extend_from_slice(b"\r\n");
            }
            What::Noise(noise) => bytes.extend_from_slice(noise),
            What::Walk(_) => {}
        }
        bytes
    }

    /// The words of a command.
    pub(super) fn words(&self) -> &[Vec<u8>] {
        match &self.what {
            What::Command(words) | What::Inline(words) => words,
            What::Noise(_) | What::Walk(_) => &[],
        }
    }

    /// The command's name in lower case.
    pub(super) fn name(&self) -> String {
        let name = match &self.what {
            What::Walk(_) => b"scan",
            _ => self.words().first().map_or(&b""[..], Vec::as_slice),
        };
        String::from_utf8_lossy(name).to_lowercase()
    }

    /// Whether the server hangs up after it.
    pub(super) fn ends(&self) -> bool {
        matches!(self.what, What::Noise(_)) || is(self.words().first().map_or(&[], Vec::as_slice), "quit")
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, words) = match &self.what {
            What::Command(words) => ("", words.as_slice()),
            What::Inline(words) => ("inline", words.as_slice()),
            What::Walk(words) => ("walk SCAN", words.as_slice()),
            What::Noise(noise) => {
                return write!(f, "client {}: noise \"{}\"", self.client, noise.escape_ascii());
            }
        };
        write!(f, "client {}: {kind}", self.client)?;
        for word in words {
            match word.len() {
                0..=300 => write!(f, " \"{}\"", word.escape_ascii())?,
                long => write!(f, " ({long} bytes)")?,
            }
        }
        f.write_str(if self.piped { " .." } else { "" })
    }
}

/// Whether a word is `name` in any case.
pub(super) fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn quoted(word: &[u8]) -> Vec<u8> {
    if !word.is_empty() && word.iter().all(|byte| byte.is_ascii_alphanumeric()) {
        return word.to_vec();
    }
    let inner = word.iter().map(|byte| match byte {
        b'\n' => "\\n".to_owned(),
        b'"' => "\\\"".to_owned(),
        byte if byte.is_ascii_graphic() && *byte != b'\\' || *byte == b' ' => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    });
    format!("\"{}\"", inner.collect::<String>()).into_bytes()
}

/// Makes sequences.
pub(super) struct Maker {
    prng: Prng,
    /// Few in most sequences, so that commands meet.
    keys: Vec<&'static [u8]>,
}

impl Maker {
    /// All that it makes is given by `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { prng: Prng::new(seed), keys: KEYS.to_vec() }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.prng.below(bound as u64)).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some steps of up to three clients.
    pub(super) fn sequence(&mut self) -> Vec<Step> {
        const NOISE: &[&[u8]] = &[
            b"*1\r\n:5\r\n",
            b"*x\r\n",
            b"*1\r\n$x\r\n",
            b"*1\r\n$-5\r\n",
            b"get \"a\r\n",
            b"get 'a'b\r\n",
            b"*2147483648\r\n",
            b"*99999999999999999999\r\n",
        ];
        let clients = 1 + self.below(3);
        let mut client = 0;
        self.keys = (0..1 + self.below(4)).map(|_| self.one(KEYS)).collect();
        if self.prng.percent(20) {
            self.keys = KEYS.to_vec();
        }
        let mut steps = Vec::new();
        while steps.len() < 60 && !self.prng.percent(4) {
            if self.prng.percent(30) {
                client = self.below(clients);
            }
            let what = match self.prng.below(100) {
                0 => What::Noise(self.one(NOISE)),
                1..=7 => What::Walk(self.walk()),
                8..=13 => What::Inline(self.line()),
                14..=20 => {
                    steps.extend(self.play(client));
                    continue;
                }
                _ => What::Command(self.command()),
            };
            let piped = self.prng.percent(60) && !matches!(what, What::Noise(_) | What::Walk(_));
            steps.push(Step { client, what, piped });
        }
        steps
    }

    /// Steps that find little unless they come together.
    fn play(&mut self, client: usize) -> Vec<Step> {
        const PLAYS: &[&[&str]] = &[
            // `+` is another client; the rest as in `TAKES`.
            &["watch K+", "+ W", "multi", "A", "exec"],
            &["watch K", "W", "multi", "get K", "exec"],
            &["watch K", "multi", "discard", "+ W", "multi", "get K", "exec"],
            &["watch K", "exec", "unwatch", "+ W", "multi", "set K V", "exec"],
            &["watch K", "multi", "set K V", "+ W", "reset", "multi", "get K", "exec"],
            &["multi", "W", "W", "keys P", "dbsize", "A", "keys *", "exec", "dbsize"],
            // What is there already and put again is one key.
            &[
                "mset K:V+",
                "multi",
                "set K V",
                "dbsize",
                "mset K:V+",
                "keys *",
                "del K+",
                "dbsize",
                "exec",
                "dbsize",
            ],
            &["set K V", "getrange K I I", "getrange K I I", "substr K I I", "strlen K"],
            &["set K I", "incrby K I", "decrby K I", "incr K", "decr K", "append K V", "incr K"],
            &["hello 3", "A", "A", "reset", "A"],
            &["client setname:W", "reset", "client getname", "client info"],
        ];
        const WRITES: &[&str] = &[
            "set K V",
            "del K",
            "mset K:V+",
            "append K V",
            "incr K",
            "getdel K",
            "setnx K V",
            "get K",
            "getset K V",
        ];
        let mut steps = Vec::new();
        for line in self.one(PLAYS) {
            let (other, line) = match line.strip_prefix("+ ") {
                Some(line) => (true, line),
                None => (false, *line),
            };
            let words = match line {
                "W" => {
                    let write = self.one(WRITES);
                    self.words_of(write)
                }
                "A" => self.command(),
                line => self.words_of(line),
            };
            let client = if other { (client + 1) % super::CLIENTS } else { client };
            steps.push(Step { client, what: What::Command(words), piped: self.prng.percent(50) });
        }
        steps
    }

    fn words_of(&mut self, line: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        line.split_whitespace().for_each(|token| self.token(token, false, &mut words));
        words
    }

    /// A command that is short enough for a line.
    fn line(&mut self) -> Vec<Vec<u8>> {
        loop {
            let words = self.command();
            if words.iter().map(Vec::len).sum::<usize>() < 10_000 {
                return words;
            }
        }
    }

    fn walk(&mut self) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        if self.prng.percent(60) {
            words.extend([b"match".to_vec(), self.one(PATTERNS).to_vec()]);
        }
        if self.prng.percent(50) {
            words.extend([b"count".to_vec(), self.one(&[&b"1"[..], b"3", b"1000"]).to_vec()]);
        }
        if self.prng.percent(20) {
            words.extend([
                b"type".to_vec(),
                self.one(&[&b"string"[..], b"STRING", b"hash", b"nosuch"]).to_vec(),
            ]);
        }
        words
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        const OFTEN: &[&str] =
            &["multi", "exec", "watch", "set", "set", "get", "mset", "incr", "append", "del", "keys"];
        if self.prng.percent(2) {
            return vec![
                self.one(&[&b"nosuch"[..], b"gets", b"\xff\r\n", b"a b"]).to_vec(),
                self.one(ANY).to_vec(),
            ];
        }
        let (name, takes) = self.one(TAKES);
        let often = self.one(OFTEN);
        let (name, takes) = match self.prng.percent(35) {
            true => (often, TAKES.iter().find(|(name, _)| *name == often).unwrap().1),
            false => (name, takes),
        };
        let wrong = self.prng.percent(12);
        let mut words = vec![self.cased(name)];
        for token in takes.split_whitespace() {
            self.token(token, wrong, &mut words);
        }
        if wrong {
            self.spoil(&mut words);
        }
        if name == "wait" && words.len() == 3 && !words[1].starts_with(b"-") {
            // For replicas that never come it would wait, and without end.
            words[1] = b"0".to_vec();
        }
        words
    }

    fn cased(&mut self, word: &str) -> Vec<u8> {
        match self.prng.below(3) {
            0 => word.to_uppercase().into_bytes(),
            _ => word.as_bytes().to_vec(),
        }
    }

    fn token(&mut self, token: &str, safe: bool, words: &mut Vec<Vec<u8>>) {
        let (token, times) = match token.chars().last() {
            Some('?') => (&token[..token.len() - 1], self.below(2)),
            Some('*') => (&token[..token.len() - 1], self.below(4)),
            Some('+') => (&token[..token.len() - 1], 1 + self.below(4)),
            _ => (token, 1),
        };
        for _ in 0..times {
            let alternatives: Vec<&str> = token.split('|').collect();
            for atom in self.one(&alternatives).split(':') {
                let word = match atom {
                    "K" => self.key(),
                    // Words that move to where a key must be are to be keys.
                    "V" if safe => self.key(),
                    "V" => self.one(VALUES).to_vec(),
                    "I" => self.one(INTEGERS).to_vec(),
                    "P" => self.one(PATTERNS).to_vec(),
                    "W" => self.one(NAMES).to_vec(),
                    "A" => self.one(ANY).to_vec(),
                    "C" => {
                        let (name, _) = self.one(TAKES);
                        self.cased(name)
                    }
                    literal => self.cased(literal),
                };
                words.push(word);
            }
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let at = self.below(self.keys.len());
        self.keys[at].to_vec()
    }

    /// A word too many, too few, or at another place.
    fn spoil(&mut self, words: &mut Vec<Vec<u8>>) {
        let at = 1 + self.below(words.len());
        match self.prng.below(3) {
            0 => words.insert(at.min(words.len()), self.one(ANY).to_vec()),
            1 if at < words.len() => drop(words.remove(at)),
            _ if at + 1 < words.len() => words.swap(at, at + 1),
            _ => words.push(self.key()),
        }
    }
}
