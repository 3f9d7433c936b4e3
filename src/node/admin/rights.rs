//! Who may ask what. The node's user and root may ask anything; members of the group of `admin_group` may look, by a socket
//! of their own.

use super::Ucred;
use crate::engine::admin::{AdminReply, AdminRequest};

/// What a caller may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Anything.
    All,
    /// What changes nothing and takes no content away: [`AdminRequest::only_looks`].
    Look,
}

/// What a user may ask a daemon that runs as `own`, by a socket for the members of `group`; `None` is nothing. `gid` and
/// `groups` are all groups of the caller.
pub(super) fn right(uid: u32, gid: u32, groups: &[u32], own: u32, group: Option<u32>) -> Option<May> {
    if uid == own || uid == 0 {
        return Some(May::All);
    }
    let member = group.is_some_and(|group| gid == group || groups.contains(&group));
    member.then_some(May::Look)
}

/// Why a caller is not answered, if it may not ask that.
#[must_use]
pub fn refusal(request: &AdminRequest, caller: Ucred) -> Option<AdminReply> {
    if caller.may == May::All || request.only_looks() {
        return None;
    }
    let verb = serde_json::to_value(request).unwrap_or_default();
    let verb = verb.get("verb").and_then(serde_json::Value::as_str).unwrap_or("this").to_owned();
    Some(AdminReply::Error {
        message: format!(
            "asking the node: user {} may only look, as a member of its `admin_group`, and {verb} changes something or \
             takes content away",
            caller.uid
        ),
        next: "run this as the user that the node runs as, or as root".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_user_and_root_may_all_members_of_the_group_may_look_and_nobody_else_anything() {
        let own = 990;
        for group in [None, Some(50)] {
            assert_eq!(right(own, 1, &[], own, group), Some(May::All));
            assert_eq!(right(0, 0, &[], own, group), Some(May::All));
            assert_eq!(right(1000, 1000, &[4, 51], own, group), None);
        }
        // By the first group or by another one; only where there is a socket for it.
        assert_eq!(right(1000, 50, &[], own, Some(50)), Some(May::Look));
        assert_eq!(right(1000, 1000, &[4, 50, 51], own, Some(50)), Some(May::Look));
        assert_eq!(right(1000, 50, &[50], own, None), None);
    }

    #[test]
    fn who_may_only_look_is_refused_what_changes_something_by_name() {
        let caller = |may| Ucred { uid: 1000, gid: 50, pid: 1, may };
        let takeover = |dry_run| AdminRequest::Takeover {
            peer_is_down: true,
            dry_run,
            accept_loss: false,
            now: false,
            incomplete: false,
            epoch: None,
        };
        let refused = |request: AdminRequest, may| refusal(&request, caller(may));
        for request in [AdminRequest::Status, AdminRequest::Stats, AdminRequest::Queue, takeover(true)] {
            assert_eq!(refused(request, May::Look), None);
        }
        let save = AdminRequest::Save { account: None, rate: None, since: false, alone: false };
        for request in [takeover(false), save, AdminRequest::StartAlone, AdminRequest::ScrubStop] {
            assert_eq!(refused(request.clone(), May::All), None);
            assert!(refused(request, May::Look).is_some());
        }
        let Some(AdminReply::Error { message, .. }) = refused(AdminRequest::StartAlone, May::Look) else {
            panic!("a refusal")
        };
        assert!(
            message.contains("user 1000 may only look") && message.contains("start-alone changes"),
            "{message}"
        );
    }
}
