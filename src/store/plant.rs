//! The cable plant as stored: the names of configuration files, and modems and MTAs as people and programs list them.

use serde::Serialize;

use super::{Sealer, StoreError, Tx, on};
use crate::provision::{CmContent, Content, DeviceKind, ElementKind, ElementState, MtaContent};
use crate::vocabulary::{MacAddress, Timestamp, from_micros, hex};

/// The file for modems that belong to no account: network access off.
pub const UNPROVISIONED: &str = "unprovisioned.cm";

/// A device as listed (CONTRACT §6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Row of its element, the cursor of lists.
    #[serde(skip)]
    pub id: i64,
    pub mac: String,
    /// `cm` or `mta`.
    pub kind: &'static str,
    /// External id of the account.
    pub account: String,
    /// External id of the first service it serves.
    pub service: Option<String>,
    pub model: Option<String>,
    pub state: String,
    /// The name DHCP must hand out.
    pub config_file: String,
    pub desired_revision: i64,
    pub offered_revision: Option<i64>,
    pub fetched_revision: Option<i64>,
    pub confirmed_revision: Option<i64>,
    pub last_seen: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// Which devices a list shows.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// `None`: every tenant's, for the platform's own operator.
    pub tenant: Option<String>,
    pub source: Option<String>,
    /// External id of the account.
    pub account: Option<String>,
    pub mac: Option<MacAddress>,
    /// Only devices after this row.
    pub after: i64,
    pub limit: i64,
}

const TAG_LABEL: &str = "tftp-name";
const MTA_TAG_LABEL: &str = "tftp-name of an mta";
const TAG_DIGITS: usize = 10;

const LIST: &str =
    "SELECT element.id, account.external_id AS account, element.kind, element.key, element.services, element.desired,
            element.previous, element.state, element.desired_revision, element.offered_revision,
            element.fetched_revision, element.confirmed_revision, element.last_seen_at, element.last_error
     FROM element
     JOIN account ON account.id = element.account_id
     WHERE element.kind IN ('cm', 'mta')
       AND ($1 IS NULL OR element.tenant = $1)
       AND ($2 IS NULL OR account.source = $2)
       AND ($3 IS NULL OR account.external_id = $3)
       AND ($4 IS NULL OR element.key = $4)
       AND element.state <> 'gone'
       AND element.id > $5
     ORDER BY element.id LIMIT $6";

/// The name under which the file of one revision of a device is served.
///
/// **Shape**: `<revision>-<12 hex digits of the MAC>-<10 hex digits of an HMAC over both>.cm`, or `.mta`. Nobody without
/// the installation's key can name another device's file, and a device that reports its file's name reports its revision.
pub fn config_file_name(sealer: &Sealer, kind: DeviceKind, mac: MacAddress, revision: i64) -> String {
    format!("{revision}-{}-{}.{}", hex(mac.octets()), tag(sealer, kind, mac, revision), kind.as_str())
}

/// The kind of device, MAC and revision a file name speaks of; `None` when its tag was not made with our key.
pub fn parse_config_file_name(sealer: &Sealer, name: &str) -> Option<(DeviceKind, MacAddress, i64)> {
    use subtle::ConstantTimeEq;
    let (stem, ending) = name.rsplit_once('.')?;
    let kind = DeviceKind::ALL.into_iter().find(|kind| kind.as_str() == ending)?;
    let mut parts = stem.split('-');
    let (revision, digits, found) = (parts.next()?, parts.next()?, parts.next()?);
    let mac: MacAddress = digits.parse().ok().filter(|_| digits.len() == 12 && parts.next().is_none())?;
    let revision: i64 = revision.parse().ok()?;
    let genuine: bool = tag(sealer, kind, mac, revision).as_bytes().ct_eq(found.as_bytes()).into();
    genuine.then_some((kind, mac, revision))
}

/// Devices that are or should be there, in the order of their rows; those removed as desired are left out.
pub async fn devices(tx: &mut Tx, sealer: &Sealer, filter: &DeviceFilter) -> Result<Vec<Device>, StoreError> {
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(&filter.tenant)
        .bind(&filter.source)
        .bind(&filter.account)
        .bind(filter.mac.map(|mac| mac.to_string()))
        .bind(filter.after)
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(|row| row.device(sealer)).collect()
}

fn tag(sealer: &Sealer, kind: DeviceKind, mac: MacAddress, revision: i64) -> String {
    let label = match kind {
        DeviceKind::Cm => TAG_LABEL,
        DeviceKind::Mta => MTA_TAG_LABEL,
    };
    let hash = sealer.keyed_hash(label, format!("{mac}|{revision}").as_bytes());
    hex(&hash[..TAG_DIGITS / 2])
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    account: String,
    kind: String,
    key: String,
    services: String,
    desired: String,
    previous: Option<String>,
    state: String,
    desired_revision: i64,
    offered_revision: Option<i64>,
    fetched_revision: Option<i64>,
    confirmed_revision: Option<i64>,
    last_seen_at: Option<i64>,
    last_error: Option<String>,
}

impl Row {
    fn device(self, sealer: &Sealer) -> Result<Device, StoreError> {
        let id = self.id;
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "element", column, id: id.to_string() };
        let kind = self.kind.parse().ok().and_then(ElementKind::device).ok_or_else(|| corrupt("kind"))?;
        let mac: MacAddress = self.key.parse().map_err(|_| corrupt("key"))?;
        let services: Vec<String> = serde_json::from_str(&self.services).map_err(|_| corrupt("services"))?;
        let desired: Content = serde_json::from_str(&self.desired).map_err(|_| corrupt("desired"))?;
        let state: ElementState = self.state.parse().map_err(|_| corrupt("state"))?;
        let past = || self.previous.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let config_file = match &desired {
            Content::Cm(_) | Content::Mta(_) => config_file_name(sealer, kind, mac, self.desired_revision),
            _ => UNPROVISIONED.to_owned(),
        };
        Ok(Device {
            id,
            mac: self.key,
            kind: kind.as_str(),
            account: self.account,
            service: services.into_iter().next(),
            model: model(&desired).or_else(|| past().as_ref().and_then(model)),
            state: state.as_str().to_owned(),
            config_file,
            desired_revision: self.desired_revision,
            offered_revision: self.offered_revision,
            fetched_revision: self.fetched_revision,
            confirmed_revision: self.confirmed_revision,
            last_seen: self
                .last_seen_at
                .map(|at| from_micros(at).ok_or_else(|| corrupt("last_seen_at")))
                .transpose()?,
            last_error: self.last_error,
        })
    }
}

fn model(content: &Content) -> Option<String> {
    match content {
        Content::Cm(CmContent { model, .. }) | Content::Mta(MtaContent { model, .. }) => model.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_revision_only_to_who_has_the_key() {
        let sealer = Sealer::from_key([7; 32]);
        let mac: MacAddress = "00:11:22:33:44:55".parse().expect("a MAC");
        let name = config_file_name(&sealer, DeviceKind::Cm, mac, 12);
        assert!(name.starts_with("12-001122334455-") && name.len() == 29, "{name}");
        assert_eq!(parse_config_file_name(&sealer, &name), Some((DeviceKind::Cm, mac, 12)));
        let of_mta = config_file_name(&sealer, DeviceKind::Mta, mac, 12);
        assert_eq!(parse_config_file_name(&sealer, &of_mta), Some((DeviceKind::Mta, mac, 12)));
        assert_eq!(parse_config_file_name(&sealer, &of_mta.replace(".mta", ".cm")), None);
        assert_eq!(parse_config_file_name(&Sealer::from_key([8; 32]), &name), None);
        for forged in
            [name.replace("12-", "13-"), name.replace("55-", "56-"), name.replace(".cm", "0.cm"), format!("{name}.cm")]
        {
            assert_eq!(parse_config_file_name(&sealer, &forged), None, "{forged}");
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        let sealer = Sealer::from_key([7; 32]);
        for name in
            ["", ".cm", "unprovisioned.cm", "1-2-3.cm", "1-zz1122334455-0123456789.cm", "--.cm", "1-001122334455.cm"]
        {
            assert_eq!(parse_config_file_name(&sealer, name), None, "{name}");
        }
    }
}
