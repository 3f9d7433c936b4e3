//! Where Redis clients reach the peer: what a node tells of itself in its hello, and what is made of that.

use std::net::{IpAddr, SocketAddr};

/// Which of its doors a node tells: one that others can reach rather than one of its own machine.
pub(in crate::engine) fn told(doors: &[SocketAddr]) -> Option<SocketAddr> {
    doors.iter().copied().min_by_key(|door| is_loopback(door.ip()))
}

/// Host and port that clients of this node are shown. A door at every address is at the peer's own; one of the peer's
/// machine alone is of use only if that is this machine too.
pub(super) fn shown(told: SocketAddr, peer_host: &str) -> Option<(String, u16)> {
    let ip = told.ip().to_canonical();
    if ip.is_unspecified() {
        return Some((peer_host.to_owned(), told.port()));
    }
    let here = peer_host == "localhost" || peer_host.parse().is_ok_and(is_loopback);
    (!is_loopback(ip) || here).then(|| (ip.to_string(), told.port()))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_told_and_shown_only_where_it_can_be_reached() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let doors = ["127.0.0.1:6379", "10.0.0.2:6380", "0.0.0.0:6381"].map(address);
        assert_eq!(told(&doors), Some(address("10.0.0.2:6380")));
        assert_eq!(told(&doors[..1]), Some(address("127.0.0.1:6379")));
        assert_eq!(told(&[]), None);
        let shown =
            |told: &str, host: &str| shown(address(told), host).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(shown("10.0.0.2:6380", "10.9.9.9").unwrap(), "10.0.0.2 6380");
        assert_eq!(shown("0.0.0.0:6381", "10.0.0.2").unwrap(), "10.0.0.2 6381");
        assert_eq!(shown("[::]:6381", "standby.example").unwrap(), "standby.example 6381");
        assert_eq!(shown("127.0.0.1:6379", "10.0.0.2"), None);
        assert_eq!(shown("127.0.0.1:6379", "127.0.0.1").unwrap(), "127.0.0.1 6379");
        assert_eq!(shown("[::1]:6379", "localhost").unwrap(), "::1 6379");
    }
}
