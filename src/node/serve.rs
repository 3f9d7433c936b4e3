//! From a node's directory to a running daemon, and back to an orderly end.

use super::admin::{self, Ucred};
use super::admin_router::AdminRouter;
use super::apply::Apply;
use super::audit::Audit;
use super::compares::CompareJob;
use super::config::{Config, IoChoice};
use super::config_file::ConfigErrors;
use super::core::{CoreParts, CoreThread, Ending, Patience, Workers};
use super::disk::FileJob;
use super::http::HttpServer;
use super::identity::Peers;
use super::inbox::{Inbox, Message};
use super::incidents::Notes;
use super::kept_stats::KeptStats;
use super::layout::Layout;
use super::licence::Tester;
use super::listen::{ListenError, Listeners};
use super::manager::Manager;
use super::notify::{Desk, disk_space};
use super::owner::check_owner;
use super::peer_address::Resolver;
use super::restore;
use super::retired::Retired;
use super::room::Room;
use super::save::SaveSource;
use super::scrub::Scrubber;
use super::segment_source::{self, DiskSegments};
use super::setup::{self, SetupError};
use super::spool::SpoolDesk;
use super::starting::{Stage, Starting};
use super::store_reads::{StoreFetch, StoreReaders};
use super::tls::LinkIdentity;
use super::views::ViewDesk;
use super::volumes::{Readers, VolumeReads, read_slowly};
use super::{apply, compares, copies, disk, log, manager, saves, signals};
use crate::base::limits::{
    CLIENTS_MAX, DESCRIPTORS_RESERVED, FREED_KEPT, FREED_KEPT_EACH, NBD_CLIENTS_MAX, PURGE_STEP,
    RETIRED_SHARE, STOP_JOIN_MS, VOLUME_FILES_MANY, VOLUME_FILES_MANY_FROM, VOLUME_FILES_MAX,
    VOLUME_FILES_MORE,
};
use crate::base::shown::Grouped;
use crate::base::{JournalKind, Ordinal};
use crate::engine::admin::{AdminRequest, StatsView};
use crate::engine::{
    CopyEffect, Engine, EngineConfig, Event, PrepareSegment, ScrubEffect, SpoolEffect, SpoolEvent, SpoolKeep,
    StartState,
};
use crate::format::control::{Origin, Role};
use crate::io::{Driver, keep_freed, loose_parents, make_dir, open, page_life};
use crate::journal::{Recovered, recover_from};
use crate::store::StoreError;
use crate::store::tree_store::{Opened, StoreReader, StoreWriter, TreeStore};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Operations handed to the kernel in one call.
const DRIVER_ENTRIES: u32 = 1024;
/// The room of the node's file system is looked at so often.
const DISK_LOOK: Duration = Duration::from_secs(10);
/// It is looked so often which saves of the node are there.
const SAVES_LOOK: Duration = Duration::from_secs(5);
/// How far the store's threads give way to the others: they get a tenth of what those get. More would starve them where
/// other programs keep the processors busy, and with them a start, a takeover, and in the end the clients.
const STORE_NICE: i32 = 10;

/// What the command line may say besides the config.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeOptions {
    /// Overrides the config's `io`.
    pub io: Option<IoChoice>,
}

/// Why the daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The config is wrong; all that is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The directory is not a node's, or another process has it.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A file or directory of the node.
    #[error("{doing} {}: {why}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        why: String,
    },
    /// A socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread, the driver, the signals.
    #[error("{doing}: {error}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What came back.
        error: io::Error,
    },
}

impl ServeError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Config(errors) => errors.next(),
            Self::Setup(error) => error.next(),
            Self::Listen(error) => error.next.to_owned(),
            Self::File { why, path, .. } if why.contains("Permission denied") => {
                format!("let this user own {}: chown -R USER {}", path.display(), path.display())
            }
            Self::File { .. } => {
                "look at the disk and at that path: what is wrong there is said above; a node that \
                                  cannot be mended is made anew, as the standby of its peer"
                    .to_owned()
            }
            Self::System { .. } => {
                "hot-backup doctor says what this machine offers, and what to improve".to_owned()
            }
        }
    }
}

fn file_error(doing: &'static str, path: &Path, why: &impl ToString) -> ServeError {
    ServeError::File { doing, path: path.to_path_buf(), why: why.to_string() }
}

fn system_error(doing: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |error| ServeError::System { doing, error }
}

/// Runs the node in `dir` until it is told to stop by a signal. These signals are
/// caught for the rest of the process's life.
///
/// # Errors
/// Whatever keeps the node from starting, or breaks its driver.
///
/// # Example
///
/// A node inside another program, on a thread of its own. It is asked through the admin socket of its directory, as the
/// command line does.
///
/// ```standalone_crate
/// use hot_backup::engine::admin::{AdminAnswer, AdminReply, AdminRequest};
/// use hot_backup::node::admin::call;
/// use hot_backup::node::serve::{ServeOptions, serve};
/// use hot_backup::node::setup::{InitOptions, init};
/// use std::net::TcpListener;
/// use std::time::{Duration, Instant};
///
/// let parent = tempfile::tempdir()?;
/// let dir = parent.path().join("node");
/// // Where this node listens for its peer, and where the peer will be.
/// let own = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
/// let peer = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
/// init(&InitOptions::new(&dir, "a", "primary", &own, &peer))?;
///
/// let node = std::thread::spawn({
///     let dir = dir.clone();
///     move || serve(&dir, ServeOptions::default())
/// });
/// // A primary asks its peer before it serves. There is none yet, so the operator says that it may.
/// let (second, until) = (Duration::from_secs(1), Instant::now() + Duration::from_secs(60));
/// let starts = || matches!(call(&dir, &AdminRequest::StartAlone, second), Ok(AdminReply::Ok { .. }));
/// while !starts() {
///     assert!(Instant::now() < until, "it does not start");
///     std::thread::sleep(Duration::from_millis(20));
/// }
/// let Ok(AdminReply::Ok { value: AdminAnswer::Status(status) }) = call(&dir, &AdminRequest::Status, second) else {
///     panic!("no status")
/// };
/// assert_eq!((status.name.as_str(), status.role.as_str()), ("a", "primary"));
///
/// nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)?;
/// node.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn serve(dir: &Path, options: ServeOptions) -> Result<(), ServeError> {
    let layout = Layout::new(dir);
    check_owner(&layout, "serve")?;
    setup::check_own(&layout)?;
    let (mut config, warnings) = Config::load_with_warnings(dir)?;
    let _log = log::start(config.log).map_err(system_error("starting the log"))?;
    log::take_panics();
    warnings.iter().chain(&loose_parents(dir)).for_each(|warning| tracing::warn!("{warning}"));
    keep_freed(FREED_KEPT, FREED_KEPT_EACH);
    umask(Mode::from_bits_truncate(0o077));
    let clients_max = raise_descriptor_limit();
    let clients_max = clients_max.saturating_sub(DESCRIPTORS_RESERVED + volume_files(clients_max).1);
    let stoppers = signals::catch().map_err(system_error("catching signals"))?;
    let core_inbox = Arc::new(OnceLock::new());
    let to_core = Arc::clone(&core_inbox);
    // Waits for signals to the end of the process, so nobody waits for it.
    let _ = spawn("signals", move || stoppers.run(&to_core))?;
    warn_of_room(&layout, &config);
    let identity = setup::identity(dir)?;
    let starting = Arc::new(Starting::new());
    let (manager, telling) = tell_manager(&starting, &core_inbox)?;
    let lock = setup::lock(&layout)?;
    let desk = Desk::open(&layout, &config.engine.name, config.notify.clone());
    // Whoever asks while the node starts is told how far it is.
    let (saves, views) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let router = AdminRouter::new(&layout, &config, &starting, (&core_inbox, &saves, &views), &desk);
    let asked = Asked::open(&layout, &config, router, &core_inbox)?;
    restore::check_finished(&layout)?;
    let found = Found::on_disk(&layout, &config, &starting)?;
    let driver =
        open_driver(options.io.unwrap_or(config.io)).map_err(system_error("opening the I/O driver"))?;
    tracing::info!("node {} with {:?} driver", config.engine.name, driver.kind());
    let (inbox, outbox) = Inbox::new(driver.waker());
    let listeners = Listeners::open(&config, &layout)?;
    let (volumes, readers) = VolumeReads::new(&layout);
    let retired_max = (config.engine.quota_bytes / RETIRED_SHARE).max(config.engine.segment_bytes);
    let spool = (retired_max, SpoolDesk::of_node(&layout, &mut config));
    let reading = (readers, found.start.store.clone(), config.engine.ordinal);
    let (mut crew, threads) = Crew::start(&layout, found.writer, reading, spool, &inbox, &desk)?;
    crew.threads.extend(saves_watch(&config.engine, &layout, &inbox, &desk)?);
    let stats = crew.join_in(telling, Arc::clone(&asked.kept), &inbox)?;
    let workers = threads.workers(manager, starting, (stats, desk));
    let views = views_of(&views, &layout, &config, options, (workers.apply.clone(), &inbox));
    let _ = saves.set(SaveSource::new(&layout, &config, &found.start.store, (&inbox, &views.0)));
    let licence_end = test_licence(&layout, &config, &inbox, &mut crew)?;
    let _ = core_inbox.set(inbox);
    let engine = Engine::new(config.engine_config(seed()), found.start);
    let (at, encryption) = (layout.clone(), config.encryption);
    let door_tls = door_tls(&layout, config.door_names());
    let keys = Box::new(move || LinkIdentity::load(&at, encryption));
    let ends = CoreParts {
        layout,
        listeners: listeners.all.clone(),
        volumes,
        door_tls,
        keys,
        peer: config.peer,
        identity: identity.to_string(),
        clients_max,
        patience: Patience::default(),
    };
    let core = CoreThread::new(engine, driver, outbox, workers, ends);
    let ending = core.run().map_err(system_error("waiting for I/O"))?;
    drop((licence_end, views, asked, listeners));
    crew.dismiss();
    match ending {
        Ending::Clean => tracing::info!("stopped"),
        Ending::OutOfTime => {
            tracing::warn!("stopped without finishing: the next start replays the journal");
        }
    }
    drop(lock);
    Ok(())
}

/// Tells the service manager how far the node is, until all that it is told by is dropped.
fn tell_manager(
    starting: &Arc<Starting>,
    core: &Arc<OnceLock<Inbox>>,
) -> Result<(SyncSender<manager::Life>, JoinHandle<()>), ServeError> {
    let (manager, lives) = manager::channel();
    let (at, core) = (Arc::clone(starting), Arc::clone(core));
    Ok((manager, spawn("manager", move || Manager::of_environment().run(&lives, &at, &core))?))
}

/// Where people and programs ask of this node; closed in this order.
struct Asked {
    _http: Option<HttpServer>,
    _admin: (admin::AdminServer, Option<admin::AdminServer>),
    kept: Arc<KeptStats>,
}

impl Asked {
    fn open(
        layout: &Layout,
        config: &Config,
        desk: AdminRouter,
        core: &Arc<OnceLock<Inbox>>,
    ) -> Result<Self, ServeError> {
        let kept = desk.kept();
        let admin = open_admin(layout, config, desk.clone(), core)?;
        Ok(Self { _http: open_http(config, desk)?, _admin: admin, kept })
    }
}

/// Says if the disk has less room than the journal may take.
fn warn_of_room(layout: &Layout, config: &Config) {
    if let Ok(Some(text)) = Room::of(layout, config.engine.quota_bytes).map(|room| room.warning()) {
        tracing::warn!("{text}");
    }
}

/// Ends all views when it is dropped.
struct OpenViews(ViewDesk);

impl Drop for OpenViews {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What opens views from now on.
fn views_of(
    place: &OnceLock<ViewDesk>,
    layout: &Layout,
    config: &Config,
    options: ServeOptions,
    apply_and_inbox: (Sender<Apply>, &Inbox),
) -> OpenViews {
    let (at, names) = (layout.clone(), config.door_names());
    let keys = Box::new(move || door_tls(&at, names.clone()));
    let io = options.io.unwrap_or(config.io);
    let desk = ViewDesk::new(layout, config, io, apply_and_inbox, keys);
    let _ = place.set(desk.clone());
    OpenViews(desk)
}

/// Tests the licence, if one is asked for, until what it gives back is dropped.
fn test_licence(
    layout: &Layout,
    config: &Config,
    inbox: &Inbox,
    crew: &mut Crew,
) -> Result<Sender<()>, ServeError> {
    let (end, ended) = channel();
    if let Some(key) = config.licence_key {
        let tester = Tester::begin(layout, key, inbox);
        crew.threads.push(spawn("licence", move || tester.run(&ended))?);
    }
    Ok(end)
}

/// For the node's own user; and for a group, if the config names one.
fn open_admin(
    layout: &Layout,
    config: &Config,
    desk: AdminRouter,
    core: &Arc<OnceLock<Inbox>>,
) -> Result<(admin::AdminServer, Option<admin::AdminServer>), ServeError> {
    let to_count = Arc::clone(core);
    let refused = move |caller: Ucred, times| {
        // While there is no core yet, or none any more, nothing is counted.
        if let Some(core) = to_count.get() {
            let _ = core.send(Message::CallerRefused { uid: caller.uid, times });
        }
    };
    let audit = Arc::new(Audit::new(layout));
    let answer = move |request: AdminRequest, caller: Ucred| {
        let answer = match admin::refusal(&request, caller) {
            Some(refusal) => refusal.into(),
            None => desk.answer_or_send(request.clone()),
        };
        audit.note(caller, &request, &answer.reply);
        answer
    };
    let group = match (&config.admin_group, &config.admin_group_socket) {
        (Some(group), Some(path)) => {
            let path = layout.resolve(path);
            let elsewhere = match path.parent() {
                // There it could take the place of the node's own files, and nobody else reaches it.
                Some(dir) if dir == layout.dir() => Err(io::ErrorKind::InvalidInput.into()),
                _ => Ok(()),
            };
            let opened = elsewhere
                .and_then(|()| group_id(group))
                .and_then(|id| admin::spawn_for_group(&path, id, answer.clone(), refused.clone()))
                .map_err(|error| ListenError {
                    place: path.display().to_string(),
                    whom: "admin_group",
                    error,
                    next: "the group must be there, the node's user a member of it, and the socket in a directory of its \
                           own to which nobody else may write",
                })?;
            Some(opened)
        }
        _ => None,
    };
    let own = admin::spawn(layout, answer, refused).map_err(system_error("opening the admin socket"))?;
    Ok((own, group))
}

/// The number of a group.
fn group_id(name: &str) -> io::Result<u32> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no group {name}"));
    Ok(nix::unistd::Group::from_name(name)?.ok_or_else(missing)?.gid.as_raw())
}

fn open_http(config: &Config, desk: AdminRouter) -> Result<Option<HttpServer>, ServeError> {
    let Some(address) = config.http_listen else { return Ok(None) };
    let failed = |error| ListenError {
        place: address.to_string(),
        whom: "http_listen",
        error,
        next: "another program may have that port (`ss -ltnp` names it): use another one in config.toml",
    };
    Ok(Some(HttpServer::start(address, desk).map_err(failed)?))
}

/// Makes what clients of volumes are shown: a certificate for the names of the doors and the address that was called.
fn door_tls(layout: &Layout, names: Vec<String>) -> super::core::DoorKeys {
    let layout = layout.clone();
    Box::new(move |called: Option<IpAddr>| {
        let called = called.map(|address| address.to_string());
        let names: Vec<String> = names.iter().cloned().chain(called).collect();
        super::door_tls::config(&layout, &names)
    })
}

pub(super) fn open_driver(choice: IoChoice) -> io::Result<Box<dyn Driver>> {
    let choice = match choice {
        IoChoice::Auto => crate::io::IoChoice::Auto,
        IoChoice::Uring => crate::io::IoChoice::Uring,
        IoChoice::Epoll => crate::io::IoChoice::Epoll,
    };
    open(choice, DRIVER_ENTRIES)
}

/// Opens the store on a thread that gives way to others, for the engine's own threads to inherit that: they have
/// time, the clients have not. What waits for them meanwhile is written once, however often it changes.
fn open_store(layout: &Layout, config: &Config) -> Result<Opened, StoreError> {
    let (path, volumes, ordinal) = (layout.store(), layout.volumes(), config.engine.ordinal);
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    let (files, _) = volume_files(usize::try_from(limit).unwrap_or(usize::MAX));
    // It may be a file system of its own, so the page cache is told by it, and from the first life on.
    let volumes_dir = volumes.clone();
    if let Err(error) = make_dir(&volumes_dir) {
        tracing::warn!("making {}: {error}", volumes_dir.display());
    }
    let opener = std::thread::spawn(move || {
        let _ = crate::io::give_way(STORE_NICE);
        let mut opened = TreeStore::open(&path, &volumes, ordinal)?;
        opened.writer.keep_volumes_open(files);
        if let Some(life) = page_life(&volumes_dir).ok().flatten() {
            opened.writer.volumes_live_in(&life)?;
        }
        opened.reader = opened.reader.with_cached_reads(|file, buffer, most, at| {
            crate::io::read_cached(file.as_fd(), buffer, most, at)
        });
        Ok(opened)
    });
    opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the node's directory holds.
struct Found {
    start: StartState<StoreReader>,
    writer: StoreWriter,
}

impl Found {
    /// To be called by the holder of the directory's lock.
    fn on_disk(layout: &Layout, config: &Config, starting: &Arc<Starting>) -> Result<Self, ServeError> {
        // Read again for each connection; what is wrong with them now is told now.
        LinkIdentity::load(layout, config.encryption)
            .map_err(|error| file_error("loading the keys of", layout.dir(), &error))?;
        if Peers::load(layout).is_ok_and(|peers| peers.identities.is_empty()) {
            tracing::warn!(
                "no peer is trusted yet, so none is let in: give this node the line that `hot-backup identity` prints \
                 on the other one, with `hot-backup trust`"
            );
        }
        let control = setup::load_control(layout, config)?;
        starting.set_role(control.role.name());
        remove_leftovers(layout)?;
        starting.enter(Stage::Store, 0);
        let store = open_store(layout, config)
            .map_err(|error| file_error("opening the store in", &layout.store(), &error))?;
        let mut journals = [Recovered::default(), Recovered::default()];
        for (journal, place) in JournalKind::ALL.into_iter().zip(&mut journals) {
            let origin = match journal {
                JournalKind::Replicated => control.origin,
                JournalKind::Local => Origin::default(),
            };
            *place = recover_journal(layout, config, (journal, &origin), starting)?;
            // A node that is given a copy may have died before its store knew of that: what it shows is of no use then.
            let fits = store.copied.as_ref().is_some_and(|copied| copied.origin == control.origin.at);
            if journal == JournalKind::Replicated && control.role == Role::Incomplete && !fits {
                continue;
            }
            place
                .check_applied(journal, store.applied[journal.index()])
                .map_err(|error| file_error("recovering the journal in", &layout.journal(journal), &error))?;
        }
        let Opened { writer, reader, namespace, applied, replay_from, copied, prepared } = store;
        let store = reader;
        let start =
            StartState { control, journals, store, namespace, applied, replay_from, copied, prepared };
        Ok(Self { start, writer })
    }
}

fn recover_journal(
    layout: &Layout,
    config: &Config,
    (journal, origin): (JournalKind, &Origin),
    starting: &Arc<Starting>,
) -> Result<Recovered, ServeError> {
    let begin = Instant::now();
    let path = layout.journal(journal);
    let failed = |error: io::Error| file_error("reading", &path, &error);
    let segments = segment_source::list(layout, journal).map_err(failed)?;
    starting.enter(Stage::Walk, segments.iter().map(|(_, bytes)| bytes).sum());
    let mut source = DiskSegments::new(layout, journal, &segments, starting).map_err(failed)?;
    let (pair, ordinal) = (config.engine.pair, config.engine.ordinal);
    let recovered = recover_from(origin, journal, pair, ordinal, &segments, &mut source)
        .map_err(|error| file_error("recovering the journal in", &path, &error))?;
    tracing::info!(
        "{} journal: {} segments walked in {} ms, last entry {}",
        journal.name(),
        Grouped(segments.len()),
        begin.elapsed().as_millis(),
        recovered.end.seq
    );
    Ok(recovered)
}

/// Removes what a replacement or a segment in the making left behind when the process was killed, and nothing else.
fn remove_leftovers(layout: &Layout) -> Result<(), ServeError> {
    for dir in JournalKind::ALL.map(|journal| layout.journal(journal)) {
        make_dir(&dir).map_err(|error| file_error("making", &dir, &error))?;
    }
    let left = layout.leftovers().map_err(|error| file_error("listing", layout.dir(), &error))?;
    for file in left {
        let path = file.path();
        if file.remove().map_err(|error| file_error("removing", path, &error))? {
            tracing::info!("removed {}, left by the process before this one", path.display());
        }
    }
    Ok(())
}

/// The ends of the threads that [`Crew::start`] starts.
struct Threads {
    fetches: Sender<StoreFetch>,
    copies: Sender<CopyEffect>,
    compares: Sender<CompareJob>,
    bulk: Sender<PrepareSegment>,
    files: Sender<FileJob>,
    spool: Sender<SpoolEffect>,
    apply: Sender<Apply>,
    scrub: Sender<ScrubEffect>,
    notes: Notes,
    resolver: Resolver,
}

impl Threads {
    fn workers(
        self,
        manager: SyncSender<manager::Life>,
        starting: Arc<Starting>,
        (stats, desk): (Sender<StatsView>, Desk),
    ) -> Workers {
        let desk = Some(desk);
        let Self { bulk, files, spool, apply, scrub, fetches, copies, compares, notes, resolver } = self;
        Workers {
            bulk,
            files,
            spool,
            apply,
            scrub,
            fetches,
            copies,
            compares,
            notes,
            desk,
            resolver,
            manager,
            starting,
            stats,
        }
    }
}

/// The threads beside the core.
struct Crew {
    stop: Arc<AtomicBool>,
    desk: Desk,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn start(
        layout: &Layout,
        mut writer: StoreWriter,
        (readers, store, ordinal): (Readers, StoreReader, Ordinal),
        (retired_max, spool_desk): (u64, SpoolDesk),
        inbox: &Inbox,
        desk: &Desk,
    ) -> Result<(Self, Threads), ServeError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (bulk, bulk_work) = channel();
        let (files, files_work) = channel();
        let (apply, apply_work) = channel();
        let (notes, recorder) = Notes::new();
        let (scrub, scrub_work) = channel();
        let (to_apply, to_apply_too) = (apply.clone(), apply.clone());
        let tables = store.clone();
        let source = store.for_copies(ordinal, &layout.volumes(), read_slowly).naming_lost();
        let (store_readers, fetches) = StoreReaders::new(store);
        let (copies, copy_work) = channel();
        let (compares, compare_work) = channel();
        let resolver = Resolver::new(inbox);
        let (spool, spool_work) = channel();
        let workers =
            Threads { bulk, files, spool, apply, scrub, fetches, copies, compares, notes, resolver };
        let mut threads = Vec::new();
        let (at, to, halt) = (layout.clone(), inbox.clone(), Arc::clone(&stop));
        threads.push(spawn("bulk", move || disk::run_bulk(&at, &bulk_work, &to, &halt))?);
        let (syncs, sync_work) = channel();
        threads.push(spawn("volume-sync", move || apply::run_syncs(&sync_work))?);
        let (at, to, halt) = (layout.clone(), inbox.clone(), Arc::clone(&stop));
        threads.push(spawn("files", move || disk::run_files(at, retired_max, &files_work, &to, &halt))?);
        let (to, halt) = (inbox.clone(), Arc::clone(&stop));
        threads.push(spawn("spool", move || spool_desk.run(&spool_work, &to, &halt))?);
        let (to, halt) = (inbox.clone(), Arc::clone(&stop));
        let retired = Retired::new(layout);
        threads.push(spawn("apply", move || {
            let _ = crate::io::give_way(STORE_NICE);
            let (tidy, make_room) =
                (|store: &mut StoreWriter| store.purge_step(PURGE_STEP), || retired.give_up());
            apply::run(&mut writer, tidy, make_room, &apply_work, &syncs, &to, &halt);
        })?);
        for _ in 0..Readers::THREADS {
            let (readers, to, apply) = (readers.clone(), inbox.clone(), to_apply.clone());
            threads.push(spawn("volume-read", move || readers.run(&apply, &to))?);
        }
        let scrubber = Scrubber::new(layout, tables, to_apply_too, inbox, &stop);
        threads.push(spawn("scrub", move || scrubber.run(&scrub_work))?);
        for _ in 0..StoreReaders::THREADS {
            let (readers, to) = (store_readers.clone(), inbox.clone());
            threads.push(spawn("store-read", move || readers.run(&to))?);
        }
        let (to, halt) = (inbox.clone(), Arc::clone(&stop));
        threads.push(spawn("copies", move || {
            let _ = crate::io::give_way(STORE_NICE);
            copies::run(&source, &copy_work, &to, &halt);
        })?);
        let (at, to, halt) = (layout.clone(), inbox.clone(), Arc::clone(&stop));
        threads.push(spawn("compare", move || compares::run(&at, &compare_work, &to, &halt))?);
        let (at, to) = (layout.clone(), desk.clone());
        threads.push(spawn("incidents", move || recorder.run(&at, &to))?);
        threads.extend(tellers(layout, inbox, desk)?);
        Ok((Self { stop, desk: desk.clone(), threads }, workers))
    }

    /// Takes in a thread that runs already, and begins the one that keeps what is counted, whose end it gives.
    fn join_in(
        &mut self,
        thread: JoinHandle<()>,
        kept: Arc<KeptStats>,
        inbox: &Inbox,
    ) -> Result<Sender<StatsView>, ServeError> {
        let (stats, last) = channel();
        let to = inbox.clone();
        self.threads.extend([thread, spawn("stats", move || kept.run(&last, &to))?]);
        Ok(stats)
    }

    /// Waits for the threads, whose work is over when the core is gone; those that hang in the disk are left.
    fn dismiss(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.desk.stop();
        let until = Instant::now() + Duration::from_millis(STOP_JOIN_MS);
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                // A panic has ended the process already.
                let _ = thread.join();
            } else {
                tracing::warn!(
                    "thread {} still waits for the disk or for others",
                    thread.thread().name().unwrap_or_default()
                );
            }
        }
    }
}

/// The threads that tell people, one for each entry of the notify list, and the one that looks at the disk's room.
fn tellers(layout: &Layout, inbox: &Inbox, desk: &Desk) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let (at, to, rest) = (layout.clone(), inbox.clone(), desk.clone());
    let look = move || loop {
        if let Some(room) = disk_space(&at) {
            // A core that is gone needs no answer.
            let _ = to.send(Message::Event(Event::DiskSpace(room)));
        }
        if !rest.rest(DISK_LOOK) {
            return;
        }
    };
    let mut threads = vec![spawn("disk-room", look)?];
    for entry in 0..desk.targets() {
        let desk = desk.clone();
        threads.push(spawn("notify", move || desk.run(entry))?);
    }
    Ok(threads)
}

/// The thread that looks which saves are there, if the spool keeps what comes after them.
fn saves_watch(
    config: &EngineConfig,
    layout: &Layout,
    inbox: &Inbox,
    desk: &Desk,
) -> Result<Option<JoinHandle<()>>, ServeError> {
    if config.spool.keep != SpoolKeep::OldestSave {
        return Ok(None);
    }
    let (at, to, rest, pair) = (layout.clone(), inbox.clone(), desk.clone(), config.pair);
    let look = move || loop {
        let oldest = saves::oldest(&at, pair);
        let _ = to.send(Message::Event(SpoolEvent::Saves { oldest }.into()));
        if !rest.rest(SAVES_LOOK) {
            return;
        }
    };
    spawn("saves", look).map(Some)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServeError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(system_error("starting a thread"))
}

/// Files of volumes that are kept open for writing where so many descriptors may be had, and how many of them that takes
/// from clients.
fn volume_files(descriptors: usize) -> (usize, usize) {
    match descriptors {
        VOLUME_FILES_MANY_FROM.. => (VOLUME_FILES_MANY, VOLUME_FILES_MORE),
        _ => (VOLUME_FILES_MAX, 0),
    }
}

/// Every client and file needs a descriptor: without more than the usual 1024 the product's limits are not reached.
/// Returns how many there may be.
fn raise_descriptor_limit() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(errno) => {
            tracing::warn!("raising the limit of open files from {soft} to {hard}: {errno}");
            soft
        }
    };
    let wanted = CLIENTS_MAX + NBD_CLIENTS_MAX + DESCRIPTORS_RESERVED + VOLUME_FILES_MORE;
    if limit < wanted as u64 {
        tracing::warn!("only {limit} files may be open: fewer than {CLIENTS_MAX} clients can connect");
    }
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Not for secrets: jitter should differ between nodes and starts.
pub(super) fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
