//! Facts about what exists for an account.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::account::{DocsisProfile, FlowProfile, RadiusProfile, ServiceType, parse};
use crate::provision::{CmAccess, CmContent, MtaContent};
use crate::vocabulary::{AccountKey, SourceId, TenantId};

fn known() -> Known {
    let docsis = |down: &str, up: &str| {
        Some(DocsisProfile {
            downstream: down.parse().expect("rate"),
            upstream: up.parse().expect("rate"),
            max_cpe: Some(2),
            version: None,
            downstream_qos: FlowProfile::default(),
            upstream_qos: FlowProfile::default(),
            template: None,
        })
    };
    let radius = |group: &str| Some(RadiusProfile { group: Some(group.to_owned()), ..RadiusProfile::default() });
    let internet = |down, up, group| KnownPlan {
        service: Some(ServiceType::Internet),
        docsis: docsis(down, up),
        radius: radius(group),
        ..KnownPlan::default()
    };
    let of = |service| KnownPlan { service: Some(service), ..KnownPlan::default() };
    Known {
        plans: BTreeMap::from([
            ("res-100".to_owned(), internet("100M", "20M", "res-100")),
            ("slow".to_owned(), internet("1M", "512k", "slow-group")),
            ("voice-basic".to_owned(), of(ServiceType::Voice)),
            ("mail-5g".to_owned(), of(ServiceType::Email)),
        ]),
        bill_cycles: BTreeSet::from(["c15".to_owned()]),
        mail_domains: BTreeSet::from(["acme.example".to_owned()]),
        ..Known::default()
    }
}

fn document(holds: Value) -> Value {
    json!({
        "status": "active", "bill_cycle": "c15", "holds": holds,
        "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56"}],
        "services": [
            {"id": "i", "type": "internet", "plan": "res-100", "device": "gw1", "radius": {"username": "ada@acme"}},
            {"id": "v", "type": "voice", "plan": "voice-basic", "device": "gw1",
             "lines": [{"port": 1, "number": "+15125550100"}]},
            {"id": "m", "type": "email", "plan": "mail-5g", "mailbox": {"address": "ada@acme.example"}}
        ]
    })
}

fn account(document: &Value) -> Account {
    let key = AccountKey {
        tenant: TenantId::parse("acme").expect("tenant"),
        source: SourceId::default(),
        external_id: "a1".to_owned(),
    };
    parse(document, &key, &known()).expect("a good document").account
}

fn account_with(document: &Value, known: &Known) -> Account {
    let key = AccountKey {
        tenant: TenantId::parse("acme").expect("tenant"),
        source: SourceId::default(),
        external_id: "a1".to_owned(),
    };
    parse(document, &key, known).expect("a good document").account
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant of the test")
}

const NOON: &str = "2026-11-22T12:00:00Z";

fn desired(
    document: &Value,
    operator_holds: &[OperatorHold],
    existing: &[(ElementKind, String)],
) -> Vec<ElementDesired> {
    let (account, known) = (account(document), known());
    let basis = Basis {
        account: &account,
        external_id: "a1",
        known: &known,
        operator_holds,
        secrets: &SecretDigests::new(),
        closed: false,
    };
    elements(&basis, existing, at(NOON))
}

struct Seen {
    cm: CmContent,
    mta: MtaContent,
    aaa: AaaContent,
    mailbox: MailboxContent,
}

fn seen(document: &Value) -> Seen {
    let mut found = desired(document, &[], &[]).into_iter().map(|element| element.content);
    match (found.next(), found.next(), found.next(), found.next()) {
        (Some(Content::Cm(cm)), Some(Content::Mta(mta)), Some(Content::Mailbox(mailbox)), Some(Content::Aaa(aaa))) => {
            Seen { cm, mta, aaa, mailbox }
        }
        other => panic!("a modem, an MTA, a mailbox and a login, not {other:?}"),
    }
}

#[test]
fn a_gateway_with_internet_and_voice_is_one_modem() {
    let all = seen(&document(json!([])));
    assert_eq!(all.cm.access, CmAccess::Active);
    assert!(all.cm.voice && all.cm.mta_mac.is_some());
    assert_eq!((all.cm.max_cpe, all.cm.docsis.as_str()), (3, "3.0"));
    assert_eq!((all.aaa.access, all.aaa.group.as_deref()), (AaaAccess::Accept, Some("res-100")));
    assert!(all.mailbox.active);
    let modem = &desired(&document(json!([])), &[], &[])[0];
    assert_eq!(modem.services, ["i", "v"]);
}

#[test]
fn each_treatment_does_its_own_to_modem_login_and_mailbox() {
    let garden = AaaAccess::Garden { group: "garden".to_owned() };
    let slow = || CmAccess::Throttled { profile: "slow".to_owned() };
    for (hold, access, voice, login, mail) in [
        (json!({"kind": "nonpay"}), CmAccess::Garden, true, garden.clone(), false),
        (json!({"kind": "abuse", "treatment": "none"}), CmAccess::Active, true, AaaAccess::Accept, true),
        (json!({"kind": "abuse", "treatment": "throttle:slow"}), slow(), true, AaaAccess::Accept, true),
        (json!({"kind": "nonpay", "treatment": "block"}), CmAccess::VoiceOnly, true, AaaAccess::Reject, false),
        (json!({"kind": "nonpay", "treatment": "block_voice"}), CmAccess::Blocked, false, AaaAccess::Reject, false),
        (json!({"kind": "fraud"}), CmAccess::Blocked, false, AaaAccess::Reject, false),
    ] {
        let all = seen(&document(json!([hold])));
        assert_eq!((all.cm.access, all.cm.voice), (access, voice), "{hold}");
        assert_eq!((all.mta.enabled, all.mta.lines[0].enabled), (voice, voice), "{hold}");
        assert_eq!((all.aaa.access, all.mailbox.active), (login, mail), "{hold}");
    }
}

#[test]
fn a_throttle_takes_rates_and_group_from_its_profile_and_never_speeds_up() {
    let all = seen(&document(json!([{"kind": "abuse", "treatment": "throttle:slow"}])));
    assert_eq!(all.cm.downstream, "1M".parse().ok());
    assert_eq!(all.aaa.group.as_deref(), Some("slow-group"));
    let unknown = seen(&document(json!([{"kind": "abuse", "treatment": "throttle:nobody"}])));
    assert_eq!(unknown.cm.upstream, "256k".parse().ok());
    assert_eq!(unknown.aaa.group.as_deref(), Some("nobody"));
}

#[test]
fn the_strictest_hold_wins_and_only_while_it_lasts() {
    let over = json!({"kind": "fraud", "until": "2026-11-22T12:00:00Z"});
    let later = json!({"kind": "fraud", "from": "2026-11-22T12:00:01Z"});
    let now = json!({"kind": "nonpay", "from": "2026-11-22T12:00:00Z"});
    assert_eq!(seen(&document(json!([over, later]))).cm.access, CmAccess::Active);
    assert_eq!(seen(&document(json!([over, later, now]))).cm.access, CmAccess::Garden);
    let both = json!([{"kind": "nonpay"}, {"kind": "abuse"}]);
    assert_eq!(seen(&document(both)).cm.access, CmAccess::VoiceOnly);
}

#[test]
fn suspended_is_a_nonpay_hold_and_pending_lets_nothing_pass() {
    let with = |status: &str| {
        let mut document = document(json!([]));
        document["status"] = json!(status);
        seen(&document)
    };
    assert_eq!(with("suspended").cm.access, CmAccess::Garden);
    let pending = with("pending");
    assert_eq!((pending.cm.access, pending.cm.voice), (CmAccess::Blocked, false));
    assert_eq!((pending.aaa.access, pending.mailbox.active), (AaaAccess::Reject, false));
}

#[test]
fn a_service_is_only_prepared_before_its_day() {
    let mut early = document(json!([]));
    early["services"][0]["network_from"] = json!("2026-11-23");
    let all = seen(&early);
    assert_eq!((all.cm.access, all.aaa.access), (CmAccess::VoiceOnly, AaaAccess::Reject));
    let (account, known) = (account(&early), known());
    let basis = Basis {
        account: &account,
        external_id: "a1",
        known: &known,
        operator_holds: &[],
        secrets: &SecretDigests::new(),
        closed: false,
    };
    assert_eq!(next_change(&basis, at(NOON)), Some(at("2026-11-23T00:00:00Z")));
    assert_eq!(next_change(&basis, at("2026-11-23T00:00:00Z")), None);
}

#[test]
fn what_no_living_service_needs_must_go() {
    let mut gone = document(json!([]));
    gone["services"][0]["status"] = json!("terminated");
    gone["services"][1]["status"] = json!("terminated");
    let existing = [
        (ElementKind::Cm, "00:11:22:33:44:55".to_owned()),
        (ElementKind::Aaa, "ada@acme".to_owned()),
        (ElementKind::Mailbox, "ada@acme.example".to_owned()),
    ];
    let found = desired(&gone, &[], &existing);
    let absent: Vec<_> =
        found.iter().filter(|element| element.content == Content::Absent).map(|element| element.kind).collect();
    assert_eq!(absent, [ElementKind::Cm, ElementKind::Aaa]);
    assert_eq!(found.len(), 3);
}

#[test]
fn an_operators_hold_covers_one_service_or_all() {
    let hold = |service: Option<&str>| OperatorHold {
        service: service.map(str::to_owned),
        hold: Hold { kind: HoldKind::Admin, treatment: None, billing: Default::default(), from: None, until: None },
    };
    let mail_active = |holds: &[OperatorHold]| match &desired(&document(json!([])), holds, &[])[2].content {
        Content::Mailbox(mailbox) => mailbox.active,
        other => panic!("a mailbox, not {other:?}"),
    };
    assert!(mail_active(&[hold(Some("i"))]));
    assert!(!mail_active(&[hold(Some("m"))]));
    assert!(!mail_active(&[hold(None)]));
}

fn some_holds() -> impl Strategy<Value = Vec<Value>> {
    let kinds = prop::sample::select(vec!["nonpay", "abuse", "seasonal", "fraud", "legal", "admin"]);
    let treatments =
        prop::sample::select(vec!["garden", "throttle:slow", "throttle:x", "block", "block_voice", "none"]);
    let hold = (kinds, treatments).prop_map(|(kind, treatment)| json!({"kind": kind, "treatment": treatment}));
    prop::collection::vec(hold, 0..5)
}

proptest! {
    #[test]
    fn the_order_of_holds_does_not_matter(mut holds in some_holds()) {
        let forward = desired(&document(json!(holds)), &[], &[]);
        holds.reverse();
        prop_assert_eq!(forward, desired(&document(json!(holds)), &[], &[]));
    }

    #[test]
    fn one_more_hold_never_loosens(holds in some_holds(), more in some_holds()) {
        let strictness = |holds: &[Value]| {
            let (account, known) = (account(&document(json!(holds))), known());
            let basis = Basis {
                account: &account, external_id: "a1", known: &known, operator_holds: &[], secrets: &SecretDigests::new(), closed: false,
            };
            match treatment(&basis, &account.services[0], at(NOON)) {
                Treatment::Throttle(profile) if profile == "x" => (Treatment::Throttle(String::new()), 1),
                Treatment::Throttle(_) => (Treatment::Throttle(String::new()), 0),
                other => (other, 0),
            }
        };
        let all: Vec<Value> = holds.iter().chain(&more).cloned().collect();
        prop_assert!(strictness(&all) >= strictness(&holds));
    }
}

fn login(basis: &Basis, now: Timestamp) -> AaaContent {
    let found = elements(basis, &[], now).into_iter().find_map(|element| match element.content {
        Content::Aaa(content) => Some(content),
        _ => None,
    });
    found.expect("a login")
}

#[test]
fn addons_lay_their_radius_values_over_the_plan_s_while_they_last() {
    let mut known = known();
    let mut addon = |id: &str, group: Option<&str>, reply: &[(&str, &str)], chap: bool| {
        let reply = reply.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let radius = RadiusProfile { group: group.map(str::to_owned), reply, chap };
        known.plans.insert(id.to_owned(), KnownPlan { radius: Some(radius), ..KnownPlan::default() });
    };
    addon("turbo", None, &[("Mikrotik-Rate-Limit", "40M/200M")], false);
    addon("gold", Some("gold"), &[("Mikrotik-Rate-Limit", "1G/1G"), ("Framed-Pool", "gold")], true);
    let plan = known.plans.get_mut("res-100").and_then(|plan| plan.radius.as_mut()).expect("a plan");
    plan.reply =
        [("Mikrotik-Rate-Limit".to_owned(), "20M/100M".into()), ("Idle-Timeout".to_owned(), "0".into())].into();
    known.zone = Some(Zone::get("America/Chicago").expect("a zone"));
    let mut document = document(json!([]));
    document["services"][0]["addons"] = json!([
        {"id": "t", "plan": "turbo", "from": "2026-11-10"},
        {"id": "g", "plan": "gold", "from": "2026-11-20", "until": "2026-11-25"}]);
    let account = account_with(&document, &known);
    let secrets = SecretDigests::default();
    let basis = Basis {
        account: &account,
        external_id: "a1",
        known: &known,
        operator_holds: &[],
        secrets: &secrets,
        closed: false,
    };
    // (instant, group, rate, pool, chap, next change): midnights are Chicago's.
    for (now, group, rate, pool, chap, next) in [
        ("2026-11-10T05:59:59Z", "res-100", "20M/100M", None, false, Some("2026-11-10T06:00:00Z")),
        ("2026-11-10T06:00:00Z", "res-100", "40M/200M", None, false, Some("2026-11-20T06:00:00Z")),
        ("2026-11-20T06:00:00Z", "gold", "1G/1G", Some("gold"), true, Some("2026-11-25T06:00:00Z")),
        ("2026-11-25T06:00:00Z", "res-100", "40M/200M", None, false, None),
    ] {
        let now: Timestamp = now.parse().expect("an instant");
        let login = login(&basis, now);
        let value = |name: &str| login.reply.get(name).and_then(|values| values.iter().next());
        assert_eq!(login.group.as_deref(), Some(group), "{now}");
        assert_eq!(
            (value("Mikrotik-Rate-Limit"), value("Framed-Pool"), value("Idle-Timeout")),
            (Some(rate), pool, Some("0"))
        );
        assert_eq!(login.chap, chap, "{now}");
        assert_eq!(next_change(&basis, now), next.map(|at| at.parse().expect("an instant")), "{now}");
    }
}

#[test]
fn who_is_blocked_is_refused_unless_there_is_a_group_for_that() {
    let mut known = known();
    let document = document(json!([{"kind": "abuse"}]));
    let now: Timestamp = "2026-11-20T00:00:00Z".parse().expect("an instant");
    let secrets = SecretDigests::default();
    for (group, access) in
        [(None, AaaAccess::Reject), (Some("blocked"), AaaAccess::Blocked { group: "blocked".to_owned() })]
    {
        known.blocked_group = group.map(str::to_owned);
        let account = account_with(&document, &known);
        let basis = Basis {
            account: &account,
            external_id: "a1",
            known: &known,
            operator_holds: &[],
            secrets: &secrets,
            closed: false,
        };
        assert_eq!(login(&basis, now).access, access);
    }
}

mod technical {
    //! What device models, add-ons, voice plans and templates make of a gateway's two devices.

    use super::*;
    use crate::account::{AddonProfile, DeviceModel, GardenFilters, GardenProfile, VoiceProfile, VoiceServer};
    use crate::docsis::{CallAgent, FilledTlv, Filling, Framing, HashFamily, MtaFlow, SnmpStyle, Template};

    fn template(framing: Framing, text: &str) -> Template {
        let table: toml::Table = text.parse().expect("TOML of the test");
        let mut template = Template::new(framing);
        for (name, value) in table {
            template.add(name, value, &|_| Filling::Text("7".to_owned())).expect("a sound entry");
        }
        template
    }

    fn model() -> DeviceModel {
        DeviceModel {
            id: "tm".to_owned(),
            matches: "arris-*".to_owned(),
            version: Some("2.0".to_owned()),
            mta_hash: HashFamily::Eu,
            mta_flow: MtaFlow::Hybrid1,
            snmp: Some(SnmpStyle::AccessTable),
            cpe_mac_list: Some(false),
            garden_filters: GardenFilters::IpFilters,
            firmware: None,
            cm_template: Some(template(
                Framing::Cm,
                "SnmpMibObject = { oid = '1.3.6.1.4.1.9.1', string = '{account}' }",
            )),
            mta_template: None,
            sip_template: Some(template(
                Framing::Mta,
                "SnmpMibObject = { oid = '1.3.6.1.4.1.9.2.{line}', string = '{sip_user}:{sip_password}@{registrar}' }",
            )),
        }
    }

    fn world() -> Known {
        let mut known = known();
        known.models = vec![model()];
        known.garden = GardenProfile { allow: vec!["192.0.2.0/24".parse().expect("a network")], ..Default::default() };
        let addon = AddonProfile {
            downstream: "+50M".parse().ok(),
            upstream: "30M".parse().ok(),
            max_cpe: 2,
            template: Some(template(Framing::Cm, "DocsisTwoEnable = 1")),
        };
        known.plans.insert("boost".to_owned(), KnownPlan { addon: Some(addon), ..KnownPlan::default() });
        let voice = |server| {
            let voice = Some(VoiceProfile { server, template: None });
            KnownPlan { service: Some(ServiceType::Voice), voice, ..KnownPlan::default() }
        };
        let sip = VoiceServer::Sip { registrar: "sip.example".to_owned(), proxy: None, port: 5060 };
        known.plans.insert("sip".to_owned(), voice(sip));
        let agent = CallAgent { id: "ca@cms.example".to_owned(), port: 2727 };
        known.plans.insert("ncs".to_owned(), voice(VoiceServer::Ncs(agent)));
        known
    }

    fn devices(document: &Value) -> (CmContent, MtaContent) {
        let known = world();
        let key = AccountKey {
            tenant: TenantId::parse("acme").expect("tenant"),
            source: SourceId::default(),
            external_id: "a1".to_owned(),
        };
        let account = parse(document, &key, &known).expect("a good document").account;
        let secrets = SecretDigests::new();
        let basis = Basis {
            account: &account,
            external_id: "a1",
            known: &known,
            operator_holds: &[],
            secrets: &secrets,
            closed: false,
        };
        match elements(&basis, &[], at(NOON)).into_iter().map(|element| element.content).collect::<Vec<_>>().as_slice()
        {
            [Content::Cm(cm), Content::Mta(mta), ..] => (cm.clone(), mta.clone()),
            other => panic!("a modem and an MTA, not {other:?}"),
        }
    }

    fn gateway(plan: &str, holds: Value) -> Value {
        let mut document = document(holds);
        document["devices"][0]["model"] = json!("ARRIS-tm3402");
        document["services"][0]["addons"] = json!([
            {"id": "b", "plan": "boost", "quantity": 2},
            {"id": "late", "plan": "boost", "quantity": 1, "from": "2026-11-23"},
        ]);
        document["services"][1]["plan"] = json!(plan);
        document["services"][1]["service_address"] =
            json!({"line1": "1 Main St", "city": "Austin", "postal_code": "78701", "country": "US"});
        document["services"][1]["lines"] = json!([
            {"port": 2, "number": "+15125550102", "enabled": false},
            {"port": 1, "number": "+15125550101", "sip": {"user": "u", "password": "p", "display_name": "Ada"}},
        ]);
        document
    }

    #[test]
    fn the_model_decides_what_the_modem_understands() {
        let (cm, mta) = devices(&gateway("ncs", json!([])));
        assert_eq!((cm.docsis.as_str(), cm.snmp, cm.cpe_mac_list), ("2.0", Some(SnmpStyle::AccessTable), Some(false)));
        assert_eq!((mta.family, mta.flow), (HashFamily::Eu, MtaFlow::Hybrid1));
        let FilledTlv::Whole(first) = &cm.template[0] else { panic!("no secret in it") };
        assert!(first.ends_with("6131"), "the account's id a1: {first}");
    }

    #[test]
    fn add_ons_in_force_are_counted_by_their_quantity() {
        let (cm, _) = devices(&gateway("ncs", json!([])));
        assert_eq!(cm.downstream, "200M".parse().ok());
        assert_eq!(cm.upstream, "30M".parse().ok());
        assert_eq!(cm.max_cpe, 2 + 4 + 1, "sold, added, and the MTA");
        assert_eq!(cm.template.len(), 2, "the model's and that of the one in force");
    }

    #[test]
    fn in_the_garden_only_what_the_model_needs_is_added() {
        let (cm, mta) = devices(&gateway("ncs", json!([{"kind": "nonpay"}])));
        assert_eq!(cm.template.len(), 1);
        let garden = cm.garden.expect("walls");
        assert_eq!((garden.allow.len(), garden.filters), (1, GardenFilters::IpFilters));
        assert!(mta.lines[0].enabled, "who has not paid can still call");
        let (open, _) = devices(&gateway("ncs", json!([])));
        assert_eq!(open.garden, None);
    }

    #[test]
    fn an_ncs_line_names_its_call_agent_and_keeps_its_port() {
        let (_, mta) = devices(&gateway("ncs", json!([])));
        let ports: Vec<(u8, bool)> = mta.lines.iter().map(|line| (line.port, line.enabled)).collect();
        assert_eq!(ports, [(1, true), (2, false)]);
        assert!(mta.lines.iter().all(|line| line.call_agent.is_some() && line.template.is_empty()));
        assert_eq!(mta.locations[0].address.postal_code.as_deref(), Some("78701"));
    }

    #[test]
    fn a_sip_line_carries_its_model_s_objects_and_never_the_password() {
        let (_, mta) = devices(&gateway("sip", json!([])));
        let FilledTlv::Open { entry } = &mta.lines[0].template[0] else { panic!("a password belongs into it") };
        assert!(entry.contains("1.3.6.1.4.1.9.2.9") && entry.contains("u:{sip_password}@sip.example"), "{entry}");
        assert_eq!(mta.lines[0].sip.as_ref().map(|sip| sip.password.field.as_str()), Some("lines.1.sip.password"));
        assert!(mta.lines[1].template.is_empty(), "a line without a registration is no SIP line");
    }

    #[test]
    fn block_voice_disables_lines_and_nothing_milder_does() {
        for (treatment, works) in [("garden", true), ("throttle:slow", true), ("block", true), ("block_voice", false)] {
            let (_, mta) = devices(&gateway("ncs", json!([{"kind": "abuse", "treatment": treatment}])));
            assert_eq!((mta.enabled, mta.lines[0].enabled), (works, works), "{treatment}");
        }
    }
}
