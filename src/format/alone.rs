//! What a save set of version 3 holds beside what is replicated: the files that its node has alone, as they were at the end of
//! the set's history, behind which nothing of that history follows.
//!
//! **Alone**, a block behind all batches; the chunks behind it are of its files. Node and command use it, too.
//!
//! | size | field |
//! |---|---|
//! | 8 | the last entry of the node's local journal that it shows |
//! | 4 | number of files that are left out, then u16, `account,file` for each |
//! | .. | a [`CopyBegin`] at the end of the history, with these files and the accounts that hold them alone |
//!
//! **Part of the trailer**, behind its list of files
//!
//! | size | field |
//! |---|---|
//! | 4 | number of files with content, then each as in the trailer |
//! | 4 | number of files with their definition alone, then u16, `account,file` for each |
//! | 4 | number of files that are left out, then u16, `account,file` for each |
//!
//! Golden file: `tests/data/set-v3.hbs`.

use super::chunk::CopyBegin;
use super::set::{SetFile, put_files, put_names, take_files, take_names};
use super::{DecodeError, Reader, Writer};
use crate::base::Seq;
use bytes::Bytes;

/// What a node has alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// The last entry of the local journal.
    pub at: Seq,
    /// Files that are not in the set.
    pub left_out: Vec<String>,
    /// Where the history ends, and the definitions.
    pub copy: CopyBegin,
}

/// What a set's end tells of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AloneFiles {
    /// Files with their content.
    pub files: Vec<SetFile>,
    /// Files with their definition and no content.
    pub defined: Vec<String>,
    /// Files that are not in the set.
    pub left_out: Vec<String>,
}

impl Alone {
    /// The payload's bytes.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] where there are more definitions than fit.
    ///
    /// # Panics
    /// If a name is longer than [`super::super::base::limits::SET_NAME_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let copy = self.copy.encode()?;
        let mut w = Writer::with_capacity(copy.len() + 64);
        w.u64(self.at.0);
        put_names(&mut w, &self.left_out);
        w.put(&copy);
        Ok(w.into_bytes())
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("what a node has alone", payload);
        let at = Seq(r.number("entry of the local journal")?);
        let left_out = take_names(&mut r)?;
        let copy = CopyBegin::decode(&payload.slice_ref(r.rest()))?;
        Ok(Self { at, left_out, copy })
    }
}

impl AloneFiles {
    pub(super) fn put(&self, w: &mut Writer) {
        put_files(w, &self.files);
        put_names(w, &self.defined);
        put_names(w, &self.left_out);
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { files: take_files(r)?, defined: take_names(r)?, left_out: take_names(r)? })
    }
}

/// Decodes any bytes as what a node has alone.
pub fn fuzz_alone(bytes: &[u8]) {
    if let Ok(alone) = Alone::decode(&Bytes::copy_from_slice(bytes)) {
        let again = alone.encode().expect("it fitted");
        assert_eq!(Alone::decode(&again.into()), Ok(alone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::FileId;

    #[test]
    fn what_a_node_has_alone_reads_back_and_no_cut_or_change_of_it_panics() {
        let alone = Alone { at: Seq(7), left_out: vec!["own,x".to_owned()], copy: CopyBegin::default() };
        let bytes = alone.encode().unwrap();
        assert_eq!(Alone::decode(&bytes.clone().into()), Ok(alone));
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            fuzz_alone(&other);
            fuzz_alone(&bytes[..bit / 8]);
        }
        let file = SetFile { id: FileId(4), blocks: true, items: 0, bytes: 9, name: "own,disk".to_owned() };
        let (defined, left_out) = (vec!["own,y".to_owned()], vec!["own,x".to_owned()]);
        let files = AloneFiles { files: vec![file], defined, left_out };
        let mut w = Writer::with_capacity(64);
        files.put(&mut w);
        let bytes = w.into_bytes();
        let mut r = Reader::new("files", &bytes);
        assert_eq!((AloneFiles::take(&mut r), r.rest().len()), (Ok(files), 0));
        for cut in 0..bytes.len() {
            assert!(AloneFiles::take(&mut Reader::new("files", &bytes[..cut])).is_err(), "{cut}");
        }
    }
}
