//! Which drive, or which files in its place.

use super::tap::parent_of;
use crate::tape::{Allowed, Key};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where reels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A drive: `/dev/nst0`.
    Device(PathBuf),
    /// An image for each reel: before and behind its number, and the digits of that at least.
    Images(String, usize, String),
    /// One image at a time, which somebody or something changes, as in a drive.
    Image(PathBuf),
}

impl Place {
    /// Of what stands behind `tape:`.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected tape:/dev/nst0 or tape:PATH, such as tape:/backup/reel-%03d.tap".to_owned());
        }
        if let Some((before, rest)) = text.split_once('%') {
            let digits = rest.split('d').next().unwrap_or_default();
            let width = if digits.is_empty() { Ok(0) } else { digits.parse::<usize>() };
            let behind = rest.get(digits.len() + 1..);
            return match (width, behind) {
                (Ok(width @ ..=9), Some(behind)) if !behind.contains('%') => {
                    Ok(Self::Images(before.to_owned(), width, behind.to_owned()))
                }
                _ => Err("expected one %d or %03d, which stands for the number of the reel".to_owned()),
            };
        }
        let path = PathBuf::from(text);
        let device = std::fs::metadata(&path).is_ok_and(|found| found.file_type().is_char_device());
        Ok(if device || path.starts_with("/dev") { Self::Device(path) } else { Self::Image(path) })
    }

    /// The file of a reel.
    #[must_use]
    pub fn path(&self, reel: u32) -> PathBuf {
        match self {
            Self::Device(path) | Self::Image(path) => path.clone(),
            Self::Images(before, width, behind) => format!("{before}{reel:0width$}{behind}").into(),
        }
    }

    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Device(path) | Self::Image(path) => format!("tape:{}", path.display()),
            Self::Images(before, 0, behind) => format!("tape:{before}%d{behind}"),
            Self::Images(before, width, behind) => format!("tape:{before}%0{width}d{behind}"),
        }
    }

    /// Where what is kept of it lies: a directory, and what names of files begin with. `dir` is the
    /// node's, for a drive; without one it is the current directory.
    #[must_use]
    pub fn notes(&self, dir: Option<&Path>) -> (PathBuf, String) {
        let beside = |path: &Path, name: String| (parent_of(path).to_owned(), name);
        let name_of = |path: &Path| {
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        match self {
            Self::Device(path) => {
                let dir = dir.unwrap_or_else(|| Path::new(".")).to_owned();
                (dir, format!("tape-{}-", name_of(path)))
            }
            Self::Image(path) => beside(path, format!("{}-", name_of(path))),
            Self::Images(before, ..) => {
                let path = PathBuf::from(format!("{before}x"));
                let name = name_of(&path);
                let stem = name.strip_suffix('x').unwrap_or_default();
                beside(&path, if stem.is_empty() { "reel-".to_owned() } else { stem.to_owned() })
            }
        }
    }
}

/// How a command deals with reels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapeOptions {
    /// Where they are.
    pub place: Place,
    /// The node's directory, if one was named.
    pub dir: Option<PathBuf>,
    /// The catalogue, if it is not where it is by default.
    pub catalogue: Option<PathBuf>,
    /// How long an operator may take to bring a reel; none is for ever.
    pub wait: Option<Duration>,
    /// A command that changes reels, with `%o`, `%S`, `%a`, `%d`, `%c` in it.
    pub changer: Option<String>,
    /// What may be written to.
    pub allowed: Allowed,
    /// The key.
    pub key: Option<Key>,
    /// Hears what people should know.
    pub teller: Teller,
    /// Hears of flags that a drive sets.
    pub alarm: Alarm,
}

/// Hears of TapeAlert flags, each when it is set anew.
#[derive(Clone)]
pub struct Alarm {
    hear: std::sync::Arc<dyn Fn(Vec<u8>) + Send + Sync>,
    /// As the drive told them last.
    last: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Alarm {
    /// Which does this with them.
    pub fn new(hear: impl Fn(Vec<u8>) + Send + Sync + 'static) -> Self {
        Self { hear: std::sync::Arc::new(hear), last: std::sync::Arc::default() }
    }

    /// These are set now.
    pub(super) fn read(&self, flags: &[u8]) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fresh: Vec<u8> = flags.iter().copied().filter(|flag| !last.contains(flag)).collect();
        flags.clone_into(&mut last);
        drop(last);
        if !fresh.is_empty() {
            (self.hear)(fresh);
        }
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Alarm")
    }
}

/// Who hears of it changes nothing of what is done.
impl PartialEq for Alarm {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Alarm {}

/// Hears what people should know.
#[derive(Clone)]
pub struct Teller(std::sync::Arc<dyn Fn(&str) + Send + Sync>);

impl Teller {
    /// Which does this with it.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(std::sync::Arc::new(tell))
    }

    pub(in crate::node) fn tell(&self, text: &str) {
        (self.0)(text);
    }
}

impl Default for Teller {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Teller")
    }
}

/// Who hears of it changes nothing of what is done.
impl PartialEq for Teller {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Teller {}

impl TapeOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self {
            place,
            dir: None,
            catalogue: None,
            wait: None,
            changer: None,
            allowed: Allowed::default(),
            key: None,
            teller: Teller::default(),
            alarm: Alarm::default(),
        }
    }

    /// A file that is kept beside the reels, by the end of its name.
    #[must_use]
    pub(super) fn note(&self, what: &str) -> (PathBuf, String) {
        if let Some(path) = self.catalogue.as_ref() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let name = if what == super::catalogue::NAME { name } else { format!("{name}.{what}") };
            return (parent_of(path).to_owned(), name);
        }
        let (dir, stem) = self.place.notes(self.dir.as_deref());
        (dir, format!("{stem}{what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_heard_of_when_it_is_set_and_again_only_after_it_was_not() {
        let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let to = std::sync::Arc::clone(&heard);
        let alarm = Alarm::new(move |flags| to.lock().unwrap().push(flags));
        for flags in [&[][..], &[20], &[20, 3], &[20, 3], &[], &[20]] {
            alarm.clone().read(flags);
        }
        assert_eq!(*heard.lock().unwrap(), [vec![20], vec![3], vec![20]]);
    }

    #[test]
    fn places_are_a_drive_a_row_of_images_or_one_image_at_a_time() {
        let place = Place::parse("/backup/reel-%03d.tap").unwrap();
        assert_eq!(place.path(7), Path::new("/backup/reel-007.tap"));
        assert_eq!(place.name(), "tape:/backup/reel-%03d.tap");
        assert_eq!(place.notes(None), (PathBuf::from("/backup"), "reel-".to_owned()));
        assert_eq!(Place::parse("r%d").unwrap().path(12), Path::new("r12"));
        assert_eq!(Place::parse("/dev/nst0"), Ok(Place::Device("/dev/nst0".into())));
        let one = Place::parse("x/drive.tap").unwrap();
        assert_eq!((one.path(3), one.notes(None).1.as_str()), (PathBuf::from("x/drive.tap"), "drive.tap-"));
        for bad in ["", "a%sb", "a%d%d", "a%", "a%1000d"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
        let mut options = TapeOptions::new(Place::parse("/backup/reel-%03d.tap").unwrap());
        assert_eq!(options.note("catalogue.json").1, "reel-catalogue.json");
        options.catalogue = Some("/x/c.json".into());
        assert_eq!(options.note("catalogue.json"), (PathBuf::from("/x"), "c.json".to_owned()));
        assert_eq!(options.note("request.json"), (PathBuf::from("/x"), "c.json.request.json".to_owned()));
    }
}
