//! Every limit of the product in one place. A queue, buffer, retry or loop without a line here is a defect.

/// Disk block: batches start and end on it, O_DIRECT needs it (bytes).
pub const BLOCK: usize = 4096;
/// The same, for offsets in files.
pub const BLOCK_U64: u64 = 4096;
/// Highest sequence number, epoch, id or index that is read from disk or wire: what follows it can still be counted.
pub const NUMBER_MAX: u64 = u64::MAX / 2;
/// Longest item id (bytes). An id has at least one byte.
pub const ITEM_ID_MAX: usize = 255;
/// Longest item value (bytes).
pub const ITEM_VALUE_MAX: usize = 16 << 20;
/// Largest volume (bytes).
pub const VOLUME_MAX: u64 = 64 << 40;
/// Bytes that one change of a volume carries; a longer request becomes several changes.
pub const BLOCK_PAYLOAD_MAX: usize = 1 << 20;
/// A write to a volume of at least this size is received into a buffer of its own, which becomes a batch (bytes).
pub const BLOCK_OWN_BATCH_MIN: usize = 64 << 10;
/// A batch on the link of at least this size that has not come as a whole is received into a buffer of its own (bytes).
pub const LINK_OWN_BUFFER_MIN: usize = 64 << 10;
/// Longest account, file or node name (bytes).
pub const NAME_MAX: usize = 128;
/// A batch is sealed when it has reached this size, even if more is queued (bytes).
pub const BATCH_SOFT: usize = 1 << 20;
/// Batches that wait are written together, up to this (bytes); a larger one is written alone.
pub const GROUP_MAX: usize = 8 << 20;
/// No batch is larger; a transaction that needs more is refused (bytes).
pub const BATCH_MAX: usize = 32 << 20;
/// Entries in one batch at most.
pub const BATCH_ENTRIES_MAX: u32 = 1 << 20;
/// Payload of a link frame at most (bytes).
pub const FRAME_PAYLOAD_MAX: usize = BATCH_MAX;
/// Ranges that a peer may want at once.
pub const WANTS_MAX: usize = 8;
/// Content that a peer is given in one chunk at most (bytes), whatever it wants; one item may be longer.
pub const WANT_MAX: u32 = 4 << 20;
/// Ranges in the list of a rewind; neighbours are taken together where there are more.
pub const REWIND_RANGES_MAX: usize = 1 << 12;
/// What is kept of what the primary has in the place of what a rewound node left (bytes).
pub const DIVERGED_BASE_MAX: usize = 8 << 20;
/// What a store keeps of a rewind (bytes); where it would be more, everything is copied.
pub const REWIND_RECORD_MAX: usize = 8 << 20;
/// Content that is asked for at once in a copy (bytes); one item may be longer.
pub const CHUNK_BYTES: u32 = 1 << 20;
/// Where a range differs by its digest, it is asked for in so many parts.
pub const DIGEST_PARTS: u32 = 32;
/// After so many parts that differ one after another, a MiB of content is asked for without digests.
pub const DIGEST_STRIKES: u32 = 4;
/// Chunks of a copy that may wait for the store.
pub const CHUNKS_WAITING_MAX: usize = 4;
/// Definitions that a copy can begin with: accounts and files.
pub const COPY_DEFINITIONS_MAX: u32 = 1 << 20;
/// How far a copy looks for the end of a hole of a volume in one call (bytes).
pub const COPY_LOOK: u64 = 1 << 30;
/// How far it looks for one chunk (bytes).
pub const COPY_LOOK_MAX: u64 = 1 << 40;
/// Pieces of a volume in one chunk of a copy.
pub const COPY_RUNS_MAX: u32 = 1 << 16;
/// Files that the trailer of a save set tells, and that its beginning says are left out.
pub const SET_FILES_MAX: u32 = 1 << 20;
/// A name in a save set (bytes): `account,file`, with what a name that gave way has behind it.
pub const SET_NAME_MAX: usize = 512;
/// Largest block of a reel, with its header (bytes): what every drive takes.
pub const REEL_BLOCK_MAX: usize = 1 << 20;
/// Smallest size of full blocks of a reel (bytes).
pub const REEL_BLOCK_MIN: usize = 64 << 10;
/// Size of full blocks of a reel (bytes).
pub const REEL_BLOCK: usize = 256 << 10;
/// Block with a reel's label (bytes): short, so that whoever reads tapes can read it.
pub const REEL_LABEL: usize = 32 << 10;
/// A reel's name, and that of the node in its label (bytes).
pub const REEL_NAME_MAX: usize = 64;
/// Ranges of one save in the catalogue of reels; where there are more, they get coarser.
pub const TAPE_RANGES_MAX: usize = 1 << 12;
/// The catalogue of reels at most (bytes).
pub const TAPE_CATALOGUE_MAX: usize = 64 << 20;
/// Reels in a row to which nothing could be written, until a writer gives up.
pub const TAPE_FAILURES_MAX: u32 = 3;
/// Blocks that may be damaged at the end of a reel that is appended to.
pub const TAPE_TAIL_MAX: u64 = 8;
/// Blocks in memory for a drive (bytes), unless the operator says otherwise.
pub const TAPE_STAGE: u64 = 256 << 20;
/// Bytes of a stream in one frame of a tape socket.
pub const SOCKET_BLOCK: usize = 256 << 10;
/// What follows the head of such a frame (bytes).
pub const SOCKET_PAYLOAD_MAX: usize = SOCKET_BLOCK + 8;
/// Longest text in it (bytes).
pub const SOCKET_TEXT_MAX: usize = 1024;
/// Longest name of a stream (bytes).
pub const SOCKET_NAME_MAX: usize = 64;
/// What a sender may be asked to keep until it counts (bytes).
pub const SOCKET_WINDOW_MAX: u64 = 1 << 30;
/// The same where it goes to a file (bytes).
pub const SOCKET_FILE_WINDOW: u64 = 64 << 20;
/// What a reader of a tape socket lets come beyond what it took (bytes).
pub const SOCKET_READ_AHEAD: u64 = 16 << 20;
/// A tape socket that is silent for so long is gone (milliseconds) ..
pub const SOCKET_SILENT_MS: u64 = 30_000;
/// .. and one that has nothing to say says so this often (milliseconds).
pub const SOCKET_TELL_MS: u64 = 5_000;
/// A tape socket's other machine that acknowledges nothing for so long is gone (milliseconds).
pub const SOCKET_GONE_MS: u32 = 60_000;
/// The drive and words of operators are looked at this often (milliseconds).
pub const SOCKET_LOOK_MS: u64 = 100;
/// A stranger has so long to prove its key (milliseconds).
pub const SOCKET_PROVE_MS: u64 = 10_000;
/// What is in a drive is known within this: a reel may have to be wound to its end (milliseconds).
pub const SOCKET_OPEN_MS: u64 = 300_000;
/// Between two tries to connect again (milliseconds).
pub const SOCKET_AGAIN_MS: u64 = 200;
/// A place is kept so long for a sender that is away, if somebody else wants it (milliseconds).
pub const SOCKET_KEEP_MS: u64 = 60_000;
/// Connections at once of one listener.
pub const SOCKET_CALLERS_MAX: usize = 16;
/// Batches that are read for a save at once (bytes); one may be longer.
pub const SAVE_READ_BYTES: usize = 4 << 20;
/// Who does not take what a save sends for this long has left it (milliseconds).
pub const SAVE_STUCK_MS: u64 = 600_000;
/// Payload of a frame that asks for a range (bytes).
pub const WANT_PAYLOAD_MAX: usize = 768;
/// Payload of a frame of a switchover (bytes).
pub const HANDOVER_PAYLOAD_MAX: usize = 16 << 10;
/// Conditions of a switchover that are told to the peer.
pub const HANDOVER_CONDITIONS_MAX: usize = 16;
/// The text of one of them (bytes).
pub const HANDOVER_TEXT_MAX: usize = 512;
/// In a switchover the doors are closed for so long at most before the standby has everything (milliseconds). Then they are
/// opened again.
pub const HANDOVER_LEVEL_MS: u64 = 500;
/// Once the role was given away, clients wait for so long at most until it is known who serves (milliseconds).
pub const HANDOVER_HOLD_MS: u64 = 5_000;
/// A standby that asked its primary to hand over waits for an answer for so long at most (milliseconds).
pub const HANDOVER_ASK_MS: u64 = 15_000;
/// A switchover begins only if the standby lacks no more than this on its disk (bytes of batches).
pub const HANDOVER_LAG_MAX: u64 = 32 << 20;
/// Payload of a frame that asks for a look, marks one or orders a compare (bytes).
pub const ASK_PAYLOAD_MAX: usize = 2048;
/// Content that is looked at as one in a compare (bytes); one item may be longer. Larger ranges keep the apply thread longer.
pub const COMPARE_RANGE: u32 = 1 << 20;
/// Looks that a compare has under way.
pub const COMPARE_ASKS_MAX: usize = 8;
/// Looks of a compare of which it is known how far they came.
pub const COMPARE_REACHED_MAX: usize = 4 * COMPARE_ASKS_MAX;
/// Differences that a compare names; the rest is counted.
pub const COMPARE_NAMED_MAX: usize = 200;
/// The longest name or part of one that a compare tells (bytes).
pub const COMPARE_TEXT_MAX: usize = 600;
/// The most that a difference takes (bytes).
pub const NAMED_MAX_BYTES: usize = 16 + 2 * COMPARE_TEXT_MAX;
/// Pieces of one range of a compare that are repaired one by one; if there are more, the range is.
pub const COMPARE_CLOSER_MAX: usize = 64;
/// A standby applies nothing for so long at most, while it waits for content that belongs before the next batch
/// (milliseconds).
pub const COMPARE_HOLD_MS: u64 = 3_000;
/// A standby tells the primary how far a compare is so often (milliseconds).
pub const COMPARE_TELL_MS: u64 = 1_000;
/// Damaged ranges of volumes that wait for the peer's content.
pub const HEALS_MAX: usize = 256;
/// Payload of a frame before the peer's hello was accepted (bytes).
pub const HELLO_PAYLOAD_MAX: usize = 4096;
/// Epochs told in a hello, newest last.
pub const HELLO_EPOCHS_MAX: usize = 64;
/// Epochs remembered in the control file.
pub const EPOCH_TABLE_MAX: usize = 1024;
/// Updates queued or being written, not yet durable; above it clients are read no further (bytes).
pub const QUEUE_MAX: usize = 48 << 20;
/// Changes of volumes wait when this much is queued or being written: what is above it is for items (bytes).
pub const BLOCK_QUEUE_MAX: usize = 24 << 20;
/// The same for what is not yet in the store (bytes).
pub const BLOCK_UNAPPLIED_MAX: usize = 24 << 20;
/// Ranges of volumes that are not yet in the store; above it their clients wait.
pub const BLOCKS_UNAPPLIED_MAX: usize = 100_000;
/// Sealed batches held in memory until the store has applied them; above it clients wait (bytes).
pub const UNAPPLIED_MAX: usize = 32 << 20;
/// Sealed batches kept in memory for the link; older ones are read back from the journal (bytes).
pub const LIVE_WINDOW_MAX: usize = 40 << 20;
/// Above it changes of volumes wait for a standby that is live, so that it stays live (bytes).
pub const LIVE_WINDOW_FULL: usize = 32 << 20;
/// What a receiver lets its sender have under way (bytes).
pub const CREDIT_WINDOW: u64 = 32 << 20;
/// One read of the journal for catch-up or replay: the batch of a large write of a client, and its header (bytes). A batch
/// that goes on beyond it is read again as a whole.
pub const READ_CHUNK: usize = (1 << 20) + 2 * BLOCK;
/// Lines of diverged entries that are saved together: once there are so many, they are made durable (bytes).
pub const DIVERGED_SAVE: usize = 1 << 20;
/// Client connections at once.
pub const CLIENTS_MAX: usize = 10_000;
/// Unsent replies of one client; above it the client is read no further (bytes).
pub const CLIENT_OUT_MAX: usize = 1 << 20;
/// Arguments of one RESP command.
pub const RESP_ARGS_MAX: usize = 1 << 20;
/// Commands queued in one MULTI.
pub const MULTI_MAX: usize = 100_000;
/// One bulk string of a RESP command; a little above the longest value, so that one slightly too long is refused
/// by name and the connection lives on (bytes).
pub const RESP_BULK_MAX: usize = ITEM_VALUE_MAX + 4096;
/// One whole RESP command; holds a transaction as large as a batch may be (bytes).
pub const RESP_REQUEST_MAX: usize = BATCH_MAX + (8 << 20);
/// One inline RESP command, without its line end (bytes).
pub const RESP_INLINE_MAX: usize = 64 << 10;
/// One RESP command of a client that has not authenticated (bytes).
pub const RESP_LOCKED_MAX: usize = 4096;
/// Arguments of one RESP command of a client that has not authenticated.
pub const RESP_LOCKED_ARGS_MAX: usize = 10;
/// A client that has not authenticated in this time is disconnected (milliseconds).
pub const AUTHENTICATE_MS: u64 = 60_000;
/// Replies of one client that wait for their update to be safe; above it the client is parsed no further.
pub const CLIENT_HOLDS_MAX: usize = 4096;
/// One reply (bytes).
pub const CLIENT_REPLY_MAX: usize = 32 << 20;
/// What a client of ours takes of one reply of the NBD door (bytes): more than the largest read.
pub const CLIENT_PAYLOAD_MAX: usize = 64 << 20;
/// What a client that waits (WAIT, KEYS, DBSIZE) may send meanwhile before it is read no further (bytes).
pub const CLIENT_AHEAD_MAX: usize = 4096;
/// A receive buffer at first, and at most (bytes).
pub const RECEIVE_MIN: usize = 4096;
/// See [`RECEIVE_MIN`].
pub const RECEIVE_MAX: usize = 64 << 10;
/// Input, queued transactions and replies of all clients together; above it only small things are still done (bytes).
pub const CLIENTS_MEMORY_MAX: usize = 128 << 20;
/// Of it, kept for clients that hold no more than [`CLIENT_HOLDS_LITTLE`] (bytes).
pub const CLIENTS_MEMORY_KEPT: usize = 16 << 20;
/// What a client may hold and have its part of what is kept (bytes).
pub const CLIENT_HOLDS_LITTLE: usize = 256 << 10;
/// SCAN positions remembered for all clients together; the least recently used is forgotten first.
pub const SCAN_CURSORS_MAX: usize = 16_384;
/// Items that one SCAN call looks at.
pub const SCAN_COUNT_MAX: usize = 10_000;
/// Items that a walk asks the database for at once.
pub const WALK_STEP: usize = 256;
/// Keys that KEYS returns; with more it is refused.
pub const KEYS_MAX: usize = 100_000;
/// Items that a transaction may have changed when KEYS, SCAN or DBSIZE comes in it.
pub const WALK_STAGED_MAX: usize = 2_000;
/// Items that one step of INFO's count of items looks at.
pub const COUNT_STEP: usize = 2_000;
/// With more items than this DBSIZE and INFO tell an estimate.
pub const COUNT_EXACT_MAX: u64 = 200_000;
/// An estimate is told again for so long (milliseconds).
pub const COUNT_FRESH_MS: u64 = 2_000;
/// Estimates that are kept.
pub const COUNTS_KEPT_MAX: usize = 4096;
/// Between two steps of that count (milliseconds).
pub const COUNT_PAUSE_MS: u64 = 5;
/// Longest pattern of SCAN and KEYS (bytes).
pub const PATTERN_MAX: usize = 1024;
/// Keys watched by all clients together.
pub const WATCHED_MAX: usize = 50_000;
/// Of them, those from other machines that have not authenticated; the oldest gives way to the next. The same for those
/// from this machine.
pub const CLIENTS_UNPROVEN_MAX: usize = 1024;
/// Of them, kept for clients from this machine, and for the node's own user.
pub const CLIENTS_KEPT: [usize; 2] = [128, 32];
/// Wrong passwords on one connection; then it is ended.
pub const PASSWORDS_MAX: u8 = 5;
/// Wrong passwords from an address that cost nothing; after each further one nobody from there who has not given the right
/// one is listened to for a time that doubles.
pub const GUESS_FREE: u32 = 3;
/// That time at first, and at most (milliseconds).
pub const GUESS_MS: u64 = 100;
/// See [`GUESS_MS`].
pub const GUESS_MS_MAX: u64 = 5000;
/// After so long without one they are forgotten (milliseconds).
pub const GUESS_FORGET_MS: u64 = 60_000;
/// Addresses whose wrong passwords are remembered; the one that was quiet for longest is forgotten first.
pub const GUESS_ADDRESSES_MAX: usize = 1024;
/// A client that ended its stream may take this long to be told what is owed to it (milliseconds).
pub const CLIENT_ENDED_MS: u64 = 60_000;
/// Arguments of a command that does not take any number of keys.
pub const OPTIONS_MAX: usize = 256;
/// Changes of items that the doors have not looked at yet; with more, everything counts as changed.
pub const CHANGES_MAX: usize = 1 << 16;
/// What all Redis clients together may cost before the link and the timers are served: about a nanosecond each.
pub const WORK_ROUND: usize = 4_000_000;
/// What one client may cost before another has its turn.
pub const WORK_SLICE: usize = 1_000_000;
/// What it may cost at least, however many want their turn.
pub const WORK_LEAST: usize = 50_000;
/// What is counted for one command, beside its bytes.
pub const WORK_COMMAND: usize = 200;
/// What is counted for finding one item, beside the bytes of its value.
pub const WORK_READ: usize = 2_000;
/// What is counted for changing one item, beside its bytes.
pub const WORK_UPDATE: usize = 500;
/// What is counted for one item that a walk looks at, beside the steps of matching its key.
pub const WORK_WALKED: usize = 500;
/// What is counted for one update in memory that a walk looks through for those that come next.
pub const WORK_LOOKED: usize = 20;
/// What is counted for one item of a huge command that is freed.
pub const WORK_FREED: usize = 50;
/// So many of those are freed in one round.
pub const PILE_STEP: usize = 10_000;
/// An update of more items than this is put together in steps.
pub const DIRECT_ITEMS_MAX: usize = 1024;
/// So often a command that takes several turns begins anew because what it had read was changed; then it has one long
/// turn, and is refused if that does not do.
pub const ANEW_MAX: u32 = 8;
/// How many slices that long turn has.
pub const LONG_TURN_SLICES: usize = 16;
/// NBD connections at once.
pub const NBD_CLIENTS_MAX: usize = 256;
/// Of them, those from other machines that have not chosen an export; the oldest gives way to the next. The same for
/// those from this machine.
pub const NBD_UNPROVEN_MAX: usize = 64;
/// Of them, kept for clients from this machine, and for the node's own user.
pub const NBD_KEPT: [usize; 2] = [32, 16];
/// Requests of one NBD connection that wait for the disk or the peer; above it the connection is parsed no further.
pub const NBD_IN_FLIGHT_MAX: usize = 128;
/// One READ or the payload of one WRITE, as told to clients (bytes).
pub const NBD_REQUEST_MAX: u32 = 32 << 20;
/// What one NBD connection may have asked to read and not got yet (bytes).
pub const NBD_READS_MAX: usize = 32 << 20;
/// The same for all NBD connections together (bytes).
pub const NBD_READS_ALL_MAX: usize = 64 << 20;
/// Unsent replies of one NBD connection; above it the connection is read no further (bytes).
pub const NBD_OUT_MAX: usize = 4 << 20;
/// Replies of all NBD connections: unsent, and the longest that requests under way can have (bytes).
pub const NBD_OUT_ALL_MAX: usize = 128 << 20;
/// So much of it is each connection's own; a request that needs more waits until the others leave room (bytes).
pub const NBD_OUT_FREE: usize = 64 << 10;
/// What is sent to an NBD connection at once; when it is taken, the client is known to read (bytes).
pub const NBD_SEND_MAX: usize = 256 << 10;
/// An NBD client that takes nothing of what waits for it is cut after this (milliseconds).
pub const NBD_STUCK_MS: u64 = 60_000;
/// The answer to one NBD_OPT_LIST; with more exports than fit it ends in an error (bytes).
pub const NBD_LIST_MAX: usize = 4 << 20;
/// Data of one NBD option; more is thrown away and refused (bytes).
pub const NBD_OPTION_MAX: usize = 8 << 10;
/// With more data than this in one NBD option the connection is ended (bytes).
pub const NBD_OPTION_DRAIN_MAX: usize = 1 << 20;
/// From the connection to the choice of an export (milliseconds).
pub const NBD_HANDSHAKE_MS: u64 = 30_000;
/// Extents told in one reply to BLOCK_STATUS.
pub const NBD_EXTENTS_MAX: usize = 8192;
/// Volumes whose traffic is remembered though nobody uses them.
pub const NBD_TRAFFIC_MAX: usize = 4096;
/// Files whose entries are counted apart; those of others are counted together.
pub const STATS_FILES_MAX: usize = 4096;
/// Groups of entries whose way to each stage is timed; above it the oldest go untimed.
pub const STATS_GROUPS_MAX: usize = 1024;
/// What was counted is kept on disk so often (milliseconds): a kill loses so much of it at most.
pub const STATS_KEEP_MS: u64 = 60_000;
/// The file of what was counted (bytes).
pub const STATS_FILE_MAX: usize = 8 << 20;
/// HTTP connections at once.
pub const HTTP_CLIENTS_MAX: usize = 64;
/// Of which so many may follow events.
pub const HTTP_FOLLOWERS_MAX: usize = 16;
/// The head of an HTTP request (bytes), and the headers in it.
pub const HTTP_HEAD_MAX: usize = 16 << 10;
/// See [`HTTP_HEAD_MAX`].
pub const HTTP_HEADERS_MAX: usize = 64;
/// An HTTP client has to send the head of a request within this time, and to take an answer (milliseconds).
pub const HTTP_PATIENCE_MS: u64 = 10_000;
/// A connection ends after this time (milliseconds); who follows events connects again.
pub const HTTP_LIFE_MS: u64 = 60_000;
/// What the page shows is asked for so often at most (milliseconds).
pub const HTTP_FRESH_MS: u64 = 500;
/// Points of a chart, and the time from one to the next (milliseconds).
pub const HTTP_POINTS: usize = 300;
/// See [`HTTP_POINTS`].
pub const HTTP_POINT_MS: u64 = 2000;
/// The file of who changed what; at this size another is begun, and one before it is kept (bytes).
pub const AUDIT_FILE_MAX: u64 = 4 << 20;
/// Recent incidents kept in memory for status.
pub const INCIDENTS_MAX: usize = 256;
/// Records of incidents that are kept; the oldest that do not last go first.
pub const RECORDS_MAX: usize = 512;
/// The text of one of them (bytes).
pub const RECORD_TEXT_MAX: usize = 1024;
/// The name of who took note of one (bytes).
pub const RECORD_WHO_MAX: usize = 64;
/// An event that comes again within this is counted in its record (milliseconds).
pub const RECORD_AGAIN_MS: u64 = 600_000;
/// The file with the records and what waits to be told (bytes).
pub const RECORDS_FILE_MAX: usize = 32 << 20;
/// Entries of the notify list.
pub const NOTIFY_MAX: usize = 16;
/// Messages that wait for one of them; the oldest gives way.
pub const NOTIFY_QUEUE_MAX: usize = 256;
/// A message that was not delivered is tried again after this (milliseconds), and each time after twice as long ..
pub const NOTIFY_RETRY_MS: u64 = 1_000;
/// .. up to this (milliseconds).
pub const NOTIFY_RETRY_MOST_MS: u64 = 300_000;
/// A receiver has so long to take a message (milliseconds).
pub const NOTIFY_PATIENCE_MS: u64 = 10_000;
/// Messages are undeliverable for so long before the others are told (milliseconds).
pub const NOTIFY_FAILING_MS: u64 = 300_000;
/// A receiver that knows what lasts by itself is told it again so often (milliseconds).
pub const NOTIFY_REFRESH_MS: u64 = 60_000;
/// What a receiver answers is read up to this (bytes).
pub const NOTIFY_ANSWER_MAX: u64 = 4096;
/// Terminals that one message is written to.
pub const TERMINALS_MAX: usize = 256;
/// The list of who is logged in (bytes).
pub const UTMP_MAX: usize = 1 << 20;
/// Incidents of one kind told at once; then one is told each [`REPEAT_QUIET_MS`] while they go on.
pub const INCIDENT_BURST: u32 = 8;
/// What repeats all the time is told at most this often, with a count (milliseconds).
pub const REPEAT_QUIET_MS: u64 = 60_000;
/// Kinds of what repeats that are told apart.
pub const REPEAT_KEYS_MAX: usize = 128;
/// Places of the store that could not be read and are told as incidents, in one life of the process.
pub const DAMAGE_TOLD_MAX: usize = 256;
/// Of a journal's quota, one part in so many may wait beside it in files of released segments, to be used again.
pub const RETIRED_SHARE: u64 = 8;
/// Journal segment: default, least and most (bytes).
pub const SEGMENT_DEFAULT: u64 = 64 << 20;
/// See [`SEGMENT_DEFAULT`].
pub const SEGMENT_MIN: u64 = 64 << 10;
/// See [`SEGMENT_DEFAULT`].
pub const SEGMENT_MAX: u64 = 4 << 30;
/// A spool that failed is tried again after this (milliseconds).
pub const SPOOL_RETRY_MS: u64 = 5_000;
/// A wire to a spool on another machine that was cut is made again for so long (milliseconds).
pub const SPOOL_FAR_RETRY_MS: u64 = 5_000;
/// One that fails for so long takes nothing for the time being; one that is full does so at once (milliseconds).
pub const SPOOL_PATIENCE_MS: u64 = 15_000;
/// A copy of a segment to the spool that takes longer counts as failed, until it ends (milliseconds).
pub const SPOOL_HANGS_MS: u64 = 30_000;
/// The same to reels: a drive that mends itself takes that long (milliseconds).
pub const SPOOL_TAPE_HANGS_MS: u64 = 600_000;
/// So much is on its way to reels at most, so that a drive gets enough at a time (bytes).
pub const SPOOL_AHEAD: u64 = 256 << 20;
/// Of it, so much is in memory until the drive has flushed it (bytes).
pub const TAPE_SPOOL_UNFLUSHED: u64 = 64 << 20;
/// How often it is looked whether a reel that the spool waits for is there (milliseconds).
pub const SPOOL_REEL_MS: u64 = 2_000;
/// A part on a reel that cannot be read is tried again for so long, as often (milliseconds).
pub const SPOOL_BAD_MS: u64 = 5_000;
/// The same where a changer showed all that it has: it is asked again after this (milliseconds).
pub const SPOOL_CHANGER_MS: u64 = 60_000;
/// A start waits so long for the list of what is on the spool before it dials (milliseconds).
pub const SPOOL_WAIT_MS: u64 = 10_000;
/// For so long after a start a peer is not given a copy of everything while the spool cannot be read (milliseconds).
pub const SPOOL_UNKNOWN_MS: u64 = 600_000;
/// Parts that one spool may hold.
pub const SPOOL_PARTS_MAX: usize = 1 << 20;
/// So many rounds of the long way round are planned at most.
pub const RESYNC_ROUNDS_MAX: usize = 40;
/// The plan of one has no more than this (bytes).
pub const RESYNC_PLAN_MAX: usize = 256 << 10;
/// So many saves of a node are known at most, the newest ones.
pub const KEPT_SAVES_MAX: usize = 4096;
/// The file that names them has no more than this (bytes).
pub const SAVES_FILE_MAX: usize = 4 << 20;
/// A copy of a file into the journal that failed begins anew after this (milliseconds).
pub const COPY_RETRY_MS: u64 = 10_000;
/// Who waits so long for updates that wait for a segment which cannot be made is told that they may be kept or not
/// (milliseconds).
pub const UNWRITTEN_MS: u64 = 5000;
/// A journal whose disk ends no write for so long although some are under way counts as hanging: who waits for it is told,
/// and updates are refused (milliseconds). Disks that are only slow stay below.
pub const WRITE_HANGS_MS: u64 = 10_000;
/// The longest round of the core is told for so long at least, and twice that at most (milliseconds).
pub const ROUNDS_SHOWN_MS: u64 = 60_000;
/// Messages from other threads to the core that wait at once; senders block above it.
pub const INBOX_MAX: usize = 1024;
/// Descriptors that clients leave for segments, the store, the link and operators.
pub const DESCRIPTORS_RESERVED: usize = 832;
/// Of them, for what has no limit of its own: segments, listening sockets, the log, the driver, files read or replaced.
const DESCRIPTORS_OTHER: usize = 64;
/// Applied updates that are in no table yet: one memtable (bytes). The next update begins another.
pub const STORE_MEMTABLE: usize = 24 << 20;
/// Full memtables that wait to be written to tables; with so many the store takes nothing more.
pub const STORE_FROZEN_MAX: usize = 2;
/// Blocks of tables, of their indexes and of their filters that the store keeps in memory (bytes).
pub const STORE_CACHE: u64 = 48 << 20;
/// A table that is larger is followed by another (bytes).
pub const STORE_TABLE: u64 = 64 << 20;
/// Tables are merged when so many overlap each other ..
pub const STORE_MERGE_RUNS: usize = 12;
/// .. or when those that overlap hold this much (bytes).
pub const STORE_MERGE_BYTES: u64 = 192 << 20;
/// With so many runs of tables that overlap the store takes nothing more until some are merged.
pub const STORE_RUNS_MAX: usize = 24;
/// As much is written anew to be rid of a rotten table, at most (bytes).
pub const STORE_ANEW_MAX: u64 = 4 << 30;
/// A table that is written for that ends behind so much: it must not be split (bytes).
pub const STORE_ANEW_PIECE: usize = 32 << 20;
/// Entries that an estimate of the number of items looks at ..
pub const ESTIMATE_SAMPLES: u64 = 2048;
/// .. of each memtable so many ..
pub const ESTIMATE_SAMPLES_MEMORY: usize = 512;
/// .. and of each run of tables at least so many.
pub const ESTIMATE_SAMPLES_EACH: usize = 32;
/// Threads that read of the store what is not in memory: so many reads are under way at once.
pub const STORE_READERS: usize = 32;
/// Failures of such reads that are kept until what failed is asked for again.
pub const FETCHES_FAILED_MAX: usize = 256;
/// After so many fetches of one read its answer is read at once, however long that takes: memory is so short that what
/// was fetched is gone before it can be used.
pub const FETCH_TRIES_MAX: u32 = 8;
/// Keys of one command that are fetched at once.
pub const FETCH_AHEAD: usize = 32;
/// The list of the store's tables (bytes).
pub const STORE_MANIFEST_MAX: usize = 64 << 20;
/// Updates of a memtable that a scan sorts at once.
pub const STORE_WINDOW_ITEMS: usize = 8192;
/// Sorted parts of a memtable that are kept for the scans that go on from there.
pub const STORE_WINDOWS_MAX: usize = 8;
/// Table files that the store keeps open.
pub const STORE_TABLES_MAX: usize = 256;
/// A silent client is asked for a sign of life by its kernel after this (seconds).
pub const CLIENT_KEEPALIVE_S: u32 = 300;
/// First and least size of a client's receive buffer (bytes).
pub const CLIENT_RECEIVE_MIN: usize = 8 << 10;
/// What the buffer of a client that fills it grows to (bytes).
pub const CLIENT_RECEIVE_MAX: usize = 128 << 10;
/// A connection that was told to go may take this long to read what is left for it (milliseconds).
pub const LINGER_MS: u64 = 5000;
/// Buffers in one send at most; the rest follows with the next.
pub const SEND_PARTS_MAX: usize = 512;
/// A send takes no further buffer when it has so much, so that progress with a slow client is seen (bytes).
pub const SEND_BYTES_MAX: usize = 256 << 10;
/// Link connections held at once, whatever their state.
pub const LINKS_MAX: usize = 64;
/// Of them, accepted ones whose key was not checked yet; the oldest gives way to the next.
pub const LINKS_UNKNOWN_MAX: usize = 16;
/// The same for those that come from the peer's address.
pub const LINKS_PEER_UNKNOWN_MAX: usize = 8;
/// Of them, kept for connections that this node makes.
pub const LINKS_OWN_KEPT: usize = 8;
/// Calls of the peer whose hello is not judged yet, beside the connection that is in use; the oldest gives way.
pub const LINK_CALLERS_MAX: usize = 4;
/// What one of them may send before it is answered: its hello and a beginning or a heartbeat (bytes).
pub const CALLER_BYTES_MAX: usize = 2 * HELLO_PAYLOAD_MAX;
/// Fields behind the name in a hello; more are refused.
pub const HELLO_FIELDS_MAX: usize = 32;
/// A link connection is made and its key checked within this, or dropped (milliseconds).
pub const LINK_HANDSHAKE_MS: u64 = 5000;
/// Addresses of the peer's name that are dialled.
pub const PEER_ADDRESSES_MAX: usize = 16;
/// A node that is called looks its peer's name up no more often than this (milliseconds).
pub const PEER_LOOK_MS: u64 = 30_000;
/// Longest name of a host (bytes).
pub const HOST_NAME_MAX: usize = 253;
/// Making a node waits no longer than this to hear whether its peer's name is known (milliseconds).
pub const NAME_CHECK_MS: u64 = 3000;
/// Reasons for which the peer is not reached that are logged before it is.
pub const DIAL_TROUBLES_TOLD: usize = 16;
/// One receive on a link connection (bytes).
pub const LINK_RECEIVE: usize = 128 << 10;
/// The first one after a large batch, which tells whether another follows: what it takes of that is copied (bytes).
pub const LINK_RECEIVE_LOOK: usize = 4 << 10;
/// A standby that is writing what it has received tells both in one word, when it is written or after so long at the latest,
/// unless an ack level asks for the first alone (milliseconds).
pub const RECEIVED_ACK_MS: u64 = 10;
/// Unacknowledged bytes may stay that long before the kernel gives a link connection up (milliseconds).
pub const LINK_UNACKED_MS: u64 = 15_000;
/// After a failed accept (no descriptors, no memory) none is tried for this long (milliseconds).
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// So long after a failed accept the node says that nobody can connect, unless one can (milliseconds).
pub const ACCEPT_FAILING_MS: u64 = 10 * ACCEPT_PAUSE_MS;
/// Connections that may wait to be accepted on each listening socket.
pub const ACCEPT_BACKLOG: i32 = 1024;
/// Operators' requests under way at once.
pub const ADMIN_PENDING_MAX: usize = 64;
/// An operator's request is answered within this, or said to be still under way (milliseconds).
pub const ADMIN_WAIT_MS: u64 = 60_000;
/// Batches waiting for the store that one call applies together (bytes).
pub const APPLY_MERGE_MAX: usize = 16 << 20;
/// Parts that an answer about the allocation of a volume tells apart; what follows is told as data.
pub const VOLUME_EXTENTS_MAX: usize = 65_536;
/// One write of a volume, which ends where a multiple of this lies in the file (bytes). The page cache takes memory in
/// pieces as large as what is written, and a small write later walks all blocks of the piece that it hits.
pub const VOLUME_WRITE_MAX: usize = 64 << 10;
/// Ranges handed to one write of a volume.
pub const VOLUME_SLICES_MAX: usize = 512;
/// Files with a lowered promise of their own that `status` lists.
pub const LOWERED_SHOWN: usize = 100;
/// Volumes that `status` lists; `file list` has all.
pub const VOLUMES_SHOWN: usize = 100;
/// Files of volumes that are open at once for reading, for writing, and for the sync of a checkpoint: so many each, and as
/// many of their checksums. What was written to one is synced before it is closed.
pub const VOLUME_FILES_MAX: usize = 64;
/// The same for writing and for the sync of a checkpoint where the process may open [`VOLUME_FILES_MANY_FROM`] files: as
/// many as there can be clients of volumes, so that nobody waits for the sync of a file that is closed.
pub const VOLUME_FILES_MANY: usize = NBD_CLIENTS_MAX;
/// Descriptors that it takes besides [`DESCRIPTORS_RESERVED`].
pub const VOLUME_FILES_MORE: usize = 4 * (VOLUME_FILES_MANY - VOLUME_FILES_MAX);
/// See [`VOLUME_FILES_MANY`].
pub const VOLUME_FILES_MANY_FROM: usize = 4096;
/// Records of checksums that are written in one call with those between them (a page of 4 KiB).
pub const VOLUME_SUMS_SPAN: u64 = 512;
/// Ranges of one round that are noted before it is written; a round of more may be anywhere.
pub const VOLUME_ROUND_RANGES_MAX: usize = 4096;
/// What that takes at most (bytes).
pub const VOLUME_ROUND_FILE_MAX: usize = (VOLUME_ROUND_RANGES_MAX + 2) * 24 + 1024;
/// Places of volumes that are found wrong and not told yet; what is found beyond that is told when it is met again.
pub const VOLUME_FOUND_MAX: usize = 1000;
/// Pieces of volumes that a view of one moment knows apart; one that needs more ends, as for want of room.
pub const VIEW_RUNS_MAX: usize = 1 << 20;
/// What a view may hold of items that were written to it (bytes).
pub const VIEW_ITEMS_MAX: usize = 64 << 20;
/// Views at once.
pub const VIEWS_MAX: usize = 8;
/// Clients of one view at once.
pub const VIEW_CLIENTS_MAX: usize = 64;
/// Longest name of a view (bytes).
pub const VIEW_NAME_MAX: usize = 32;
/// A view that is to show what was answered before it was asked for waits so long for the store (milliseconds).
pub const VIEW_WAIT_MS: u64 = 30_000;
/// Files that a node has alone come back from a save under numbers so far ahead of the highest that it tells of: the pair gives
/// fewer between a save and its restore.
pub const RESTORED_IDS_AHEAD: u64 = 1 << 24;
/// Blocks of volumes that are known to be damaged, each told once.
pub const DAMAGED_BLOCKS_MAX: usize = 100_000;
/// One read of a scrub (bytes). Smaller ones cost more than they read, larger ones keep the disk from clients.
pub const SCRUB_PIECE: u64 = 2 << 20;
/// A node that begins does nothing of a scrub that is due for so long (milliseconds).
pub const SCRUB_FIRST_MS: u64 = 600_000;
/// How far a scrub is, is kept so often (milliseconds).
pub const SCRUB_KEEP_MS: u64 = 60_000;
/// A scrub tells how far it is so often (milliseconds), and looks as often whether it shall stop.
pub const SCRUB_TELL_MS: u64 = 100;
/// Threads that read of volumes what is not in memory.
pub const VOLUME_READERS: usize = 2;
/// While batches keep coming, the store's writer lets them collect for so long at most (milliseconds).
pub const APPLY_LINGER_MS: u64 = 20;
/// It looks this often whether they still come (milliseconds).
pub const APPLY_LOOK_MS: u64 = 2;
/// With so much it does not wait for more (bytes).
pub const APPLY_LINGER_BYTES: usize = 1 << 20;
/// After the batches stopped coming it does not linger for so many times at most.
pub const APPLY_PROMPT_MAX: u32 = 64;
const _: () =
    assert!(APPLY_LOOK_MS > 0 && APPLY_LOOK_MS < APPLY_LINGER_MS && APPLY_LINGER_BYTES < APPLY_MERGE_MAX);
/// Items of dropped files that are deleted between two looks for other work.
pub const PURGE_STEP: usize = 1024;
/// Freed memory that the node keeps for what comes next (bytes).
pub const FREED_KEPT: usize = 32 << 20;
/// Of it, the largest piece: room for one read of the journal (bytes).
pub const FREED_KEPT_EACH: usize = 2 << 20;
/// A start waits so long for an address that somebody listens on (milliseconds): a process that was killed holds it for a
/// moment after its end.
pub const LISTEN_AGAIN_MS: u64 = 2_000;
/// From the wish to stop to the end of the loop at most (milliseconds).
pub const STOP_MS: u64 = 10_000;
/// After the engine stopped, answers still on their way may take this long (milliseconds).
pub const STOP_FLUSH_MS: u64 = 500;
/// After the loop ended, the other threads may take this long (milliseconds).
pub const STOP_JOIN_MS: u64 = 5000;
/// A command that changes something waits no longer than this for a node that is starting (milliseconds).
pub const COMMAND_WAIT_MAX_MS: u64 = 86_400_000;
/// It says so after this (milliseconds) ..
pub const COMMAND_WAIT_TELL_MS: u64 = 1000;
/// .. and looks again this often (milliseconds).
pub const COMMAND_LOOK_MS: u64 = 50;
/// Notes of the core that wait to be written down; above it they are counted and dropped.
pub const NOTES_MAX: usize = 1024;
/// While a node starts, the service manager is told how far it is this often (milliseconds) ..
pub const START_TELL_MS: u64 = 1000;
/// .. and asked for so much time from then on, if it got on (milliseconds).
pub const START_EXTEND_MS: u64 = 60_000;
/// Log lines that wait for stderr; above it they are counted and dropped.
pub const LOG_LINES_MAX: usize = 1024;
/// One log line (bytes).
pub const LOG_LINE_MAX: usize = 8 << 10;
/// Warnings and errors of one place in the source logged at once; then one each [`REPEAT_QUIET_MS`].
pub const LOG_BURST: u32 = 4;
/// The same for notes that all goes well.
pub const LOG_BURST_INFO: u32 = 64;
/// A stderr that takes nothing now is tried again after this (milliseconds).
pub const LOG_RETRY_MS: u64 = 20;
/// At its end a process waits so long at most for its last log lines to be written (milliseconds).
pub const LOG_FLUSH_MS: u64 = 500;
/// The incident file is put aside at this size; one old one is kept (bytes).
pub const INCIDENT_FILE_MAX: u64 = 8 << 20;
/// A user who may not ask at the admin socket may take this long to send what it came with (milliseconds).
pub const ADMIN_REFUSED_MS: u64 = 500;
/// Such users at once; more are closed at once.
pub const ADMIN_REFUSED_MAX: usize = 8;
/// Longest config file (bytes).
pub const CONFIG_FILE_MAX: usize = 64 << 10;
/// Longest file of a key, certificate or list of peers (bytes).
pub const KEY_FILE_MAX: usize = 64 << 10;
/// Longest file whose first line is a password (bytes).
pub const PASSWORD_FILE_MAX: usize = 4096;
/// Longest file in which a licence is looked for: a whole mail (bytes).
pub const LICENCE_FILE_MAX: usize = 256 << 10;
/// Longest name of the customer of a licence (bytes).
pub const LICENCE_CUSTOMER_MAX: usize = 60;
/// The last day that a licence may name: 9999-12-31 (days since 1970).
pub const LICENCE_DAY_MAX: u64 = 2_932_896;
/// A primary that was granted no lease says so after this (milliseconds).
pub const LEASE_LACK_MS: u64 = 2000;
/// A lease is granted for no longer than this at once (milliseconds).
pub const LEASE_MS_MAX: u64 = 3_600_000;
/// A grant that is shorter is a renewal by an engine that decides, and not noted as what somebody changed (milliseconds).
pub const LEASE_RENEWAL_MS: u64 = 600_000;
/// A call to one member of etcd is connected within this (milliseconds).
pub const ETCD_CONNECT_MS: u64 = 1000;
/// An answer of etcd is read up to here (bytes).
pub const ETCD_ANSWER_MAX: usize = 1 << 20;
/// A watch waits for its node's answer for so long (milliseconds).
pub const WATCH_ASK_MS: u64 = 1000;
/// It looks so often whether the node's process lives (milliseconds).
pub const WATCH_LOOK_MS: u64 = 20;
/// It tries again after this (milliseconds).
pub const WATCH_RETRY_MS: u64 = 200;
/// A takeover first applies what was received, which may be much (seconds).
pub const WATCH_TAKEOVER_S: u64 = 3600;
/// For so long a node replicates as ever without a good licence (days).
pub const LICENCE_GRACE_DAYS: u64 = 30;
/// People are reminded of the end of a licence when so many days are left, and so many, and so many.
pub const LICENCE_REMIND_DAYS: [u64; 3] = [1, 7, 30];
/// A new licence is noticed within this time (milliseconds).
pub const LICENCE_LOOK_MS: u64 = 2_000;
/// And the licence is tested so often in any case (milliseconds).
pub const LICENCE_TEST_MS: u64 = 86_400_000;
/// Wrong codes while two machines are introduced, after which the code does not count any more: with eight digits a
/// stranger is let in once in thirty million.
pub const PAIRING_TRIES: u32 = 3;
/// Callers that are listened to while a code counts.
pub const PAIRING_CALLERS_MAX: usize = 64;
/// What one of them may take (milliseconds).
pub const PAIRING_CALL_MS: u64 = 10_000;
/// The first machine may take so long to call back (milliseconds).
pub const PAIRING_WAY_BACK_MS: u64 = 3_000;
/// A machine that is not there yet is called again after this (milliseconds).
pub const PAIRING_RETRY_MS: u64 = 200;
/// Longest file in which the system tells what this machine is called (bytes).
pub const HOST_FILE_MAX: usize = 4096;
/// Lines of a command's output that the menu keeps.
pub const MENU_LINES_MAX: usize = 2000;
/// The longest line of them (bytes).
pub const MENU_LINE_MAX: usize = 4096;
/// The longest value in a form of the menu (bytes).
pub const MENU_FIELD_MAX: usize = 512;
/// The menu looks for keys and output this often (milliseconds).
pub const MENU_POLL_MS: u64 = 50;
/// And at the node this often (milliseconds).
pub const MENU_LOOK_MS: u64 = 1_000;
/// Longest control file (bytes).
pub const CONTROL_FILE_MAX: usize = 1 << 20;
/// The longest line of JSON that an item can make: each byte as a six-byte escape (bytes).
pub const JSON_LINE_MAX: usize = (ITEM_VALUE_MAX + ITEM_ID_MAX) * 6 + 4096;
/// The longest line of text that an item can make: id, tab and value (bytes).
pub const TEXT_LINE_MAX: usize = ITEM_ID_MAX + 1 + ITEM_VALUE_MAX;
/// The longest row of a table that an item can make: each byte may be a quote, which is doubled (bytes).
pub const TABLE_ROW_MAX: usize = (ITEM_VALUE_MAX + ITEM_ID_MAX) * 2 + 4096;
/// The first row of a table, with the names of its columns (bytes).
pub const TABLE_HEAD_MAX: usize = 1 << 20;
/// Columns of a table.
pub const TABLE_COLUMNS_MAX: usize = 4096;
/// An answer at the terminal, or an identity on stdin (bytes).
pub const ANSWER_MAX: usize = 64 << 10;
/// A file in which the system tells of itself (bytes).
pub const SYSTEM_FILE_MAX: usize = 16 << 20;
/// One read of the walk over the journal at a start (bytes).
pub const RECOVERY_READ: usize = 1 << 20;

const _: () = assert!(
    STORE_TABLES_MAX + 6 * VOLUME_FILES_MAX + LINKS_MAX + ADMIN_PENDING_MAX + DESCRIPTORS_OTHER
        <= DESCRIPTORS_RESERVED
);
const _: () = assert!(ITEM_VALUE_MAX + ITEM_ID_MAX + 4096 < BATCH_MAX);
const _: () = assert!(STORE_ANEW_PIECE + ITEM_VALUE_MAX + ITEM_ID_MAX < 60 << 20);
const _: () = assert!(STORE_ANEW_MAX >> 25 < 200 && STORE_ANEW_PIECE == 1 << 25);
const _: () = assert!(BATCH_SOFT <= BATCH_MAX);
const _: () = assert!(BLOCK_QUEUE_MAX < QUEUE_MAX && BLOCK_UNAPPLIED_MAX < UNAPPLIED_MAX);
const _: () = assert!(BLOCK_PAYLOAD_MAX <= ITEM_VALUE_MAX && BLOCK_PAYLOAD_MAX + 4096 <= GROUP_MAX);
const _: () = assert!(RESP_REQUEST_MAX > BATCH_MAX && RESP_REQUEST_MAX < CLIENTS_MEMORY_MAX);
const _: () = assert!(CLIENT_REPLY_MAX > ITEM_VALUE_MAX && CLIENT_REPLY_MAX < CLIENTS_MEMORY_MAX);
const _: () = assert!(LINKS_UNKNOWN_MAX + LINKS_PEER_UNKNOWN_MAX + LINKS_OWN_KEPT < LINKS_MAX);
const _: () = assert!(BATCH_MAX.is_multiple_of(BLOCK));
const _: () = assert!(NBD_CLIENTS_MAX * NBD_OUT_FREE + NBD_READS_ALL_MAX <= NBD_OUT_ALL_MAX);
const _: () = assert!(NBD_CLIENTS_MAX * NBD_OUT_FREE + NBD_READS_MAX <= NBD_READS_ALL_MAX);
const _: () = assert!(NBD_OUT_MAX + NBD_READS_MAX + NBD_LIST_MAX <= NBD_READS_ALL_MAX);
const _: () =
    assert!(NBD_READS_MAX == 32 << 20 && NBD_REQUEST_MAX == 32 << 20 && NBD_READS_MAX <= NBD_READS_ALL_MAX);
const _: () =
    assert!(REEL_LABEL < REEL_BLOCK_MIN && REEL_BLOCK_MIN < REEL_BLOCK && REEL_BLOCK < REEL_BLOCK_MAX);
