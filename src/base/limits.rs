//! Every limit of the product in one place. A queue, buffer, retry or loop without a line here is a defect.

/// Disk block: batches start and end on it, O_DIRECT needs it (bytes).
pub const BLOCK: usize = 4096;
/// The same, for offsets in files.
pub const BLOCK_U64: u64 = 4096;
/// Longest item id (bytes). An id has at least one byte.
pub const ITEM_ID_MAX: usize = 255;
/// Longest item value (bytes).
pub const ITEM_VALUE_MAX: usize = 16 << 20;
/// Longest account, file or node name (bytes).
pub const NAME_MAX: usize = 128;
/// A batch is sealed when it has reached this size, even if more is queued (bytes).
pub const BATCH_SOFT: usize = 1 << 20;
/// No batch is larger; a transaction that needs more is refused (bytes).
pub const BATCH_MAX: usize = 32 << 20;
/// Entries in one batch at most.
pub const BATCH_ENTRIES_MAX: u32 = 1 << 20;
/// Payload of a link frame at most (bytes).
pub const FRAME_PAYLOAD_MAX: usize = BATCH_MAX;
/// Payload of a frame before the peer's hello was accepted (bytes).
pub const HELLO_PAYLOAD_MAX: usize = 4096;
/// Epochs told in a hello, newest last.
pub const HELLO_EPOCHS_MAX: usize = 64;
/// Epochs remembered in the control file.
pub const EPOCH_TABLE_MAX: usize = 1024;
/// Updates queued or being written, not yet durable; above it clients are read no further (bytes).
pub const QUEUE_MAX: usize = 48 << 20;
/// Sealed batches held in memory until the store has applied them; above it clients wait (bytes).
pub const UNAPPLIED_MAX: usize = 64 << 20;
/// Sealed batches kept in memory for the link; older ones are read back from the journal (bytes).
pub const LIVE_WINDOW_MAX: usize = 24 << 20;
/// What a receiver lets its sender have under way (bytes).
pub const CREDIT_WINDOW: u64 = 32 << 20;
/// One read of the journal for catch-up or replay (bytes). Must hold a whole batch, see [`BATCH_MAX`].
pub const READ_CHUNK: usize = 1 << 20;
/// Client connections at once.
pub const CLIENTS_MAX: usize = 10_000;
/// Unsent replies of one client; above it the client is read no further (bytes).
pub const CLIENT_OUT_MAX: usize = 1 << 20;
/// Arguments of one RESP command.
pub const RESP_ARGS_MAX: usize = 1 << 20;
/// Commands queued in one MULTI.
pub const MULTI_MAX: usize = 100_000;
/// Recent incidents kept in memory for status.
pub const INCIDENTS_MAX: usize = 256;
/// Journal segment: default, least and most (bytes).
pub const SEGMENT_DEFAULT: u64 = 64 << 20;
/// See [`SEGMENT_DEFAULT`].
pub const SEGMENT_MIN: u64 = 64 << 10;
/// See [`SEGMENT_DEFAULT`].
pub const SEGMENT_MAX: u64 = 4 << 30;

const _: () = assert!(ITEM_VALUE_MAX + ITEM_ID_MAX + 4096 < BATCH_MAX);
const _: () = assert!(BATCH_SOFT <= BATCH_MAX);
const _: () = assert!(BATCH_MAX.is_multiple_of(BLOCK));
