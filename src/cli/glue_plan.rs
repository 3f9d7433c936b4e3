//! What the long way round asks of the node's parts.

use super::failure::Failure;
use super::glue::{PartStore, Past, PastSource, Place, TapeOptions, Until};
use crate::base::Position;
use crate::format::spool::PartHeader;
use crate::node::restore_more;
use crate::node::resync_plan::{self, PlanError};
pub(crate) use crate::node::resync_plan::{
    Carried, Carrier, Endless, Forecast, Given, Next, Pace, Plan, Step, now_ms, takes,
};
use crate::node::spool::{self, RoundError};
pub(crate) use crate::node::spool::{RoundPlace, Written};
use crate::node::tape::CatalogueFile;
use std::path::{Path, PathBuf};

fn plan_failure(error: &PlanError) -> Failure {
    let next = match error {
        PlanError::Setup(error) => error.next(),
        _ => "begin a new plan: hot-backup resync plan --again --to ..".to_owned(),
    };
    Failure::error(error.to_string(), next)
}

/// The plan of the node in `dir`.
pub(crate) fn plan(dir: &Path) -> Result<Option<Plan>, Failure> {
    resync_plan::load(dir).map_err(|error| plan_failure(&error))
}

/// Keeps it.
pub(crate) fn keep(dir: &Path, plan: &Plan) -> Result<(), Failure> {
    resync_plan::keep(dir, plan).map_err(|error| plan_failure(&error))
}

fn round_failure(error: &RoundError) -> Failure {
    Failure::error(error.to_string(), error.next())
}

/// The parts of a spool behind an entry.
pub(crate) fn parts_behind(store: &PartStore, entry: u64) -> Result<Vec<PartHeader>, Failure> {
    spool::parts_behind(store, entry).map_err(|error| round_failure(&error))
}

/// Writes them to a place.
pub(crate) fn write_round(
    store: &mut PartStore,
    parts: &[PartHeader],
    place: &RoundPlace,
    told: &mut dyn FnMut(u64),
) -> Result<Written, Failure> {
    spool::write_round(store, parts, place, told).map_err(|error| round_failure(&error))
}

/// Reels on which the node in `dir` writes a round.
pub(crate) fn on_reels(dir: &Path, options: &TapeOptions, size: Option<u64>) -> Result<RoundPlace, Failure> {
    let order = spool::reels_for_round(dir, options, size).map_err(|why| {
        Failure::error(format!("writing to {}: {why}", options.place.name()), "see: hot-backup tape --help")
    })?;
    Ok(RoundPlace::Reels(Box::new(order)))
}

/// The catalogue of the reels at a place, if there is one; of anything else there is none.
pub(crate) fn catalogue_of(dir: &Path, place: &str) -> Option<PathBuf> {
    let place = place.strip_prefix(spool::TAPE)?;
    let place = Place::parse(place.strip_suffix(REELS_OF_SPOOL).unwrap_or(place)).ok()?;
    let options = TapeOptions { dir: Some(dir.to_owned()), ..TapeOptions::new(place) };
    CatalogueFile::load(&options).ok().filter(|file| file.found).map(|file| file.path())
}

/// What stands behind the name of reels with parts of a spool.
pub(crate) const REELS_OF_SPOOL: &str = "#spool";

/// Gives the restored node in `dir` more of what came after its save; where it stood, and what came.
pub(crate) fn restore_more(
    dir: &Path,
    what: (&[PastSource], Until),
    dry_run: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<(Position, Past), Failure> {
    let more = restore_more::restore_more(dir, what, dry_run, progress);
    more.map(|more| (more.from, more.past)).map_err(|error| super::glue::restore_failure(&error))
}
