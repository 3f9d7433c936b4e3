//! Whose files a node believes and changes.

use super::super::identity::Peers;
use super::tests::{line, make, mode};
use super::*;

#[test]
fn links_in_a_nodes_directory_lead_no_write_to_the_files_of_others() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "precious").expect("write");
    let lay = |name: &str| {
        let _ = std::fs::remove_file(b.dir().join(name));
        std::os::unix::fs::symlink(&victim, b.dir().join(name)).expect("link");
    };
    ["peers.new", "config.toml.new", ".peers.hot-backup-tmp", ".config.toml.hot-backup-tmp"]
        .into_iter()
        .for_each(lay);
    trust(b.dir(), &line(&a)).expect("such links are in nobody's way");
    lay("lock");
    assert!(lock(&b).is_err());
    lay("peers");
    let error = Peers::load(&b).expect_err("a link").to_string();
    assert!(error.contains("symbolic link"), "{error}");
    lay("config.toml");
    assert!(Config::load(b.dir()).expect_err("a link").to_string().contains("symbolic link"));
    assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
}

#[test]
fn what_others_may_write_to_is_not_believed_by_any_command() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (a, b) = (make(dir.path(), "a", "primary"), make(dir.path(), "b", "standby"));
    let peer = line(&b);
    trust(a.dir(), &peer).expect("trust");
    let chmod =
        |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
    for path in [a.dir().to_owned(), a.config(), a.identity_certificate(), a.control(), a.peers()] {
        let before = mode(&path);
        chmod(&path, before | 0o020);
        let errors = [
            trust(a.dir(), &peer).map(|_| ()).map_err(|error| error.to_string()),
            Config::load(a.dir()).map(|_| ()).map_err(|error| error.to_string()),
            NodeKey::load(&a).map(|_| ()).map_err(|error| error.to_string()),
            Peers::load(&a).map(|_| ()).map_err(|error| error.to_string()),
            read_control(&a).map(|_| ()).map_err(|error| error.to_string()),
        ];
        let told: Vec<_> = errors.iter().filter_map(|error| error.as_ref().err()).collect();
        let least = if path == a.dir() { 5 } else { 1 };
        assert!(told.len() >= least, "{}: {told:?}", path.display());
        let advice = format!("chmod go-w {}", path.display());
        assert!(told.iter().all(|error| error.contains(&advice)), "{advice}: {told:?}");
        chmod(&path, before);
    }
    trust(a.dir(), &peer).expect("as before");
    chmod(&a.journal(JournalKind::Local), 0o777);
    let error = check_own(&a).expect_err("the journal is open").to_string();
    assert!(error.contains("chmod go-w"), "{error}");
}
