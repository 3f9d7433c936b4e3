//! What the command line asks of the node's parts: the only file here that names them.

use super::failure::Failure;
use super::values::IoArg;
use super::wait::Look;
use crate::base::limits::{ANSWER_MAX, HOST_FILE_MAX};
use crate::base::{FileId, Seq};
use crate::client::{NbdClient, RespClient};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest};
use crate::format::batch::Batch;
use crate::io::Access;
pub(crate) use crate::io::{Finding, Level, probe, put_in_place};
use crate::measure::link::LinkKeys;
pub(crate) use crate::node::against::{Against, How, Thing};
use crate::node::config::{Config, DoorAddress, IoChoice};
pub(crate) use crate::node::config_file::parse_size;
use crate::node::config_file::{Key, Kind};
use crate::node::diverged::{self, DivergedSet};
use crate::node::door_tls::{self, Credentials};
pub(crate) use crate::node::door_tls::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use crate::node::identity::{Fingerprint, Identity, IdentityError};
use crate::node::layout::{Layout, NBD_SOCKET, RESP_SOCKET};
use crate::node::licence::{self, Examined, InstallError, Paper};
pub(crate) use crate::node::pairing::{Code, Introduced};
pub(crate) use crate::node::past::{Found as Past, PastSource, Until};
use crate::node::queue::{DiskQueue, QueueError, Walked};
pub(crate) use crate::node::restore::{Restored, Sources, Unpacked};
use crate::node::room::Room;
use crate::node::serve::{self, ServeOptions};
use crate::node::set::{self, SetError};
pub(crate) use crate::node::set::{
    Contents, Damage, Pack, SaveOrder, SaveTold, Saved, Source, Target, Verified, alone_files,
};
pub(crate) use crate::node::setup::{InitOptions, TrustOutcome};
use crate::node::spool;
pub(crate) use crate::node::spool::{History, HistoryError, PartPlace, PartStore, SpoolDir};
use crate::node::tape::{self, CatalogueFile, TapeError};
pub(crate) use crate::node::tape::{
    Alarm, Allowed, Catalogue, Checked, Copied, DriveView, Loss, Move, Place, ReelSet, Scanned, TapeOptions,
    TapeOrder, TapeSource, Teller,
};
use crate::node::{admin, audit, pairing, peer_address, restore, saves, setup};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// How long the node may take for one answer: a full queue or an absent peer may hold it back.
const ITEM_PATIENCE: Duration = Duration::from_secs(120);

/// Makes a node's directory, keys and config.
pub(crate) fn init(options: &InitOptions) -> Result<(), Failure> {
    setup::init(options).map(|_| ()).map_err(|e| setup_failure(&e))
}

/// What the value of a config key says of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyPlace {
    /// It is a path.
    Path,
    /// It may be the path of a socket.
    Socket,
    /// Nothing, or there is no such key.
    Neither,
}

/// Of the key of that name.
pub(crate) fn key_place(name: &str) -> KeyPlace {
    match Key::named(name).map(|key| key.kind) {
        Some(Kind::Path(_)) => KeyPlace::Path,
        Some(Kind::Listen(_)) => KeyPlace::Socket,
        _ => KeyPlace::Neither,
    }
}

/// What should be known of the room that the node in `dir` has for its journal; none if `dir` is no node's.
pub(crate) fn journal_room(dir: &Path) -> Option<Finding> {
    let quota = Config::load(dir).ok()?.engine.quota_bytes;
    let (level, found, advice) = match Room::of(&Layout::new(dir), quota) {
        Ok(room) => match room.warning() {
            None => (Level::Ok, format!("{} MiB of quota have room", quota >> 20), String::new()),
            Some(advice) => {
                let found = format!("{} MiB of quota, {} MiB free", quota >> 20, room.free >> 20);
                (Level::Warn, found, advice)
            }
        },
        Err(error) => (Level::Bad, error.to_string(), "the directory cannot be used".to_owned()),
    };
    Some(Finding { name: "journal quota".to_owned(), level, found, advice })
}

/// What store and volumes of the node in `dir` take of its disk (bytes); 0 if that cannot be read.
pub(crate) fn stored_bytes(dir: &Path) -> u64 {
    Room::of(&Layout::new(dir), 0).map_or(0, |room| room.store)
}

/// The line by which the peer will know this node.
pub(crate) fn identity(dir: &Path) -> Result<String, Failure> {
    setup::identity(dir).map(|identity| identity.to_string()).map_err(|e| setup_failure(&e))
}

/// Remembers the peer's line; gives back the peer's name.
pub(crate) fn trust(dir: &Path, identity: &str, in_place: bool) -> Result<TrustOutcome, Failure> {
    let trust = if in_place { setup::trust_in_place } else { setup::trust };
    trust(dir, identity).map_err(|e| setup_failure(&e))
}

/// What a client of volumes needs to be let in.
pub(crate) fn nbd_credentials(dir: &Path, name: &str) -> Result<Credentials, Failure> {
    door_tls::credentials(&Layout::new(dir), name).map_err(|e| key_failure(dir, &e))
}

/// What vouches for a node, for clients of volumes.
pub(crate) fn nbd_authority(dir: &Path) -> Result<String, Failure> {
    door_tls::authority_pem(&Layout::new(dir)).map_err(|e| key_failure(dir, &e))
}

fn key_failure(dir: &Path, error: &IdentityError) -> Failure {
    Failure::error(
        format!("using the key of {}: {error}", dir.display()),
        "is --dir the directory of a node?",
    )
}

fn setup_failure(error: &setup::SetupError) -> Failure {
    Failure::error(error.to_string(), error.next())
}

/// Runs the node until it is told to stop.
pub(crate) fn serve(dir: &Path, io: Option<IoArg>) -> Result<(), Failure> {
    let io = io.map(|io| match io {
        IoArg::Auto => IoChoice::Auto,
        IoArg::Uring => IoChoice::Uring,
        IoArg::Epoll => IoChoice::Epoll,
    });
    serve::serve(dir, ServeOptions { io })
        .map_err(|error| Failure::error(format!("serving {}: {error}", dir.display()), error.next()))
}

/// Checks that nobody but its owner can answer in the place of the node in `dir`.
fn check_dir(dir: &Path) -> Result<(), Failure> {
    crate::io::check_dir(dir, Access::Read).map_err(|distrust| {
        let message = format!("connecting to the node in {}: {distrust}", dir.display());
        Failure::error(message, "a node's directory belongs to its user, and nobody else may write to it")
    })
}

/// Connects to the node in `dir` by its own socket for items, however long that path is.
pub(crate) fn items_of(dir: &Path) -> Result<RespClient, Failure> {
    check_dir(dir)?;
    admin::connect_in_dir(dir, RESP_SOCKET, ITEM_PATIENCE)
        .and_then(|stream| RespClient::unix(&stream, ITEM_PATIENCE))
        .map_err(|error| not_connected(dir, error))
}

/// Opens a volume of the node in `dir` by its own socket for volumes.
pub(crate) fn blocks_of(dir: &Path, export: &str) -> Result<NbdClient, Failure> {
    check_dir(dir)?;
    admin::connect_in_dir(dir, NBD_SOCKET, ITEM_PATIENCE)
        .and_then(|stream| NbdClient::unix(stream, export, ITEM_PATIENCE))
        .map_err(|error| not_connected(dir, error))
}

/// A connection to a door for items, at `host:port`.
pub(crate) fn items_at(place: &str) -> Result<RespClient, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::error(
            format!("connecting to {place}: {error}"),
            "is it where Redis clients reach the primary?",
        )
    };
    let found = std::net::ToSocketAddrs::to_socket_addrs(place).map_err(|error| failed(&error))?;
    let mut last = failed(&"it has no address");
    for address in found {
        match RespClient::tcp(address, ITEM_PATIENCE) {
            Ok(client) => return Ok(client),
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

/// Where clients reach a node's door for items over TCP, and the password that lets them in.
pub(crate) fn resp_door(dir: &Path) -> Result<(SocketAddr, Option<String>), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        let next = "name the directory of a node whose config has `resp` with an address, or say --temporary";
        Failure::error(format!("looking for the door of {}: {why}", dir.display()), next)
    };
    let config = Config::load(dir).map_err(|error| failed(&error))?;
    let door =
        config.resp.iter().find_map(DoorAddress::tcp).ok_or_else(|| failed(&"it has none over TCP"))?;
    Ok((door, config.resp_password.map(|secret| secret.0)))
}

/// What the node in `dir` and its peer prove to each other.
pub(crate) fn link_keys(dir: &Path) -> Result<LinkKeys, Failure> {
    LinkKeys::of_node(&Layout::new(dir)).map_err(|why| {
        Failure::error(
            format!("reading the keys of {}: {why}", dir.display()),
            "is --dir the directory of a node?",
        )
    })
}

/// The password in a file, without the end of its line.
pub(crate) fn password_in(path: &Path) -> Result<String, Failure> {
    let read = std::fs::File::open(path).and_then(|file| crate::base::text_at_most(file, ANSWER_MAX));
    read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|error| Failure::io(format!("reading the password in {}", path.display()), &error))
}

/// The sets of updates that a node had and the pair never kept.
pub(crate) fn diverged_sets(dir: &Path) -> Result<Vec<DivergedSet>, Failure> {
    check_dir(dir)?;
    let layout = Layout::new(dir);
    diverged::list(&layout)
        .map_err(|error| Failure::io(format!("listing {}", layout.diverged().display()), &error))
}

/// One of them, and what the primary has in its place if that is known.
pub(crate) fn diverged_set(dir: &Path, name: &str) -> Result<(File, Option<File>), Failure> {
    diverged::open(&Layout::new(dir), name).map_err(|error| Failure::io(format!("opening {name}"), &error))
}

/// Removes one of them.
pub(crate) fn forget_diverged(dir: &Path, name: &str) -> Result<(), Failure> {
    diverged::forget(&Layout::new(dir), name).map_err(|error| Failure::io(format!("removing {name}"), &error))
}

/// The reels of a spool, of the node in `dir`.
pub(crate) fn spool_reels(dir: &Path, place: &str) -> Result<PartStore, Failure> {
    let reels = spool::reels_at(dir, place).map_err(|why| {
        Failure::error(format!("looking for the spool on {place}: {why}"), "see: hot-backup tape --help")
    })?;
    Ok(PartStore { reels: Some(reels), ..PartStore::default() })
}

/// Whether another machine keeps the spool of the node in `dir`, asked before it is told to use it.
pub(crate) fn check_far(dir: &Path, place: &str) -> Result<(), Failure> {
    let far = spool_far(dir, place)?;
    far.list().map(drop).map_err(|error| {
        let next = crate::node::tape_socket::next_of(&error);
        Failure::error(format!("starting a spool: {error}"), next)
    })
}

/// The spool of the node in `dir` on another machine.
pub(crate) fn spool_far(dir: &Path, place: &str) -> Result<PartStore, Failure> {
    let far = spool::far_at(dir, place).map_err(|why| {
        Failure::error(
            format!("looking for the spool on {place}: {why}"),
            "see: hot-backup tape-socket --help",
        )
    })?;
    Ok(PartStore { far: Some(far), ..PartStore::default() })
}

/// The spool of the node in `dir`.
pub(crate) fn spool_of(dir: &Path) -> Result<PartStore, Failure> {
    let next = "name it with --at, or set `spool` in the config";
    let found =
        spool::of_dir(dir).map_err(|why| Failure::error(format!("looking for the spool: {why}"), next))?;
    found.ok_or_else(|| Failure::no("looking for the spool: this node has none", next))
}

/// Refuses updates that are of the history of the node in `dir` already.
pub(crate) fn refuse_own(dir: &Path, history: &History) -> Result<(), Failure> {
    let own = spool::own_part(dir, &history.parts);
    match own.map_err(|why| Failure::error(format!("reading the node's history: {why}"), "see --dir"))? {
        None => Ok(()),
        Some(part) => Err(Failure::no(
            format!(
                "replaying: entries {} to {} are of this node's own history, which it has carried out: items would be set \
                 back to what they were then",
                part.first(),
                part.end.seq
            ),
            "replay what is behind a restored save; to set items back all the same say --again",
        )),
    }
}

/// What others could do to a node's directory by way of those above it.
pub(crate) fn loose_parents(dir: &Path) -> Vec<String> {
    crate::io::loose_parents(dir)
}

/// Reads the replicated journal on the disk from an entry on, beside a node that may be at work.
pub(crate) fn walk_queue(dir: &Path, from: Seq, take: impl FnMut(&Batch) -> bool) -> Result<Walked, Failure> {
    let queue = DiskQueue::open(dir).map_err(|error| queue_failure(&error))?;
    queue.walk(from, take).map_err(|error| queue_failure(&error))
}

/// What a start would say of that journal.
pub(crate) fn recover_queue(dir: &Path) -> Result<(), Failure> {
    DiskQueue::open(dir).and_then(|queue| queue.recover()).map_err(|error| queue_failure(&error))
}

fn queue_failure(error: &QueueError) -> Failure {
    let next = error.next();
    if error.is_damage() {
        Failure::no(error.to_string(), next)
    } else {
        Failure::error(error.to_string(), next)
    }
}

/// The newest lines of who changed what, newest last.
pub(crate) fn audited(dir: &Path, most: usize) -> Result<Vec<audit::Audited>, Failure> {
    audit::newest(&Layout::new(dir), most).map_err(|error| {
        Failure::error(format!("reading who changed what: {error}"), "run this as the node's own user")
    })
}

/// Asks a running node.
pub(crate) fn call(dir: &Path, request: &AdminRequest, timeout: Duration) -> Result<AdminReply, Failure> {
    admin::call(dir, request, timeout).map_err(|e| Failure::error(e.to_string(), e.next()))
}

/// How far the node in `dir` has come.
pub(crate) fn look(dir: &Path, timeout: Duration) -> Look {
    match admin::call(dir, &AdminRequest::Status, timeout) {
        Ok(AdminReply::Ok { value: AdminAnswer::Status(status) }) => Look::Told(status),
        Err(error) if error.may_pass() => Look::Absent,
        _ => Look::Hopeless,
    }
}

/// What is odd about the addresses of a new node, and need not be wrong.
pub(crate) fn doubts(peer: &str, listen: &str) -> Vec<String> {
    peer_address::doubts(peer, listen)
}

/// Whether `dir` is a node's.
pub(crate) fn is_node(dir: &Path) -> bool {
    Layout::new(dir).control().exists()
}

/// Whether a peer can be named so.
pub(crate) fn is_peer_address(text: &str) -> bool {
    text.parse::<peer_address::PeerAddress>().is_ok()
}

/// Whether this machine can listen there now.
pub(crate) fn is_free(place: SocketAddr) -> bool {
    TcpListener::bind(place).is_ok()
}

/// The address from which this machine would call a peer.
pub(crate) fn address_towards(peer: &str) -> Option<IpAddr> {
    let peer: peer_address::PeerAddress = peer.parse().ok()?;
    peer.look_up().ok()?.into_iter().find_map(|address| {
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        // Nothing is sent by this.
        socket.connect(address).ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    })
}

/// What this machine is called, as far as a node may be called so.
pub(crate) fn host_name() -> String {
    let read = File::open("/proc/sys/kernel/hostname")
        .and_then(|file| crate::base::text_at_most(file, HOST_FILE_MAX));
    let kept = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    read.unwrap_or_default()
        .trim()
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(kept)
        .take(60)
        .collect()
}

/// A code by which two machines are introduced.
pub(crate) fn new_code() -> Result<Code, Failure> {
    Code::new().map_err(|error| Failure::error(error.to_string(), ""))
}

/// Waits for the other machine, which knows the code.
pub(crate) fn offer(
    dir: &Path,
    code: &Code,
    patience: Duration,
    told: impl FnMut(String),
) -> Result<Introduced, Failure> {
    let (config, own) = introducing(dir)?;
    pairing::offer((config.link_listen, &config.peer), &own, code, patience, told)
        .map_err(|error| not_introduced(&error))
}

/// Calls the other machine, which shows the code.
pub(crate) fn join(dir: &Path, code: &Code, patience: Duration) -> Result<Introduced, Failure> {
    let (config, own) = introducing(dir)?;
    pairing::join((config.link_listen, &config.peer), &own, code, patience)
        .map_err(|error| not_introduced(&error))
}

fn introducing(dir: &Path) -> Result<(Config, Identity), Failure> {
    let config = Config::load(dir).map_err(|errors| Failure::error(errors.to_string(), errors.next()))?;
    let own = setup::identity(dir).map_err(|error| setup_failure(&error))?;
    Ok((config, own))
}

fn not_introduced(error: &pairing::PairingError) -> Failure {
    Failure::no(error.to_string(), error.next())
}

/// What is known of a licence.
#[derive(Debug, serde::Serialize)]
pub(crate) struct LicenceView {
    /// Whether the config asks for one.
    pub(crate) asked: bool,
    /// Whether it holds, or none is asked for.
    pub(crate) holds: bool,
    /// In words.
    pub(crate) text: String,
    /// What it grants, if the distributor signed it.
    #[serde(flatten)]
    pub(crate) granted: Option<LicenceGranted>,
    /// The day that the clock should have reached, if it was turned back.
    pub(crate) clock_back: Option<String>,
}

/// What a licence grants.
#[derive(Debug, serde::Serialize)]
pub(crate) struct LicenceGranted {
    /// To whom.
    pub(crate) customer: String,
    /// The nodes' fingerprints.
    pub(crate) nodes: [String; 2],
    /// When it was signed.
    pub(crate) issued: String,
    /// The last day on which it holds.
    pub(crate) expires: String,
}

impl LicenceView {
    fn of(examined: Examined) -> Self {
        let Examined { paper, tested } = examined;
        let granted = match paper {
            Paper::Signed(licence) => Some(LicenceGranted {
                customer: licence.customer,
                nodes: licence.nodes.map(|node| Fingerprint(node).to_string()),
                issued: licence.issued.to_string(),
                expires: licence.expires.to_string(),
            }),
            _ => None,
        };
        let (holds, clock_back) = (tested.holds(), tested.clock_back.map(|day| day.to_string()));
        Self { asked: true, holds, text: tested.text, granted, clock_back }
    }
}

/// The licence of the node in `dir`, or what the one in `text` would be there.
pub(crate) fn licence(dir: &Path, text: Option<&str>) -> Result<LicenceView, Failure> {
    let found = licence::examine(dir, text).map_err(|error| setup_failure(&error))?;
    let text = "no licence is asked for: the config names no licence_key".to_owned();
    let nothing = LicenceView { asked: false, holds: true, text, granted: None, clock_back: None };
    Ok(found.map_or(nothing, LicenceView::of))
}

/// Installs a licence that holds.
pub(crate) fn install_licence(dir: &Path, text: &str) -> Result<LicenceView, Failure> {
    licence::install(dir, text).map(LicenceView::of).map_err(|error| match error {
        InstallError::Setup(error) => setup_failure(&error),
        InstallError::NotAsked => Failure::no(error.to_string(), "set licence_key in config.toml first, if you have to"),
        error => Failure::no(
            error.to_string(),
            "ask the distributor for a licence of the two lines that `hot-backup identity` prints on both nodes",
        ),
    })
}

/// Saves the running node in `dir`.
pub(crate) fn save(
    dir: &Path,
    order: &SaveOrder,
    patience: Duration,
    told: impl FnMut(SaveTold),
) -> Result<Saved, Failure> {
    let saved = set::save(dir, order, patience, told).map_err(|error| match error {
        set::SaveError::Refused { message, next } => Failure::no(message, next),
        set::SaveError::Set(error) => set_failure(&error),
        error => Failure::error(error.to_string(), error.next()),
    })?;
    if let Err(error) = note_save(dir, order, &saved) {
        let text = "the save is not noted in the node's directory, so spool_keep = \"oldest-save\" does not know of it";
        super::out::say(format!("{text}: {}", crate::base::plainly(&error)));
    }
    Ok(saved)
}

/// Lets the node know of a save of everything in files, as long as those are there.
fn note_save(dir: &Path, order: &SaveOrder, saved: &Saved) -> std::io::Result<()> {
    let path = match &order.target {
        Target::File(path) | Target::Dir(path, _) if order.account.is_none() => path.canonicalize()?,
        _ => return Ok(()),
    };
    let (set, pair) = (saved.set.to_string(), saved.pair.to_string());
    let (seq, wall_ms) = (saved.trailer.end.seq.0, saved.trailer.wall_ms);
    saves::note(dir, saves::KeptSave { set, pair, seq, wall_ms, path })
}

/// What a set says of itself.
pub(crate) fn contents(source: &Source) -> Result<Contents, Failure> {
    set::contents(source).map_err(|error| set_failure(&error))
}

/// Reads all of a set, or of several that hold one state together: the end is that of the last, damages are those of all.
pub(crate) fn verify(sources: Vec<Source>, mut progress: impl FnMut(u64)) -> Result<Verified, Failure> {
    if sources.len() > 1 {
        let found = sources.iter().map(contents).collect::<Result<Vec<_>, _>>()?;
        let named: Vec<_> = sources.iter().map(Source::name).zip(&found).collect();
        set::check_chain(&named).map_err(|error| set_failure(&error))?;
    }
    let mut before = 0;
    let mut last = 0;
    let all = set::verify_chain(sources, |read| {
        // The next set begins anew.
        if read < last {
            before += last;
        }
        last = read;
        progress(before + read);
    });
    let all = all.map_err(|error| set_failure(&error))?;
    let whole = all.iter().all(|found| found.trailer.is_some());
    Ok(all.into_iter().fold(Verified::default(), |sum, next| Verified {
        base: next.base,
        trailer: next.trailer.filter(|_| whole),
        damages: [sum.damages, next.damages].concat(),
        bytes: sum.bytes + next.bytes,
    }))
}

/// What a directory has of what came after a save, if it is a spool's or a node's.
pub(crate) fn history(dir: &Path) -> Option<PastSource> {
    PastSource::of(dir)
}

/// Restores a set into the node in `dir`, which is not running; only says whether it could if `dry_run`.
pub(crate) fn restore_node(
    dir: &Path,
    sources: &Sources,
    dry_run: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Restored>, Failure> {
    let result = match dry_run {
        true => restore::check(dir, sources).map(|()| None),
        false => restore::restore(dir, sources, progress).map(Some),
    };
    result.map_err(|error| restore_failure(&error))
}

/// Lays a set out below `dir`.
pub(crate) fn unpack(
    sources: &Sources,
    dir: &Path,
    only: Option<FileId>,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, Failure> {
    restore::unpack(sources, dir, only, progress).map_err(|error| restore_failure(&error))
}

/// Holds what was laid out against the running node in `dir`.
pub(crate) fn against(
    dir: &Path,
    save: &mut Unpacked,
    what: (&str, Option<u64>),
    history: &[PastSource],
    patience: Duration,
) -> Result<Against, Failure> {
    use crate::node::against::{AgainstError, against};
    against(dir, save, what, history, patience).map_err(|error| match error {
        AgainstError::Save(set::SaveError::Refused { message, next }) => Failure::no(message, next),
        error => Failure::error(error.to_string(), error.next()),
    })
}

pub(super) fn restore_failure(error: &restore::RestoreError) -> Failure {
    match error {
        restore::RestoreError::Set(error) => set_failure(error),
        restore::RestoreError::TooEarly { .. } => Failure::no(error.to_string(), error.next()),
        restore::RestoreError::Past(past) if past.is_no() => Failure::no(error.to_string(), error.next()),
        error => Failure::error(error.to_string(), error.next()),
    }
}

/// A set that is damaged or no save is a no; what cannot be read at all is an error.
pub(super) fn set_failure(error: &SetError) -> Failure {
    match error {
        SetError::Damaged { .. } | SetError::NoTrailer { .. } | SetError::Chain { .. } => {
            Failure::no(error.to_string(), error.next())
        }
        _ => Failure::error(error.to_string(), error.next()),
    }
}

pub(crate) fn tape_failure(error: &TapeError) -> Failure {
    Failure::error(error.to_string(), error.next())
}

/// The key in a file that only its owner may read.
pub(crate) fn tape_key(path: &Path) -> Result<tape::Key, Failure> {
    tape::read_key(path).map_err(|error| tape_failure(&error))
}

/// What is in a drive.
pub(crate) fn tape_status(options: &TapeOptions) -> Result<Vec<DriveView>, Failure> {
    tape::status(options).map_err(|error| tape_failure(&error))
}

/// Labels a reel; what was on it before.
pub(crate) fn tape_label(options: &TapeOptions, reel: u32, name: &str) -> Result<String, Failure> {
    tape::label(options, reel, name).map_err(|error| tape_failure(&error))
}

/// What the catalogue says.
pub(crate) fn tape_catalogue(options: &TapeOptions) -> Result<Catalogue, Failure> {
    CatalogueFile::load(options).map(|file| file.held).map_err(|error| tape_failure(&error))
}

/// Reads all reels.
pub(crate) fn tape_scan(options: &TapeOptions) -> Result<Scanned, Failure> {
    tape::scan(options).map_err(|error| tape_failure(&error))
}

/// Copies reels.
pub(crate) fn tape_copy(from: &TapeOptions, to: &TapeOptions) -> Result<Copied, Failure> {
    tape::copy(from, to).map_err(|error| tape_failure(&error))
}

/// Moves a drive.
pub(crate) fn tape_move(options: &TapeOptions, reel: u32, to: Move) -> Result<Option<u64>, Failure> {
    tape::move_by(options, reel, to).map_err(|error| tape_failure(&error))
}

/// Answers who waits for a reel; false if nobody does.
pub(crate) fn tape_answer(options: &TapeOptions, give_up: bool) -> Result<bool, Failure> {
    tape::answer(options, give_up).map_err(|error| tape_failure(&error))
}

/// Tries out a drive.
pub(crate) fn tape_check(options: &TapeOptions, sizes: &[u32], bytes: u64) -> Result<Vec<Checked>, Failure> {
    tape::check(options, sizes, bytes).map_err(|error| tape_failure(&error))
}

/// A failed connection to the socket of the node in `dir`.
fn not_connected(dir: &Path, error: std::io::Error) -> Failure {
    let error = admin::AdminCallError::of_connect(dir, error, Duration::ZERO);
    Failure::error(error.to_string(), error.next())
}
