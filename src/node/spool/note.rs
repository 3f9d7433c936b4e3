//! The spool that an operator chose with `spool start` or `spool stop`: it holds over restarts, as long as the config says what
//! it said then.

use crate::base::limits::CONFIG_FILE_MAX;
use crate::engine::{SpoolConfig, SpoolMode};
use crate::node::layout::{Layout, OwnName};
use std::io;

/// What the config says of place and mode.
fn configured(config: &SpoolConfig) -> String {
    format!("{} {}", config.mode.name(), config.place)
}

/// Keeps the choice, durably.
pub(super) fn keep(layout: &Layout, config: &SpoolConfig, place: &str, mode: SpoolMode) -> io::Result<()> {
    let text = format!("{}\n{}\n{place}\n", configured(config), mode.name());
    layout.own(OwnName::Spool).replace(text.as_bytes())
}

/// The spool of a node: the one that an operator chose, unless the config was changed since.
pub(in crate::node) fn chosen(layout: &Layout, config: &SpoolConfig) -> SpoolConfig {
    let text = layout.read_text(&layout.spool(), false, CONFIG_FILE_MAX).unwrap_or_default();
    let mut lines = text.lines();
    let (then, mode, place) = (lines.next(), lines.next(), lines.next().unwrap_or_default());
    let modes = [SpoolMode::Auto, SpoolMode::Always, SpoolMode::Off];
    match modes.into_iter().find(|known| Some(known.name()) == mode) {
        Some(mode) if then == Some(configured(config).as_str()) => {
            SpoolConfig { place: place.to_owned(), mode, ..config.clone() }
        }
        _ => config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_holds_until_the_config_says_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let config = SpoolConfig::default();
        assert_eq!(chosen(&layout, &config), config, "nobody chose");
        keep(&layout, &config, "file:/mnt/spool", SpoolMode::Always).unwrap();
        let started =
            SpoolConfig { place: "file:/mnt/spool".into(), mode: SpoolMode::Always, ..config.clone() };
        assert_eq!(chosen(&layout, &config), started);
        let other = SpoolConfig { place: "file:/other".into(), ..config.clone() };
        assert_eq!(chosen(&layout, &other), other, "the config was changed since");
        keep(&layout, &other, "file:/other", SpoolMode::Off).unwrap();
        assert!(!chosen(&layout, &other).is_on());
    }
}
