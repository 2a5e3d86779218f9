//! Reads a catalog's texts and checks them as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::{Approval, Bundle, Catalog, Close, Cycle, HoldDefault, Plan, Retention, technical};
use crate::account::{
    DeviceModel, GardenProfile, HoldBilling, HoldKind, QuarantineDays, RadiusProfile, ServiceType, Treatment,
};
use crate::billing::Straddling;
use crate::billing::calendar::{BillCycle, Every};
use crate::billing::class::ClassRule;
use crate::billing::facts::{CorrectionPolicy, Wholesale};
use crate::billing::tariff::{Tariff, canonical, read_section};
use crate::vocabulary::{AccountKey, Currency, Date, Exact, Fault, Section, SourceId, TenantId, TomlFile, Value, Zone};

/// Reads one catalog. **Errors**: every fault of every file, with its place.
pub fn read(bundle: &Bundle) -> Result<Catalog, Vec<Fault>> {
    let file = TomlFile::new(&bundle.main, bundle.main_text());
    let mut faults = Vec::new();
    let catalog = file.read().and_then(|table| {
        let mut root = file.section(&table);
        let catalog = catalog(&mut root, bundle, &mut faults);
        root.finish();
        catalog
    });
    let sound = !file.has_faults() && faults.is_empty();
    match catalog.filter(|_| sound) {
        Some(catalog) => Ok(catalog),
        None => {
            let mut all = file.into_faults();
            all.append(&mut faults);
            Err(all)
        }
    }
}

fn catalog(root: &mut Section<'_>, bundle: &Bundle, faults: &mut Vec<Fault>) -> Option<Catalog> {
    let tenant = root.required("tenant").and_then(|value| value.section()).and_then(tenant);
    let timezone = tenant.as_ref().map(|tenant| tenant.timezone.clone());
    let Holds { holds, garden_group, blocked_group } = match root.value("holds") {
        Some(value) => value.section().and_then(holds)?,
        None => Holds::default(),
    };
    let quarantine = match root.value("quarantine") {
        Some(value) => value.section().and_then(quarantine)?,
        None => QuarantineDays::default(),
    };
    let quarantine = quarantine.with_grace(tenant.as_ref().and_then(|tenant| tenant.delete_grace_days));
    let garden = match root.value("garden") {
        Some(value) => value.section().and_then(technical::garden),
        None => Some(GardenProfile::default()),
    };
    let classes: Option<Vec<ClassRule>> = root.sections("usage_class").into_iter().map(usage_class).collect();
    let models: Option<Vec<DeviceModel>> = root.sections("device_model").into_iter().map(technical::model).collect();
    let cycles = keyed(
        root.sections("bill_cycle").into_iter().map(|section| cycle(section, timezone.as_deref())),
        |cycle: &Cycle| &cycle.calendar.id,
        root,
        "bill_cycle",
    );
    let tables: Vec<toml::Table> = inline_tables(bundle.main_text());
    let mut tariffs = Vec::new();
    let mut sound = true;
    for (index, section) in root.sections("tariff").into_iter().enumerate() {
        match tariff(section, tables.get(index), bundle, faults) {
            Some(tariff) => tariffs.push(tariff),
            None => sound = false,
        }
    }
    sound &= distinct(&tariffs, root);
    let known: BTreeSet<&str> = tariffs.iter().map(|tariff| tariff.id.as_str()).collect();
    let plans = keyed(
        // With a tariff that could not be read, a missing reference is no news.
        root.sections("plan").into_iter().map(|section| plan(section, sound.then_some(&known))),
        |plan: &Plan| &plan.id,
        root,
        "plan",
    );
    let wholesale: Option<Vec<Wholesale>> =
        root.sections("wholesale").into_iter().map(|section| wholesale(section, sound.then_some(&known))).collect();
    sound &= bundles_are_sold(&tariffs, root);
    let (tenant, cycles, plans, models) = (tenant?, cycles?, plans?, models?);
    for (index, model) in models.iter().enumerate() {
        if models[..index].iter().any(|other| other.id == model.id) {
            root.fault(format!("device_model `{}` is there twice", model.id));
            return None;
        }
    }
    check_profiles(&holds, &plans, root);
    sound.then_some(Catalog {
        tenant: tenant.id,
        name: tenant.name,
        parent: tenant.parent,
        currency: tenant.currency,
        zone: tenant.zone,
        timezone: tenant.timezone,
        mail_domains: tenant.mail_domains,
        realms: tenant.realms,
        corrections: tenant.corrections,
        period_usage: tenant.period_usage,
        backdate_days: tenant.backdate_days,
        retention: tenant.retention,
        history_needs_case: tenant.history_needs_case,
        holds,
        garden_group,
        blocked_group,
        quarantine,
        garden: garden?,
        models,
        cycles,
        plans,
        classes: classes?,
        tariffs,
        wholesale: wholesale?,
        bundle: bundle.clone(),
    })
}

struct Tenant {
    id: TenantId,
    name: String,
    parent: Option<TenantId>,
    currency: Currency,
    zone: Zone,
    timezone: String,
    mail_domains: BTreeSet<String>,
    realms: BTreeSet<String>,
    corrections: CorrectionPolicy,
    period_usage: Straddling,
    backdate_days: u32,
    /// For how many days what is deleted comes back as it was.
    delete_grace_days: Option<u32>,
    retention: Retention,
    history_needs_case: bool,
}

fn tenant(mut section: Section<'_>) -> Option<Tenant> {
    let id = section.required_parsed::<TenantId>("id");
    let name = section.text("name");
    let parent = section.parsed::<TenantId>("parent");
    let currency = section.required_parsed::<Currency>("currency");
    let zone = section.required("timezone").and_then(|value| zone(&value));
    let mail_domains = words(section.value("mail_domains"));
    let realms = words(section.value("realms"));
    let corrections = match section.value("corrections") {
        Some(value) => value.section().and_then(corrections),
        None => Some(CorrectionPolicy::default()),
    };
    let period_usage = match section.value("period_usage") {
        Some(value) => value.choice(&[("prorata", Straddling::Prorata), ("report", Straddling::Report)]),
        None => Some(Straddling::default()),
    };
    let backdate_days = match section.value("backdate_days") {
        Some(value) => value.integer(0..MOST_BACKDATE_DAYS + 1),
        None => Some(DEFAULT_BACKDATE_DAYS),
    };
    let delete_grace = match section.value("delete_grace") {
        Some(value) => whole_days(&value).map(Some),
        None => Some(None),
    };
    let retention = match section.value("retention") {
        Some(value) => value.section().and_then(retention),
        None => Some(Retention::default()),
    };
    let history_needs_case = match section.value("history_case") {
        Some(value) => value.choice(&[("recorded", false), ("required", true)]),
        None => Some(false),
    };
    section.finish();
    let (id, (zone, timezone)) = (id?, zone?);
    Some(Tenant {
        name: name.unwrap_or_else(|| id.to_string()),
        id,
        parent,
        currency: currency?,
        zone,
        timezone,
        mail_domains: mail_domains?,
        realms: realms?,
        corrections: corrections?,
        period_usage: period_usage?,
        backdate_days: u32::try_from(backdate_days?).ok()?,
        delete_grace_days: delete_grace?,
        retention: retention?,
        history_needs_case: history_needs_case?,
    })
}

/// Each at least a day: what is dropped sooner was never kept.
fn retention(mut section: Section<'_>) -> Option<Retention> {
    let mut days = |key: &'static str| match section.value(key) {
        Some(value) => duration_seconds(&value).and_then(|seconds| match u32::try_from(seconds / DAY_SECONDS) {
            Ok(days) if days > 0 => Some(Some(days)),
            _ => {
                value.fault("must be at least a day, as in \"180d\"");
                None
            }
        }),
        None => Some(None),
    };
    let (raw, sessions, audit, ingest) = (days("raw"), days("sessions"), days("audit"), days("ingest"));
    section.finish();
    Some(Retention { raw: raw?, sessions: sessions?, audit: audit?, ingest: ingest? })
}

fn whole_days(value: &Value<'_>) -> Option<u32> {
    let seconds = duration_seconds(value)?;
    let days = u32::try_from(seconds / DAY_SECONDS).ok().filter(|days| u64::from(*days) <= MOST_QUARANTINE_DAYS);
    if days.is_none() || seconds % DAY_SECONDS != 0 {
        value.fault(format!("is of whole days, at most {MOST_QUARANTINE_DAYS}d"));
        return None;
    }
    days
}

fn corrections(mut section: Section<'_>) -> Option<CorrectionPolicy> {
    let age = match section.value("debit_max_age") {
        Some(value) => duration_seconds(&value).map(|seconds| u32::try_from(seconds / DAY_SECONDS).ok()),
        None => Some(None),
    };
    let least = match section.value("min_amount") {
        Some(value) => value.parse::<Exact>().map(Some),
        None => Some(None),
    };
    if let Some(value) = section.value("after") {
        value.choice(&[("report", ())])?;
    }
    section.finish();
    Some(CorrectionPolicy { debit_max_age_days: age?, min_amount: least? })
}

#[derive(Default)]
struct Holds {
    holds: BTreeMap<HoldKind, HoldDefault>,
    garden_group: Option<String>,
    blocked_group: Option<String>,
}

fn holds(mut section: Section<'_>) -> Option<Holds> {
    let (garden_group, blocked_group) = (section.text("garden_group"), section.text("blocked_group"));
    let mut defaults = BTreeMap::new();
    for (key, kind) in HOLD_KINDS {
        let Some(value) = section.value(key) else { continue };
        let mut table = value.section()?;
        let treatment = table.parsed::<Treatment>("treatment");
        let billing = table.value("billing");
        let word = billing.as_ref().and_then(|value| value.choice(HOLD_BILLING));
        if word == Some(HoldBilling::None)
            && let Some(value) = &billing
        {
            value.fault("holds of a kind cannot stop billing by default in this release; say it on the hold itself");
        }
        table.finish();
        defaults.insert(*kind, HoldDefault { treatment, billing: word });
    }
    section.finish();
    Some(Holds { holds: defaults, garden_group, blocked_group })
}

fn quarantine(mut section: Section<'_>) -> Option<QuarantineDays> {
    let usual = QuarantineDays::default();
    let mut days = |key: &'static str, usual: u32| match section.value(key) {
        Some(value) => value.integer(0..MOST_QUARANTINE_DAYS + 1).and_then(|days| u32::try_from(days).ok()),
        None => Some(usual),
    };
    let (mailbox, number) = (days("mailbox_days", usual.mailbox), days("number_days", usual.number));
    section.finish();
    Some(QuarantineDays { mailbox: mailbox?, number: number?, grace: None })
}

/// One rule that names the class of sessions.
fn usage_class(mut section: Section<'_>) -> Option<ClassRule> {
    let id = section.required("id").and_then(|value| short(&value));
    let classes = texts(section.value("class"));
    let nas = texts(section.value("nas"));
    let realms = texts(section.value("realm"));
    let services: Option<Vec<ServiceType>> = match section.value("service") {
        Some(value) => one_or_more(&value).and_then(|items| items.iter().map(Value::parse).collect()),
        None => Some(Vec::new()),
    };
    let rule = ClassRule {
        id: id?,
        classes: classes?,
        nas: nas?,
        realms: realms?.iter().map(|realm| realm.to_lowercase()).collect(),
        services: services?,
    };
    if rule == (ClassRule { id: rule.id.clone(), ..ClassRule::default() }) {
        section.fault("a class is told by at least one of `class`, `nas`, `realm` and `service`");
        return None;
    }
    section.finish();
    Some(rule)
}

/// A text, or a list of texts.
fn texts(value: Option<Value<'_>>) -> Option<Vec<String>> {
    let Some(value) = value else { return Some(Vec::new()) };
    one_or_more(&value)?.iter().map(|item| item.text().map(str::to_owned)).collect()
}

fn one_or_more<'d>(value: &Value<'d>) -> Option<Vec<Value<'d>>> {
    if value.is_list() { value.list() } else { Some(vec![value.clone()]) }
}

fn cycle(mut section: Section<'_>, tenant_zone: Option<&str>) -> Option<Cycle> {
    let id = section.required("id").and_then(|value| short(&value));
    let every = section.required("every").and_then(|value| every(&value));
    let most = if every == Some(Every::Week) { 8 } else { 32 };
    let anchor_day = match section.value("anchor_day") {
        Some(value) => value.integer(1..most),
        None => Some(1),
    };
    let own_zone = match section.value("timezone") {
        Some(value) => zone(&value),
        None => tenant_zone.and_then(|name| Some((Zone::get(name).ok()?, name.to_owned()))),
    };
    let close = match section.value("close") {
        Some(value) => value.choice(&[("manual", Close::Manual), ("auto", Close::Auto)]),
        None => Some(Close::Manual),
    };
    let grace_seconds = match section.value("grace") {
        Some(value) => duration_seconds(&value),
        None => Some(DEFAULT_GRACE_SECONDS),
    };
    let approval = match section.value("approval") {
        Some(value) => value.choice(&[("none", Approval::None), ("required", Approval::Required)]),
        None => Some(Approval::None),
    };
    section.finish();
    let (zone, timezone) = own_zone?;
    let anchor_day = u8::try_from(anchor_day?).ok()?;
    let calendar = BillCycle { id: id?, anchor_day, every: every?, zone, timezone };
    Some(Cycle { calendar, close: close?, grace_seconds: grace_seconds?, approval: approval? })
}

fn every(value: &Value<'_>) -> Option<Every> {
    if value.is_text() {
        return value.choice(&[("month", Every::Month), ("week", Every::Week), ("day", Every::Day)]);
    }
    let mut table = value.section()?;
    let days = table.value("days");
    let months = table.value("months");
    table.finish();
    match (days, months) {
        (Some(days), None) => Some(Every::Days(u16::try_from(days.integer(1..367)?).ok()?)),
        (None, Some(months)) => Some(Every::Months(u16::try_from(months.integer(1..61)?).ok()?)),
        _ => {
            value.fault("`every` is \"month\", \"week\", \"day\", { days = N } or { months = N }");
            None
        }
    }
}

fn plan(mut section: Section<'_>, tariffs: Option<&BTreeSet<&str>>) -> Option<Plan> {
    let id = section.required("id").and_then(|value| short(&value));
    let service = section.parsed::<ServiceType>("service");
    let tariff = section.value("tariff");
    let docsis = match section.value("docsis") {
        Some(value) => value.section().and_then(technical::docsis).map(Some),
        None => Some(None),
    };
    let addon = match section.value("docsis_addon") {
        Some(value) => value.section().and_then(technical::addon).map(Some),
        None => Some(None),
    };
    let voice = match section.value("voice") {
        Some(value) => value.section().and_then(technical::voice).map(Some),
        None => Some(None),
    };
    let radius = match section.value("radius") {
        Some(value) => value.section().and_then(radius).map(Some),
        None => Some(None),
    };
    let quota_mb = match section.value("mailbox") {
        Some(value) => value.section().and_then(|mut table| {
            let quota = table.integer("quota_mb", 1..MOST_QUOTA_MB + 1);
            table.finish();
            quota.map(Some)
        }),
        None => Some(None),
    };
    section.finish();
    let tariff = match tariff {
        Some(value) => {
            let name = value.text()?;
            if tariffs.is_some_and(|known| !known.contains(name)) {
                value.fault(format!("there is no tariff `{name}` in this catalog"));
                return None;
            }
            Some(name.to_owned())
        }
        None => None,
    };
    Some(Plan {
        id: id?,
        service,
        tariff,
        docsis: docsis?,
        addon: addon?,
        voice: voice?,
        radius: radius?,
        quota_mb: quota_mb?.and_then(|quota| u32::try_from(quota).ok()),
    })
}

fn radius(mut section: Section<'_>) -> Option<RadiusProfile> {
    let group = section.text("group");
    let mut reply = BTreeMap::new();
    if let Some(value) = section.value("reply") {
        for (attribute, value) in value.section()?.entries() {
            let values = match value.is_text() {
                true => value.text()?.into(),
                false => {
                    let values: Option<Vec<String>> =
                        value.list()?.iter().map(|value| value.text().map(str::to_owned)).collect();
                    values?.into()
                }
            };
            reply.insert(attribute, values);
        }
    }
    let chap = match section.value("chap") {
        Some(value) => value.flag()?,
        None => false,
    };
    section.finish();
    Some(RadiusProfile { group, reply, chap })
}

/// A tariff in place or in the file it names.
fn tariff(
    mut section: Section<'_>,
    table: Option<&toml::Table>,
    bundle: &Bundle,
    faults: &mut Vec<Fault>,
) -> Option<Tariff> {
    let Some(value) = section.value("file") else {
        return read_section(section, table.map(canonical).unwrap_or_default());
    };
    section.finish();
    let name = value.text()?;
    let Some(text) = bundle.files.get(name) else {
        value.fault(format!("there is no file {name:?} beside this catalog"));
        return None;
    };
    match Tariff::read(name, text) {
        Ok(tariff) => Some(tariff),
        Err(mut own) => {
            faults.append(&mut own);
            None
        }
    }
}

/// Which account is which tenant, and by which tariff that tenant's subscribers are charged.
fn wholesale(mut section: Section<'_>, tariffs: Option<&BTreeSet<&str>>) -> Option<Wholesale> {
    let tenant = section.required_parsed::<TenantId>("tenant");
    let account = section.required("account").and_then(|value| match AccountKey::parse_external_id(value.text()?) {
        Ok(id) => Some(id),
        Err(error) => {
            value.fault(error.to_string());
            None
        }
    });
    let source = match section.value("source") {
        Some(value) => value.parse::<SourceId>(),
        None => Some(SourceId::default()),
    };
    let tariff = section.required("tariff").and_then(|value| {
        let name = value.text()?;
        if tariffs.is_some_and(|known| !known.contains(name)) {
            value.fault(format!("there is no tariff `{name}` in this catalog"));
            return None;
        }
        Some(name.to_owned())
    });
    let from = section.required_parsed::<Date>("from");
    let until = match section.value("until") {
        Some(value) => value.parse::<Date>().map(Some),
        None => Some(None),
    };
    section.finish();
    Some(Wholesale {
        tenant: tenant?.to_string(),
        source: source?.to_string(),
        account: account?,
        tariff: tariff?,
        from: from?,
        until: until?,
    })
}

/// A bundle with what nobody sells would be a discount nobody gets.
fn bundles_are_sold(tariffs: &[Tariff], root: &Section<'_>) -> bool {
    let mut sound = true;
    for tariff in tariffs {
        for name in tariff.discounts.iter().flat_map(|discount| &discount.condition.requires) {
            if !tariffs.iter().any(|other| other.id == *name) {
                root.fault(format!("tariff `{}` has a bundle with `{name}`, and there is no such tariff", tariff.id));
                sound = false;
            }
        }
    }
    sound
}

fn inline_tables(text: &str) -> Vec<toml::Table> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let tariffs = table.get("tariff").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    tariffs.iter().map(|tariff| tariff.as_table().cloned().unwrap_or_default()).collect()
}

fn distinct(tariffs: &[Tariff], root: &Section<'_>) -> bool {
    let mut seen: BTreeMap<(&str, u32), ()> = BTreeMap::new();
    let mut sound = true;
    for tariff in tariffs {
        if seen.insert((&tariff.id, tariff.version), ()).is_some() {
            root.fault(format!("tariff `{}` version {} is there twice", tariff.id, tariff.version));
            sound = false;
        }
    }
    sound
}

/// Gathers items by id; a second one of the same id is a fault.
fn keyed<T>(
    items: impl Iterator<Item = Option<T>>,
    id: impl Fn(&T) -> &String,
    root: &Section<'_>,
    what: &str,
) -> Option<BTreeMap<String, T>> {
    let mut map = BTreeMap::new();
    let mut sound = true;
    for item in items {
        let Some(item) = item else {
            sound = false;
            continue;
        };
        let key = id(&item).clone();
        if map.contains_key(&key) {
            root.fault(format!("{what} `{key}` is there twice"));
            sound = false;
        }
        map.insert(key, item);
    }
    sound.then_some(map)
}

/// A throttled service gets the rates of a plan, so the plan must be there.
fn check_profiles(holds: &BTreeMap<HoldKind, HoldDefault>, plans: &BTreeMap<String, Plan>, root: &Section<'_>) {
    for (kind, hold) in holds {
        if let Some(Treatment::Throttle(profile)) = &hold.treatment
            && !plans.contains_key(profile)
        {
            root.fault(format!("holds of kind {kind} throttle to `{profile}`, and there is no such plan"));
        }
    }
}

fn zone(value: &Value<'_>) -> Option<(Zone, String)> {
    let name = value.text()?;
    match Zone::get(name) {
        Ok(zone) => Some((zone, name.to_owned())),
        Err(_) => {
            value.fault(format!("{name:?} is no time zone of the IANA database"));
            None
        }
    }
}

fn words(value: Option<Value<'_>>) -> Option<BTreeSet<String>> {
    let Some(value) = value else { return Some(BTreeSet::new()) };
    value.list()?.iter().map(|item| item.text().map(str::to_lowercase)).collect()
}

/// An id of 1 to 64 of `A-Z a-z 0-9 - _ .`, as tenants have.
fn short(value: &Value<'_>) -> Option<String> {
    value.parse::<TenantId>().map(String::from)
}

/// `90s`, `15m`, `6h`, `90d`.
fn duration_seconds(value: &Value<'_>) -> Option<i64> {
    let text = value.text()?;
    let scale = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(DAY_SECONDS),
        _ => None,
    };
    let seconds = text.char_indices().last().and_then(|(at, unit)| {
        let number: i64 = text[..at].parse().ok().filter(|number| (0..=MOST_DURATION).contains(number))?;
        Some(number * scale(unit)?)
    });
    if seconds.is_none() {
        value.fault(format!("{text:?} is no length of time; write for example 90s, 15m, 6h, 90d"));
    }
    seconds
}

const HOLD_BILLING: &[(&str, HoldBilling)] = &[("full", HoldBilling::Full), ("none", HoldBilling::None)];
const HOLD_KINDS: &[(&str, HoldKind)] = &[
    ("nonpay", HoldKind::Nonpay),
    ("abuse", HoldKind::Abuse),
    ("seasonal", HoldKind::Seasonal),
    ("fraud", HoldKind::Fraud),
    ("legal", HoldKind::Legal),
    ("admin", HoldKind::Admin),
];
const DAY_SECONDS: i64 = 86_400;
const MOST_DURATION: i64 = 1_000_000;
const DEFAULT_GRACE_SECONDS: i64 = 6 * 3600;
/// As far back as accounting records are accepted.
const DEFAULT_BACKDATE_DAYS: u64 = 400;
const MOST_BACKDATE_DAYS: u64 = 3660;
const MOST_QUARANTINE_DAYS: u64 = 3660;
const MOST_QUOTA_MB: u64 = 100_000_000;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
