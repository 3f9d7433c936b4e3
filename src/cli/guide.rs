//! `setup`: the steps from a machine to a node of a pair, one after the other, asked in a terminal or given by flags.

use super::failure::{Answer, Done, Failure};
use super::glue::{self, Code, InitOptions, Introduced, Level};
use super::out::{say, visible};
use super::values::{self, RoleArg};
use super::{Context, ask};
use crate::base::limits::{ANSWER_MAX, COMMAND_LOOK_MS};
use crate::base::{AckLevel, Line, next_line};
use crate::engine::admin::{AdminRequest, Status};
use clap::Args;
use std::io::{BufRead, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where nodes listen for their peer if nobody says otherwise.
const PORT: u16 = 2000;
/// Ports above it that are looked at for a free one.
const PORTS: u16 = 100;
/// Answers to one question that are not understood, after which nobody is asked on.
const TRIES: u32 = 5;
/// The directory of the service.
const DIRECTORY: &str = "/var/lib/hot-backup";

/// Makes this machine a node of a pair, step by step, and introduces the two machines by a short code
#[derive(Debug, Args)]
#[command(after_long_help = "\
In a terminal, whatever no flag says is asked. Run it on both machines: the first shows a code and waits, on the second you
type that code. The code counts for one introduction and three tries. Each machine then trusts the other's key, as
hot-backup trust does it, and tells whether the other finds the way to its port.

A directory that is a node already is only introduced. With --check nothing is set up: it waits until the running node
works together with its peer.

Exit code: 0 done, 1 the pair does not work together yet, 2 error.

Example, without questions; the second command reads the code from stdin:
  hot-backup setup --dir A --role primary --name a --listen 127.0.0.1:2001 --peer 127.0.0.1:2000 --offer
  hot-backup setup --dir B --role standby --name b --listen 127.0.0.1:2000 --peer 127.0.0.1:2001 --join
  hot-backup setup --check --dir A")]
pub(crate) struct SetupArgs {
    /// What it is at first; a takeover changes it
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// The node's name [default: what the machine is called]
    #[arg(long, value_parser = values::account_name)]
    name: Option<String>,
    /// The other machine: a name or an address, and its port [default port: 2000]
    #[arg(long, value_name = "HOST[:PORT]")]
    peer: Option<String>,
    /// Where this node listens for its peer [default: the address towards the peer, and a free port from 2000 on]
    #[arg(long, value_name = "IP[:PORT]")]
    listen: Option<String>,
    /// Where applications connect (RESP): an address or the path of a Unix socket [default: the node's own socket only]
    #[arg(long, value_name = "ADDR|PATH")]
    resp: Option<String>,
    /// How far an update must be before the client hears \"ok\" [default: local]
    #[arg(long, value_name = "LEVEL", value_parser = values::ack_parser())]
    ack_level: Option<AckLevel>,
    /// Show a code here, and wait for the other machine
    #[arg(long, conflicts_with_all = ["join", "later"])]
    offer: bool,
    /// Call the machine that shows a code; the code is asked for, or read from stdin
    #[arg(long, conflicts_with = "later")]
    join: bool,
    /// Introduce the machines later: by this command again, or by identity and trust
    #[arg(long)]
    later: bool,
    /// Only check that the running node works together with its peer
    #[arg(long, conflicts_with_all = ["offer", "join", "later", "role", "name", "peer", "listen", "resp", "ack_level"])]
    check: bool,
    /// How long to wait for the other machine
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = values::wait)]
    patience: Duration,
}

/// How the two machines get to know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Offer,
    Join,
    Later,
}

/// All that the steps need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    role: RoleArg,
    name: String,
    peer: String,
    listen: SocketAddr,
}

/// Who is asked, if anybody is.
struct Guide<'a> {
    input: &'a mut dyn BufRead,
    /// A person is there.
    asks: bool,
}

impl Guide<'_> {
    /// A line that the person types; nothing is the default.
    fn line(&mut self, question: &str, default: &str) -> Result<String, Failure> {
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{}{}: ", visible(question), visible(&shown));
        let _ = stderr.flush();
        let line = next_line(&mut self.input, ANSWER_MAX)
            .map_err(|error| Failure::io("reading the answer from stdin", &error))?;
        match line {
            Line::Whole(said) | Line::Unended(said) => {
                let said = String::from_utf8_lossy(said.trim_ascii()).into_owned();
                Ok(if said.is_empty() { default.to_owned() } else { said })
            }
            _ => Err(Failure::error(
                "setting up a node: the answers ended",
                "answer in a terminal, or give all by flags",
            )),
        }
    }

    /// What a flag says, or else a person, or else the default. `read` says what is wrong with an answer.
    fn value<T>(
        &mut self,
        (flag, given): (&str, Option<&str>),
        (question, default): (&str, &str),
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let refused = |why: String| {
            Failure::error(format!("setting up a node: --{flag}: {why}"), "see: hot-backup setup --help")
        };
        if let Some(given) = given {
            return read(given).map_err(refused);
        }
        if !self.asks {
            let missing = format!("it has to be given where nobody can be asked: {question}");
            return if default.is_empty() { Err(refused(missing)) } else { read(default).map_err(refused) };
        }
        for _ in 0..TRIES {
            match read(&self.line(question, default)?) {
                Ok(value) => return Ok(value),
                Err(why) => say(why),
            }
        }
        Err(refused("no answer that is understood".to_owned()))
    }
}

/// A host with a port, whichever of them is there.
fn with_port(text: &str, port: u16) -> Result<String, String> {
    let text = text.trim();
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port).to_string());
    let whole = bare.unwrap_or_else(|_| {
        let has_port = text.rsplit_once(':').is_some_and(|(_, end)| end.parse::<u16>().is_ok());
        if has_port { text.to_owned() } else { format!("{text}:{port}") }
    });
    if glue::is_peer_address(&whole) {
        Ok(whole)
    } else {
        Err(format!("{text:?} is no name or address of a machine"))
    }
}

fn role_of(text: &str) -> Result<RoleArg, String> {
    match text.to_ascii_lowercase().as_str() {
        "primary" | "master" | "p" => Ok(RoleArg::Primary),
        "standby" | "slave" | "s" => Ok(RoleArg::Standby),
        _ => Err("say primary or standby".to_owned()),
    }
}

/// An address of this machine, with the first free port if none is said.
fn listen_of(text: &str) -> Result<SocketAddr, String> {
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return if glue::is_free(whole) {
            Ok(whole)
        } else {
            Err(format!("{whole} is no address of this machine, or in use"))
        };
    }
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is no address of this machine"))?;
    let free = (PORT..PORT + PORTS).map(|port| SocketAddr::new(ip, port)).find(|place| glue::is_free(*place));
    free.ok_or_else(|| format!("{ip} is no address of this machine, or has no free port from {PORT} on"))
}

impl Plan {
    fn ask(guide: &mut Guide<'_>, args: &SetupArgs) -> Result<Self, Failure> {
        let role = match args.role {
            Some(role) => role,
            None => guide.value(
                ("role", None),
                ("1. Is this node the primary or the standby at first", ""),
                role_of,
            )?,
        };
        let called = glue::host_name();
        let name = guide.value(
            ("name", args.name.as_deref()),
            ("2. What is this node called", &called),
            |name| values::account_name(name),
        )?;
        let peer = guide.value(
            ("peer", args.peer.as_deref()),
            ("3. Which is the other machine (name or address, and its port if that is not 2000)", ""),
            |text| with_port(text, PORT),
        )?;
        let own = glue::address_towards(&peer).map(|ip| ip.to_string()).unwrap_or_default();
        let listen = guide.value(
            ("listen", args.listen.as_deref()),
            ("4. At which address of this machine does the node listen for its peer", &own),
            listen_of,
        )?;
        Ok(Self { role, name, peer, listen })
    }
}

/// Runs `setup`.
pub(crate) fn run(context: &mut Context, args: &SetupArgs) -> Done {
    if args.check {
        return check(context, args.patience);
    }
    let stdin = std::io::stdin();
    let asks = stdin.is_terminal() && std::io::stderr().is_terminal();
    let mut input = stdin.lock();
    let mut guide = Guide { input: &mut input, asks };
    let dir = match &context.dir {
        Some(dir) => dir.clone(),
        None => guide
            .value(("dir", None), ("The directory of the node", DIRECTORY), |text| Ok(PathBuf::from(text)))?,
    };
    if glue::is_node(&dir) {
        say(format_args!("{} is a node already: it is only introduced", dir.display()));
    } else {
        make(&dir, &mut guide, args)?;
    }
    let introduced = introduce(context, &dir, &mut guide, args)?;
    finish(context, &dir, introduced.as_ref())
}

/// Steps 1 to 6: questions, what the machine offers, directory, keys and config.
fn make(dir: &Path, guide: &mut Guide<'_>, args: &SetupArgs) -> Result<(), Failure> {
    let plan = Plan::ask(guide, args)?;
    let place = dir.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("."));
    say(format_args!("5. what this machine offers (hot-backup doctor tells more)"));
    let findings = glue::probe(place);
    for finding in findings.iter().filter(|finding| matches!(finding.level, Level::Warn | Level::Bad)) {
        say(format_args!("{}: {}; {}", finding.name, finding.found, finding.advice));
    }
    if let Some(bad) = findings.iter().find(|finding| finding.level == Level::Bad) {
        return Err(Failure::no(
            format!("setting up a node: {} does not work here: {}", bad.name, bad.found),
            bad.advice.clone(),
        ));
    }
    let role = if plan.role == RoleArg::Primary { "primary" } else { "standby" };
    let mut options = InitOptions::new(dir, &plan.name, role, &plan.listen.to_string(), &plan.peer)
        .with("ack_level", args.ack_level.map(AckLevel::name));
    options.resp = args.resp.iter().cloned().collect();
    glue::init(&options)?;
    glue::loose_parents(dir).iter().for_each(say);
    say(format_args!(
        "6. made node {} in {}, {role}, listening at {}",
        plan.name,
        dir.display(),
        plan.listen
    ));
    glue::doubts(&plan.peer, &plan.listen.to_string()).iter().for_each(say);
    Ok(())
}

fn way(guide: &mut Guide<'_>, args: &SetupArgs) -> Result<Way, Failure> {
    match args {
        SetupArgs { offer: true, .. } => Ok(Way::Offer),
        SetupArgs { join: true, .. } => Ok(Way::Join),
        SetupArgs { later: true, .. } => Ok(Way::Later),
        _ if !guide.asks => Err(Failure::error(
            "setting up a node: nobody can be asked how the machines are introduced",
            "say --offer on the first machine, --join on the second, or --later",
        )),
        _ => guide.value(
            ("offer", None),
            ("7. Does the other machine show a code already (yes/no, or later)", "no"),
            |text| match text {
                "no" | "n" => Ok(Way::Offer),
                "yes" | "y" => Ok(Way::Join),
                "later" | "l" => Ok(Way::Later),
                _ => Err("say yes, no or later".to_owned()),
            },
        ),
    }
}

/// Step 7: the two machines get to know each other.
fn introduce(
    context: &mut Context,
    dir: &Path,
    guide: &mut Guide<'_>,
    args: &SetupArgs,
) -> Result<Option<Introduced>, Failure> {
    let introduced = match way(guide, args)? {
        Way::Later => return Ok(None),
        Way::Offer => {
            let code = glue::new_code()?;
            if context.json {
                context.out.json_line(&serde_json::json!({ "code": code.shown() }))?;
            } else {
                context.out.line(format_args!("code: {}", code.shown()))?;
            }
            context.out.flush()?;
            say("type this code on the other machine: hot-backup setup");
            glue::offer(dir, &code, args.patience, |text| say(format_args!("not let in: {text}")))?
        }
        Way::Join => {
            let read = |text: &str| {
                Code::parse(text).ok_or_else(|| "a code has eight digits, as 1234-5678".to_owned())
            };
            let code = match guide.asks {
                true => guide.value(("join", None), ("The code that the other machine shows", ""), read)?,
                false => read(&guide.line("code", "")?).map_err(|why| {
                    Failure::error(format!("setting up a node: reading the code from stdin: {why}"), "")
                })?,
            };
            say("calling the other machine");
            glue::join(dir, &code, args.patience)?
        }
    };
    let outcome = glue::trust(dir, &introduced.peer.to_string(), false)?;
    say(format_args!("{} is trusted as the peer", outcome.peer.name));
    Ok(Some(introduced))
}

fn finish(context: &mut Context, dir: &Path, introduced: Option<&Introduced>) -> Done {
    let peer = introduced.map(|introduced| introduced.peer.name.clone());
    let way_back = introduced.map(|introduced| introduced.way_back);
    if context.json {
        let view = serde_json::json!({ "dir": dir, "peer": peer, "way_back": way_back });
        context.out.json_line(&view)?;
    }
    match way_back {
        Some(true) => say("each machine reaches the other at its port"),
        Some(false) => say(
            "the first machine does not reach the second at its port, as it has to after a takeover: look at --listen, \
             --peer and the firewalls between, then see hot-backup setup --check",
        ),
        None => {
            say("introduce the nodes before they serve: hot-backup setup --offer on one, --join on the other")
        }
    }
    let start = match dir.to_str().and_then(|dir| dir.strip_prefix(DIRECTORY)) {
        Some("") => "systemctl enable --now hot-backup".to_owned(),
        Some(name) if name.starts_with('-') => format!("systemctl enable --now hot-backup@{}", &name[1..]),
        _ => format!("hot-backup serve --dir {}", dir.display()),
    };
    say(format_args!(
        "next: start the node on both machines ({start}), then: hot-backup setup --check --dir {}",
        dir.display()
    ));
    Ok(Answer::of(way_back != Some(false)))
}

/// Whether both nodes are at work and know it of each other; else what is lacking.
fn lacking(status: &Status) -> Option<String> {
    if !matches!(status.state.as_str(), "serving" | "standby") {
        let next = if status.next.is_empty() { String::new() } else { format!("; {}", status.next) };
        return Some(format!("it is {}: {}{next}", status.state, status.reason));
    }
    if !status.peer.connected {
        let why = match status.link.last_error.as_str() {
            "" => "no word of it yet",
            why => why,
        };
        return Some(format!("its peer is not connected: {why}"));
    }
    status
        .peer
        .incomplete
        .then(|| "its peer is given a copy of everything, which is not whole yet".to_owned())
}

/// `setup --check`.
fn check(context: &mut Context, patience: Duration) -> Done {
    let until = Instant::now() + patience;
    loop {
        let asked: Result<Box<Status>, Failure> = ask::ask_for(context, &AdminRequest::Status);
        let lack = match asked {
            Ok(status) => match lacking(&status) {
                None => return works(context, &status),
                Some(lack) => lack,
            },
            Err(Failure::No { message, .. } | Failure::Error { message, .. }) => message,
            Err(gone) => return Err(gone),
        };
        if Instant::now() >= until {
            return Err(Failure::no(
                format!("checking the pair: {lack}"),
                "start both nodes; hot-backup status on each says what it waits for",
            ));
        }
        std::thread::sleep(Duration::from_millis(COMMAND_LOOK_MS));
    }
}

fn works(context: &mut Context, status: &Status) -> Done {
    let (name, role, peer) = (visible(&status.name), visible(&status.role), visible(&status.peer.name));
    if context.json {
        context.out.json(&serde_json::json!({ "works": true, "name": name, "role": role, "peer": peer }))?;
    } else {
        let level = &status.ack_level;
        context.out.line(format_args!(
            "the pair works: {name} is {role}, {peer} follows; updates are answered at level {level}"
        ))?;
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::{LinkView, PeerView};

    fn nothing_said() -> SetupArgs {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: SetupArgs,
        }
        Line::parse_from(["setup"]).args
    }

    #[test]
    fn what_no_flag_says_is_asked_until_it_is_understood() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = held.local_addr().unwrap();
        drop(held);
        let answers = format!("perhaps\nstandby\nb\nnot a host!\n127.0.0.1\n10.9.8.7:1\n{free}\n");
        let mut input = answers.as_bytes();
        let plan = Plan::ask(&mut Guide { input: &mut input, asks: true }, &nothing_said()).unwrap();
        let expected = Plan {
            role: RoleArg::Standby,
            name: "b".to_owned(),
            peer: "127.0.0.1:2000".to_owned(),
            listen: free,
        };
        assert_eq!(plan, expected);
        let answers = "maybe\n".repeat(9);
        let mut input = answers.as_bytes();
        let failure = Plan::ask(&mut Guide { input: &mut input, asks: true }, &nothing_said()).unwrap_err();
        assert!(failure.to_string().contains("--role"), "{failure}");
    }

    #[test]
    fn where_nobody_can_be_asked_a_missing_flag_is_named() {
        let mut args = nothing_said();
        let mut none = &b""[..];
        let failure = Plan::ask(&mut Guide { input: &mut none, asks: false }, &args).unwrap_err();
        assert!(failure.to_string().starts_with("setting up a node: --role: "), "{failure}");
        args.role = Some(RoleArg::Primary);
        args.name = Some("a".to_owned());
        let failure = Plan::ask(&mut Guide { input: &mut none, asks: false }, &args).unwrap_err();
        assert!(failure.to_string().starts_with("setting up a node: --peer: "), "{failure}");
        args.peer = Some("127.0.0.1:9".to_owned());
        let plan = Plan::ask(&mut Guide { input: &mut none, asks: false }, &args).unwrap();
        assert_eq!((plan.listen.ip(), plan.listen.port() >= PORT), ("127.0.0.1".parse().unwrap(), true));
    }

    #[test]
    fn a_machine_is_named_with_or_without_its_port() {
        for (text, whole) in [
            ("10.0.0.2", "10.0.0.2:2000"),
            ("10.0.0.2:77", "10.0.0.2:77"),
            ("2001:db8::7", "[2001:db8::7]:2000"),
            ("[2001:db8::7]:9", "[2001:db8::7]:9"),
            ("b.example.org", "b.example.org:2000"),
            ("b.example.org:1", "b.example.org:1"),
        ] {
            assert_eq!(with_port(text, PORT).as_deref(), Ok(whole));
        }
        assert!(with_port("", PORT).is_err() && with_port("a b", PORT).is_err());
    }

    #[test]
    fn a_check_says_what_is_lacking() {
        let mut status =
            Status { state: "asking-peer".to_owned(), reason: "it waits".to_owned(), ..Status::default() };
        assert_eq!(lacking(&status).as_deref(), Some("it is asking-peer: it waits"));
        status.state = "serving".to_owned();
        status.link = LinkView { last_error: "refused".to_owned(), ..LinkView::default() };
        assert_eq!(lacking(&status).as_deref(), Some("its peer is not connected: refused"));
        status.peer = PeerView { connected: true, incomplete: true, ..PeerView::default() };
        assert!(lacking(&status).unwrap().contains("not whole"));
        status.peer.incomplete = false;
        assert_eq!(lacking(&status), None);
    }
}
