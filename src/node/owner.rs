//! Whose a node is: root, who may do everything, would leave files that the node's own user cannot read.

use super::layout::Layout;
use super::setup::SetupError;
use nix::unistd::{Uid, User, geteuid};
use std::os::unix::fs::MetadataExt;

/// Refuses root in the directory of another user's node; a directory that is not there is nobody's.
///
/// # Errors
/// [`SetupError::NotRoots`], which says how to become that user. Nothing was changed.
pub(in crate::node) fn check_owner(layout: &Layout, verb: &'static str) -> Result<(), SetupError> {
    match std::fs::metadata(layout.dir()) {
        Ok(found) => check(layout, verb, geteuid(), Uid::from_raw(found.uid())),
        Err(_) => Ok(()),
    }
}

fn check(layout: &Layout, verb: &'static str, own: Uid, owner: Uid) -> Result<(), SetupError> {
    if !own.is_root() || owner.is_root() {
        return Ok(());
    }
    let user = User::from_uid(owner).ok().flatten().map_or_else(|| format!("#{owner}"), |user| user.name);
    Err(SetupError::NotRoots { dir: layout.dir().to_owned(), user, verb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_sent_to_the_user_whose_node_it_is() {
        let layout = Layout::new("/x");
        let [root, other] = [0, 4_000_000_000].map(Uid::from_raw);
        for (own, owner, good) in
            [(root, root, true), (other, root, true), (other, other, true), (root, other, false)]
        {
            assert_eq!(check(&layout, "serve", own, owner).is_ok(), good, "{own} {owner}");
        }
        let error = check(&layout, "serve", root, other).unwrap_err();
        assert_eq!(error.to_string(), "using /x as root: it belongs to user #4000000000");
        let next = error.next();
        assert!(next.contains("runuser -u '#4000000000' -- hot-backup serve --dir /x"), "{next}");
    }
}
