//! A group of pushes leaves what the same pushes leave one by one, whatever they share.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::account::{Moment, parse};
use crate::catalog::{self, Bundle};
use crate::intake::catalogs::Catalogs;
use crate::store::{Store, StoreConfig, accounts, audit, elements, holders, jobs, quarantine};
use crate::vocabulary::{SourceId, TenantId, parse_instant};

const CATALOG: &str = r#"
[tenant]
id = "acme"
name = "Acme"
currency = "USD"
timezone = "America/Chicago"
mail_domains = ["acme.example"]
realms = ["acme"]

[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
timezone = "America/Chicago"
close = "manual"

[[plan]]
id = "res-100"
service = "internet"
tariff = "flat"
docsis = { downstream = "100M", upstream = "20M", max_cpe = 2, version = "3.0" }
radius = { group = "res-100" }

[[plan]]
id = "mail"
service = "email"
tariff = "flat"

[[tariff]]
id = "flat"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "49.95"
timing = "advance"
proration = "actual_days"
"#;

/// What a push of the test may say: few of everything, so that pushes meet.
#[derive(Debug, Clone)]
struct Said {
    account: u8,
    revision: Option<i64>,
    mac: u8,
    login: Option<u8>,
    password: u8,
    mailbox: Option<u8>,
    terminated: bool,
}

fn said() -> impl Strategy<Value = Said> {
    let rare = prop::bool::weighted(0.15);
    let revision = prop::option::weighted(0.7, 1..6i64);
    let parts = (0..4u8, revision, 0..4u8, prop::option::of(0..3u8), 0..2u8, prop::option::of(0..3u8), rare);
    parts.prop_map(|(account, revision, mac, login, password, mailbox, terminated)| Said {
        account,
        revision,
        mac,
        login,
        password,
        mailbox,
        terminated,
    })
}

impl Said {
    fn document(&self) -> Value {
        let mut internet = json!({ "id": "s1", "type": "internet", "plan": "res-100", "device": "gw1" });
        if let Some(login) = self.login {
            let password = format!("password {}", self.password);
            internet["radius"] = json!({ "username": format!("user{login}@acme"), "password": password });
        }
        let mut services = vec![internet];
        if let Some(mailbox) = self.mailbox {
            let address = format!("box{mailbox}@acme.example");
            let mailbox = json!({ "address": address, "password": "a long secret" });
            services.push(json!({ "id": "m1", "type": "email", "plan": "mail", "mailbox": mailbox }));
        }
        json!({
            "source_revision": self.revision, "bill_cycle": "c15",
            "status": if self.terminated { "terminated" } else { "active" },
            "devices": [{ "id": "gw1", "cm_mac": format!("00112233440{}", self.mac) }],
            "services": services,
        })
    }

    fn deed(&self, known: &crate::account::Known) -> Deed {
        let key = key(self.account);
        let pushed = parse(&self.document(), &key, known).expect("a document without a fault");
        Deed::Push(Box::new(Push {
            key,
            actor: "test".to_owned(),
            pushed,
            conditions: Conditions::default(),
            lane: crate::store::jobs::LANE_SINGLE,
            catalog_version: 1,
            origin: None,
            released: false,
        }))
    }
}

fn key(account: u8) -> AccountKey {
    AccountKey {
        tenant: TenantId::parse("acme").expect("a tenant"),
        source: SourceId::parse("default").expect("a source"),
        external_id: format!("a{account}"),
    }
}

struct Site {
    _folder: tempfile::TempDir,
    store: Store,
    ground: Ground,
}

fn now() -> Timestamp {
    parse_instant("2026-11-22T03:00:00Z").expect("an instant")
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = StoreConfig {
            url: format!("sqlite://{}", folder.path().join("lastmile.db").display()),
            key_file: None,
            previous_key_file: None,
            owner: "test".to_owned(),
        };
        let store = Store::open(&config).await.expect("a store");
        store.migrate().await.expect("tables");
        let catalog = catalog::read(&Bundle::single("catalog.toml", CATALOG)).expect("a catalog");
        let mut tx = store.write().await.expect("a transaction");
        let assessed = crate::store::catalog::assess(&mut tx, &catalog, now()).await.expect("assessed");
        crate::store::catalog::apply(&mut tx, &catalog, assessed, false, "test", now()).await.expect("applied");
        tx.commit().await.expect("stored");
        let ground = Ground {
            sealer: Sealer::from_key([7; 32]),
            catalogs: Catalogs::default(),
            prices: Default::default(),
            sources: Default::default(),
            memory: Default::default(),
        };
        Self { _folder: folder, store, ground }
    }

    /// Does deeds in one transaction; the answers without what differs from one database to the next.
    async fn perform(&self, deeds: &[Deed]) -> Vec<String> {
        let mut tx = self.store.write().await.expect("a transaction");
        let done = perform(deeds, &mut tx, &self.ground, now()).await.expect("a group without a fault");
        tx.commit().await.expect("stored");
        let told = done.into_iter().map(|outcome| match outcome {
            Ok(mut done) => {
                for service in done.body["services"].as_array_mut().into_iter().flatten() {
                    let job = service["provisioning"]["job"].take();
                    service["provisioning"]["job"] = job.is_string().into();
                }
                format!("{} {} {:?} {}", done.status, done.outcome, done.etag, done.body)
            }
            Err(Stop::Declined(problem)) => format!("declined: {problem:?}"),
            Err(stop) => panic!("a push was stopped half-way: {stop:?}"),
        });
        told.collect()
    }

    /// Everything that pushes write, in the outside's words.
    async fn stored(&self) -> Vec<String> {
        let mut tx = self.store.read().await.expect("a transaction");
        let mut lines = Vec::new();
        let mut rows = accounts::list(&mut tx, "acme", None, true, None, 100).await.expect("accounts");
        rows.sort_by(|a, b| a.external_id.cmp(&b.external_id));
        for row in rows {
            let of = &row.external_id;
            lines.push(format!("{of} {} {:?} {} {:?}", row.revision, row.source_revision, row.etag, row.stale_pushes));
            let services = accounts::services(&mut tx, row.id).await.expect("services");
            let name = |id: i64| services.iter().find(|service| service.id == id).map(|service| &service.external_id);
            lines.extend(services.iter().map(|service| format!("{of} {} {:?}", service.external_id, service.ended_at)));
            for facts in accounts::facts(&mut tx, row.id).await.expect("facts") {
                lines.push(format!("{of} {:?} {} {:?}", name(facts.service_id), facts.from_at, facts.facts));
            }
            for held in holders::of_accounts(&mut tx, &[row.id]).await.expect("holders") {
                lines.push(format!("{of} {:?} {} {:?}", held.kind, held.value, held.service_id.and_then(name)));
            }
            let active = jobs::active_of_account(&mut tx, row.id).await.expect("jobs");
            for element in elements::of_account(&mut tx, row.id).await.expect("elements") {
                let job = active.iter().any(|(of, _)| *of == element.id);
                let (desired, previous) = (&element.desired, &element.previous);
                let revision = element.desired_revision;
                lines.push(format!("{of} {} {revision} {desired:?} {previous:?} {job}", element.key));
            }
            let digests = secrets::digests(&mut tx, &[row.id]).await.expect("digests");
            lines.push(format!("{of} {:?}", digests.into_values().collect::<Vec<_>>()));
            let noted = audit::of_account(&mut tx, row.id, None, 100).await.expect("an audit");
            lines.extend(noted.iter().map(|entry| format!("{of} {} {}", entry.action, entry.detail)));
        }
        let filter = quarantine::KeptFilter { all: true, limit: 100, ..quarantine::KeptFilter::default() };
        let kept = quarantine::list(&mut tx, &filter, now()).await.expect("a quarantine");
        lines
            .extend(kept.iter().map(|kept| format!("kept {} of {} until {}", kept.value, kept.account, kept.until_at)));
        lines
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_group_leaves_what_its_pushes_leave_one_by_one(groups in prop::collection::vec(prop::collection::vec(said(), 1..9), 1..4)) {
        runtime().block_on(async {
            let (together, alone) = (Site::new().await, Site::new().await);
            let known = catalog::read(&Bundle::single("catalog.toml", CATALOG)).expect("a catalog").known();
            for said in &groups {
                let deeds: Vec<Deed> = said.iter().map(|said| said.deed(&known)).collect();
                let told = together.perform(&deeds).await;
                let mut told_alone = Vec::new();
                for deed in &deeds {
                    told_alone.extend(alone.perform(std::slice::from_ref(deed)).await);
                }
                prop_assert_eq!(told, told_alone);
            }
            prop_assert_eq!(together.stored().await, alone.stored().await);
            Ok(())
        })?;
    }
}

#[test]
fn a_push_that_cannot_have_what_it_wants_hinders_nobody_else() {
    runtime().block_on(async {
        let site = Site::new().await;
        let known = catalog::read(&Bundle::single("catalog.toml", CATALOG)).expect("a catalog").known();
        let said = |account, mac| Said {
            account,
            revision: None,
            mac,
            login: None,
            password: 0,
            mailbox: None,
            terminated: false,
        };
        let wanted = [said(0, 1), said(1, 1), said(2, 2)];
        let deeds: Vec<Deed> = wanted.iter().map(|said| said.deed(&known)).collect();
        let told = site.perform(&deeds).await;
        assert!(told[0].starts_with("201"), "{}", told[0]);
        assert!(told[1].contains("already-held") && told[1].contains("account a0"), "{}", told[1]);
        assert!(told[2].starts_with("201"), "{}", told[2]);
        let close = Deed::Close(Close {
            key: key(0),
            actor: "test".to_owned(),
            effective: None::<Moment>,
            source_revision: None,
            conditions: Conditions::default(),
            origin: None,
            released: false,
            lane: crate::store::jobs::LANE_SINGLE,
        });
        let told = site.perform(&[close, said(1, 1).deed(&known)]).await;
        assert!(told[1].starts_with("201"), "what a closing frees is free for the push behind it: {}", told[1]);
    });
}
