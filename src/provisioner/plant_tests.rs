//! The plant as TFTP and the jobs see it.

use super::*;
use crate::provision::{CmAccess, CmContent, ElementKind, ElementState};
use crate::provisioner::modem::tests::{content, settings};

/// Behind no CMTS that is known.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn sealer() -> Sealer {
    Sealer::from_key([3; 32])
}

fn mac() -> MacAddress {
    "00:11:22:33:44:55".parse().expect("a MAC")
}

fn plant() -> Plant {
    Plant::open(sealer(), settings(), None)
}

fn element(revision: i64, desired: Content, previous: Option<Content>) -> ElementRow {
    ElementRow {
        id: 9,
        tenant: "acme".to_owned(),
        account_id: 1,
        kind: ElementKind::Cm,
        key: "00:11:22:33:44:55".to_owned(),
        services: Vec::new(),
        desired,
        previous,
        applied: None,
        desired_revision: revision,
        offered_revision: None,
        fetched_revision: None,
        confirmed_revision: None,
        applied_revision: None,
        state: ElementState::Pending,
        evidence: None,
        last_error: None,
        last_seen_at: None,
        last_seen_from: None,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn active() -> Content {
    Content::Cm(content(CmAccess::Active))
}

fn garden() -> Content {
    Content::Cm(content(CmAccess::Garden))
}

fn name(revision: i64) -> String {
    config_file_name(&sealer(), DeviceKind::Cm, "00:11:22:33:44:55".parse().expect("a MAC"), revision)
}

fn bytes(plant: &Plant, revision: i64) -> Option<Arc<[u8]>> {
    match plant.find(&name(revision), FROM, NOW) {
        Found::File(file) => Some(file.bytes),
        _ => None,
    }
}

#[test]
fn the_current_and_the_previous_revision_are_served_and_no_older_one() {
    let plant = plant();
    plant.learn(&element(3, garden(), Some(active())), OpenedSecrets::new());
    let (current, previous) = (bytes(&plant, 3).expect("current"), bytes(&plant, 2).expect("previous"));
    assert_ne!(current, previous);
    assert_eq!(plant.find(&name(1), FROM, NOW), Found::Nothing);
    assert_eq!(plant.find("3-001122334455-0000000000.cm", FROM, NOW), Found::Nothing);
    assert!(matches!(plant.find(&name(4), FROM, NOW), Found::Later(..)));
}

#[test]
fn a_removed_modem_gets_nothing_but_the_file_for_the_unknown() {
    let plant = plant();
    plant.learn(&element(3, active(), None), OpenedSecrets::new());
    let gone = plant.offer(&element(4, Content::Absent, Some(active())), OpenedSecrets::new()).expect("removed");
    assert_eq!(gone, None);
    assert_eq!(plant.find(&name(3), FROM, NOW), Found::Nothing);
    assert_eq!(plant.find(&name(4), FROM, NOW), Found::Nothing);
    assert!(matches!(plant.find("unprovisioned.cm", FROM, NOW), Found::File(File { owner: None, .. })));
}

#[test]
fn an_applied_element_is_on_offer_and_waits_for_its_modem() {
    let plant = plant();
    let offer = plant.offer(&element(3, active(), None), OpenedSecrets::new()).expect("a file").expect("there is one");
    assert_eq!(offer.name, name(3));
    let Found::File(file) = plant.find(&name(3), FROM, NOW) else { panic!("it is on offer") };
    assert_eq!(offer.digest, effective_digest(&file.bytes));
    assert_eq!(file.owner.map(|owner| (owner.element_id, owner.revision)), Some((9, 3)));
}

#[test]
fn old_news_change_nothing() {
    let plant = plant();
    plant.learn(&element(3, garden(), Some(active())), OpenedSecrets::new());
    let current = bytes(&plant, 3);
    plant.learn(&element(2, active(), None), OpenedSecrets::new());
    assert_eq!(bytes(&plant, 3), current);
}

#[test]
fn a_new_shared_secret_builds_the_files_anew() {
    let plant = plant();
    plant.learn(&element(3, active(), None), OpenedSecrets::new());
    let before = bytes(&plant, 3);
    plant.reload(ModemSettings { shared_secret: crate::vocabulary::Secret::new("rotated"), community: None });
    assert_ne!(bytes(&plant, 3), before);
}

#[test]
fn a_file_tells_how_its_modem_proves_itself() {
    let plant = plant();
    let offered = |content: Content| {
        let element = element(3, content, None);
        plant.offer(&element, OpenedSecrets::new()).expect("a file").expect("an offer").forwards
    };
    let with = |access| Content::Cm(crate::provisioner::modem::tests::content(access));
    for access in [CmAccess::Active, CmAccess::Throttled { profile: "slow".to_owned() }, CmAccess::Garden] {
        assert!(offered(with(access)));
    }
    assert!(offered(with(CmAccess::VoiceOnly)), "its telephone sends");
    assert!(!offered(with(CmAccess::Blocked)));
    // The catalog's own template has the last word.
    let Content::Cm(active) = with(CmAccess::Active) else { panic!("a modem's content") };
    let template = vec![crate::docsis::FilledTlv::Whole("030100".to_owned())];
    assert!(!offered(Content::Cm(CmContent { template, replaced: vec![3], ..active })));
}

#[test]
fn a_fetch_that_could_not_be_recorded_yields_to_a_newer_one() {
    let plant = plant();
    let fetch = |revision| Fetch {
        revision,
        from: "10.0.0.9".parse().expect("an address"),
        name: name(revision),
        kind: DeviceKind::Cm,
        mac: mac(),
        digest: "a".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        seen: true,
    };
    plant.note_fetch(9, fetch(2));
    let taken = plant.take_fetches();
    plant.note_fetch(9, fetch(3));
    plant.return_fetches(taken);
    // What a device only says of itself gives way to a fetch that was seen.
    plant.note_fetch(9, Fetch { seen: false, ..fetch(3) });
    assert_eq!(plant.take_fetches(), HashMap::from([(9, fetch(3))]));
}

#[test]
fn the_snapshot_serves_the_same_bytes_without_a_database() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = snapshot::beside(&dir.path().join("lastmile.db"));
    let first = Plant::open(sealer(), settings(), Some(path.clone()));
    first.learn(&element(3, garden(), Some(active())), OpenedSecrets::new());
    first.save().expect("written");
    let second = Plant::open(sealer(), settings(), Some(path.clone()));
    assert_eq!(bytes(&second, 3), bytes(&first, 3));
    assert_eq!(bytes(&second, 2), bytes(&first, 2));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("the file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let sealed = std::fs::read(&path).expect("the file");
    assert!(!sealed.windows(4).any(|octets| octets == b"plan"));
    assert_eq!(Plant::open(Sealer::from_key([4; 32]), settings(), Some(path)).device_count(), 0);
}

#[test]
fn a_file_is_signed_for_the_cmts_its_modem_is_behind() {
    use crate::docsis::decode;
    use crate::provisioner::cmts::tests::cmts;
    let own = Cmts {
        shared_secret: Some(crate::vocabulary::Secret::new("own-of-cmts2")),
        ..cmts("cmts2", &["10.2.0.1"], &["10.2.0.0/16"])
    };
    let table = CmtsTable::new(vec![cmts("cmts1", &[], &["10.1.0.0/16"]), own]);
    let plant = Plant::open(sealer(), PlantSettings { modem: settings(), cmts: table, asked: false }, None);
    plant.offer(&element(1, active(), None), OpenedSecrets::new()).expect("a file");
    let secret_of = |from: &str, file: &str| {
        let Found::File(file) = plant.find(file, from.parse().expect("an address"), NOW) else { panic!("{from}") };
        let good = |secret: &str| {
            let toml = decode(&file.bytes, Some(secret.as_bytes())).map(|decoded| decoded.toml).unwrap_or_default();
            toml.contains("{ CmtsMic = \"automatic\" }")
        };
        (good("example-secret-1"), good("own-of-cmts2"))
    };
    for file in [name(1).as_str(), "unprovisioned.cm"] {
        assert_eq!(secret_of("10.1.0.9", file), (true, false));
        assert_eq!(secret_of("10.2.0.9", file), (false, true));
        assert_eq!(secret_of("10.2.0.1", file), (false, true));
        assert_eq!(secret_of("203.0.113.9", file), (true, false));
    }
}

#[test]
fn a_modem_that_is_refused_gets_its_file_signed_with_the_secret_before() {
    use crate::docsis::decode;
    use crate::provisioner::cmts::tests::cmts;
    let rotating = Cmts {
        shared_secret: Some(crate::vocabulary::Secret::new("new-secret")),
        previous_shared_secret: Some(crate::vocabulary::Secret::new("old-secret")),
        ..cmts("cmts1", &[], &["10.1.0.0/16"])
    };
    for address_in_file in [false, true] {
        let table = CmtsTable::new(vec![Cmts { address_in_file, ..rotating.clone() }]);
        let plant = Plant::open(sealer(), PlantSettings { modem: settings(), cmts: table, asked: false }, None);
        plant.offer(&element(1, active(), None), OpenedSecrets::new()).expect("a file");
        let from: IpAddr = "10.1.0.9".parse().expect("an address");
        let signed = |secret: &str| {
            let Found::File(file) = plant.find(&name(1), from, NOW) else { panic!("it is on offer") };
            let toml = decode(&file.bytes, Some(secret.as_bytes())).map(|decoded| decoded.toml).unwrap_or_default();
            toml.contains("{ CmtsMic = \"automatic\" }")
        };
        let fetch = || Fetch {
            revision: 1,
            from,
            name: name(1),
            kind: DeviceKind::Cm,
            mac: mac(),
            digest: "a".to_owned(),
            at: NOW,
            seen: true,
        };
        // What nobody saw is no turn.
        for _ in 0..4 {
            plant.note_fetch(9, Fetch { seen: false, ..fetch() });
        }
        for (with_new, with_old) in [(true, false), (true, false), (false, true), (true, false)] {
            assert_eq!((signed("new-secret"), signed("old-secret")), (with_new, with_old));
            plant.note_fetch(9, fetch());
        }
    }
}

#[test]
fn an_mta_boots_from_the_snapshot_with_its_sip_password() {
    use crate::docsis::FilledTlv;
    use crate::provision::{MtaSip, SecretRef};
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plant.sealed");
    let mut content = crate::provisioner::mta::tests::content();
    let password = SecretRef { service: "v1".into(), field: "lines.1.sip.password".into(), digest: None };
    content.lines[0].sip = Some(MtaSip { user: "u".into(), display_name: None, password });
    let entry = "SnmpMibObject = { oid = \"1.3.6.1.4.1.9.2.9\", string = \"{sip_password}\" }".to_owned();
    content.lines[0].template = vec![FilledTlv::Open { entry }];
    let mac = content.mac;
    let mut row = element(3, Content::Mta(content), None);
    (row.kind, row.key) = (ElementKind::Mta, mac.to_string());
    let key = ("v1".to_owned(), "lines.1.sip.password".to_owned());
    let secret = |text: &str| OpenedSecrets::from([(key.clone(), crate::vocabulary::Secret::new(text))]);
    let name = config_file_name(&sealer(), DeviceKind::Mta, mac, 3);
    let served = |plant: &Plant| match plant.find(&name, FROM, NOW) {
        Found::File(file) => file.bytes,
        other => panic!("{other:?}"),
    };
    let first = Plant::open(sealer(), settings(), Some(path.clone()));
    first.learn(&row, secret("first"));
    let before = served(&first);
    assert!(before.windows(5).any(|bytes| bytes == b"first"));
    first.save().expect("saved");
    let on_disk = std::fs::read(&path).expect("the snapshot");
    assert!(!on_disk.windows(5).any(|bytes| bytes == b"first"), "sealed");
    let second = Plant::open(sealer(), settings(), Some(path));
    assert_eq!(served(&second), before);
    second.learn(&row, secret("other"));
    assert!(served(&second).windows(5).any(|bytes| bytes == b"other"), "the newest password counts");
}
