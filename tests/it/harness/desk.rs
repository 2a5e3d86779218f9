//! Stores what an account needs straight into the daemon's database, as a push would, and waits until it is in force.

use std::time::Duration;

use lastmile::provision::{Content, ElementDesired, ElementKind, ElementState, SecretRef};
use lastmile::provisioner::{Aaa, PasswordStorage, aaa};
use lastmile::store::foreign::aaa::AaaDatabase;
use lastmile::store::secrets::{self, SecretPlace};
use lastmile::store::{Store, StoreConfig, elements, jobs};
use lastmile::vocabulary::{Clock, Secret, Timestamp};

use super::daemon::Site;
use super::wait_for;

const TENANT: &str = "acme";

/// A second process at the daemon's SQLite database.
pub struct Desk {
    runtime: tokio::runtime::Runtime,
    store: Store,
}

impl Desk {
    /// Opens the site's migrated database and adds tenant `acme` with accounts 1 to 20.
    pub fn open(site: &Site) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = format!("sqlite://{}", site.path("lastmile.db").display());
        let config = StoreConfig {
            url: url.clone(),
            key_file: Some(site.path("key")),
            previous_key_file: None,
            owner: "desk".to_owned(),
        };
        let store = runtime.block_on(async {
            seed(&url).await;
            Store::open(&config).await.expect("the store opens")
        });
        Self { runtime, store }
    }

    /// Names a password so that its change shows in the content.
    pub fn secret(&self, field: &str, password: &str) -> SecretRef {
        // As a push does it, the digest is bound to more than the field.
        let digest = self.store.sealer().digest(&format!("secret of a desk, {field}"), &Secret::new(password));
        SecretRef { service: "1".to_owned(), field: field.to_owned(), digest: Some(digest) }
    }

    /// Makes `content` the one element of an account, with its password, and waits until it stands.
    pub fn push(
        &self,
        account: i64,
        kind: ElementKind,
        key: &str,
        content: Content,
        password: &SecretRef,
        clear: &str,
    ) {
        let now = now();
        self.runtime.block_on(async {
            let mut tx = self.store.write().await.expect("a transaction");
            let place = SecretPlace { tenant: TENANT, account_id: account, service: "1", field: &password.field };
            let digest = password.digest.as_deref().expect("a password");
            let secret = Secret::new(clear);
            secrets::put(&mut tx, self.store.sealer(), &[secrets::Put { place, secret: &secret, digest }], now)
                .await
                .expect("sealed");
            let desired = ElementDesired { kind, key: key.to_owned(), services: vec!["1".to_owned()], content };
            elements::settle(&mut tx, TENANT, account, &[desired], jobs::LANE_SINGLE, now).await.expect("settled");
            tx.commit().await.expect("committed");
        });
        self.wait(kind, key, ElementState::Applied);
    }

    /// Takes everything from an account and waits until it is gone.
    pub fn close(&self, account: i64, kind: ElementKind, key: &str) {
        self.runtime.block_on(async {
            let mut tx = self.store.write().await.expect("a transaction");
            elements::settle(&mut tx, TENANT, account, &[], jobs::LANE_SINGLE, now()).await.expect("settled");
            tx.commit().await.expect("committed");
        });
        self.wait(kind, key, ElementState::Gone);
    }

    /// How the rows of a login differ from what is desired.
    pub fn drift(&self, aaa_url: &str, username: &str) -> Option<String> {
        self.runtime.block_on(async {
            let aaa = Aaa::new(
                AaaDatabase::open(aaa_url).expect("a URL"),
                PasswordStorage::default(),
                Clock::new(now),
                Default::default(),
            );
            let mut tx = self.store.read().await.expect("a transaction");
            let row = elements::by_key(&mut tx, ElementKind::Aaa, username).await.expect("read").expect("an element");
            drop(tx);
            aaa::check(&aaa, &self.store, &row).await.expect("checked")
        })
    }

    /// Asks for an account's elements again, as an operator does.
    pub fn reprovision(&self, account: i64) {
        self.runtime.block_on(async {
            let mut tx = self.store.write().await.expect("a transaction");
            elements::reprovision(&mut tx, account, None, now()).await.expect("woken");
            tx.commit().await.expect("committed");
        });
    }

    fn wait(&self, kind: ElementKind, key: &str, state: ElementState) {
        wait_for(&format!("{kind} {key} is {state}"), Duration::from_secs(30), || {
            let row = self.runtime.block_on(async {
                let mut tx = self.store.read().await.expect("a transaction");
                elements::by_key(&mut tx, kind, key).await.expect("read")
            });
            row.is_some_and(|row| row.state == state && row.applied_revision == Some(row.desired_revision))
                .then_some(())
        });
    }
}

/// The tests' own clock is the machine's.
fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a year after 1970");
    Timestamp::UNIX_EPOCH.checked_add(since).expect("an instant")
}

async fn seed(url: &str) {
    use sqlx::Connection;
    let mut connection = sqlx::SqliteConnection::connect(url).await.expect("the database");
    sqlx::query("INSERT INTO tenant (id, name, catalog_version, created_at) VALUES ('acme', 'Acme', 1, 0)")
        .execute(&mut connection)
        .await
        .expect("a tenant");
    for id in 1i64..=20 {
        sqlx::query(
            "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag,
                 created_at, updated_at)
             VALUES ($1, 'acme', 'default', CAST($1 AS TEXT), 1, 'active', 'c15', '{}', '', 0, 0)",
        )
        .bind(id)
        .execute(&mut connection)
        .await
        .expect("an account");
    }
}
