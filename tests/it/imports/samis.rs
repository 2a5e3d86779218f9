//! `import samis`: flows of two modems over hours, in files that overlap, with a modem's reboot between them.

use super::*;

const CMTS: &str = "cmts01.example.net";

/// One flow at one instant.
struct Flow<'a> {
    mac: &'a str,
    flow: u32,
    class: &'a str,
    direction: u8,
    report: u8,
    /// Seconds since the test's base.
    at: i64,
    created: i64,
    octets: u64,
}

#[test]
fn files_that_overlap_count_once_and_a_reboot_begins_anew() {
    for site in [Site::sqlite(), Site::postgres()] {
        subscribers(&site);
        let base = base();
        let big = 1 << 40;
        let gold = |flow, direction, report, at, created, octets| Flow {
            mac: "02-00-5E-10-20-30",
            flow,
            class: "gold",
            direction,
            report,
            at,
            created,
            octets,
        };
        let hours = [
            vec![gold(3, 2, 1, 900, 0, 1000), gold(4, 1, 1, 900, 0, big)],
            vec![gold(3, 2, 1, 1800, 0, 3000), gold(4, 1, 1, 1800, 0, big + 5), voice(1800)],
            // The modem restarts: its flows end and come again with the same identifiers.
            vec![gold(3, 2, 2, 2000, 0, 3500), gold(4, 1, 2, 2000, 0, big + 9)],
            vec![gold(3, 2, 1, 2700, 2100, 40), gold(4, 1, 1, 2700, 2100, 70)],
        ];
        let file = |name: &str, parts: &[usize]| {
            let flows: Vec<&Flow<'_>> = parts.iter().flat_map(|part| &hours[*part]).collect();
            write(&site, name, &document(base, &flows))
        };
        let (first, second) = (file("first.xml", &[0, 1]), file("second.xml", &[1, 2, 3]));
        let classes = ["--service-class", "gold"];
        assert_eq!(site.lastmile(&["import", "samis", &first]).status.code(), Some(2), "no class counts by itself");
        // The later file first, as they may well come.
        let (summary, said) = import(&site, &[&["samis", &second][..], &classes].concat(), 0);
        assert_eq!(counts(&summary), (6, 6, 0, 0), "{said}");
        assert!(said.contains("service class \"voice\" does not count"), "{said}");
        let daemon = site.start();
        wait_until_folded(&site, 4);
        let (summary, _) = import(&site, &[&["samis", &first, &second][..], &classes].concat(), 0);
        assert_eq!((counts(&summary), summary["folding"].as_str()), ((10, 2, 8, 0), Some("done")));
        let flow = |session: &str, up: u64, down: u64, state: &str| {
            (format!("02:00:5e:10:20:30/{session}"), (up, down, state.to_owned()))
        };
        let expected = BTreeMap::from([
            flow("3/up/0", 3500, 0, "stopped"),
            flow("4/down/0", 0, big + 9, "stopped"),
            flow("3/up/210000", 40, 0, "open"),
            flow("4/down/210000", 0, 70, "open"),
        ]);
        wait_for_sums(&site, &expected);
        let (again, _) = import(&site, &[&["samis", &first, &second][..], &classes].concat(), 0);
        assert_eq!(counts(&again), (10, 0, 10, 0));
        assert_eq!(sums(&site), expected);
        let exported = site.succeed(&["export", "sessions", "--format", "csv"]);
        assert!(exported.lines().skip(1).all(|row| row.contains(CMTS)), "{exported}");
        daemon.stop();
    }
}

#[test]
fn the_configuration_names_classes_and_what_an_octet_is() {
    let site = Site::sqlite();
    subscribers(&site);
    site.edit("[tftp]", "[samis]\nservice_classes = [\"voice\"]\noctets = \"L3\"\n[tftp]");
    let flow = voice(600);
    let file = write(&site, "voice.xml", &document(base(), &[&flow]));
    let (summary, _) = import(&site, &["samis", &file], 0);
    assert_eq!(counts(&summary), (1, 1, 0, 0));
    let shown = (1..9).find_map(|lane| {
        let output = site.lastmile(&["record", "show", &format!("{lane}:1")]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    let shown = shown.expect("a record");
    for words in ["Connect-Info", "SAMIS L3", "Filter-Id", "voice", "02:00:5e:10:20:31", "voice.xml"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn wrong_and_hostile_documents_name_their_line() {
    let site = Site::sqlite();
    subscribers(&site);
    let flows = [voice(600), voice(1200)];
    let whole = document(base(), &flows.iter().collect::<Vec<_>>());
    let sample =
        "<?xml version=\"1.0\"?>\n<!DOCTYPE x [<!ENTITY y SYSTEM \"file:///etc/passwd\">]>\n<IPDRDoc>&y;</IPDRDoc>";
    let cases = [
        (whole[..whole.len() - "</IPDRDoc>\n".len()].to_owned(), 2, "was cut off, or is still being written"),
        (whole.replace("<RecType>1", "<RecType>7"), 0, "RecType \"7\" is not"),
        (sample.to_owned(), 0, "a document type is not read"),
        ("<IPDRDoc><IPDR></IPDRDoc>".to_owned(), 0, "cannot be read further"),
        (format!("<IPDRDoc>{}", "<a>".repeat(500_000)), 0, "nested more than"),
    ];
    for (number, (text, new, words)) in cases.iter().enumerate() {
        let file = write(&site, &format!("case{number}.xml"), text);
        let (summary, said) = import(&site, &["samis", "--dry-run", "--service-class", "*", &file], 1);
        assert_eq!(summary["new"].as_u64(), Some(*new), "{words}: {said}");
        assert!(said.contains(&format!("{file}:")) && said.contains(words), "{words}: {said}");
    }
}

fn base() -> i64 {
    let yesterday = Timestamp::now().as_second() - 86_400;
    yesterday - yesterday % 3600
}

fn voice(at: i64) -> Flow<'static> {
    Flow { mac: "02:00:5e:10:20:31", flow: 9, class: "voice", direction: 1, report: 1, at, created: 0, octets: 8 }
}

fn document(base: i64, flows: &[&Flow<'_>]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<IPDRDoc version=\"3.5.1-A.1\">\n");
    for flow in flows {
        let at = Timestamp::from_second(base + flow.at).expect("an instant");
        line(
            &mut text,
            format_args!(
                "<IPDR><CmtsHostName>{CMTS}</CmtsHostName><CmtsSysUpTime>{}</CmtsSysUpTime><CmMacAddr>{}</CmMacAddr>\
                 <RecType>{}</RecType><RecCreationTime>{at}</RecCreationTime><ServiceIdentifier>{}</ServiceIdentifier>\
                 <ServiceClassName>{}</ServiceClassName><ServiceDirection>{}</ServiceDirection>\
                 <ServiceOctetsPassed>{}</ServiceOctetsPassed><ServiceTimeCreated>{}</ServiceTimeCreated></IPDR>",
                flow.at * 100,
                flow.mac,
                flow.report,
                flow.flow,
                flow.class,
                flow.direction,
                flow.octets,
                flow.created * 100
            ),
        );
    }
    text + &format!("<IPDRDoc.End count=\"{}\"/></IPDRDoc>\n", flows.len())
}
