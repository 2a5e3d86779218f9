//! A tenant's catalog: its bill cycles, plans and tariffs as CONTRACT §4 writes them, read and checked as a whole.
//!
//! Texts come in (the shell has read the files), a `Catalog` or every fault with `file:line:column` goes out. A catalog
//! that exists is consistent: every plan's tariff is there, every file was named by somebody.

mod bundle;
mod effect;
mod read;
mod technical;

use std::collections::{BTreeMap, BTreeSet};

pub use bundle::{Bundle, bundles_of_folder, named_files};
pub use effect::{Effect, PlanChange, compare};
pub use read::read;

use crate::account::{
    AddonProfile, DeviceModel, DocsisProfile, GardenProfile, HoldBilling, HoldKind, Known, KnownPlan, QuarantineDays,
    RadiusProfile, ServiceType, Treatment, VoiceProfile,
};
use crate::billing::Straddling;
use crate::billing::calendar::BillCycle;
use crate::billing::class::ClassRule;
use crate::billing::facts::{CorrectionPolicy, Wholesale};
use crate::billing::tariff::Tariff;
use crate::vocabulary::{Currency, TenantId, Zone};

/// One checked version of a tenant's catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    pub tenant: TenantId,
    pub name: String,
    pub parent: Option<TenantId>,
    pub currency: Currency,
    pub zone: Zone,
    pub timezone: String,
    /// In lower case.
    pub mail_domains: BTreeSet<String>,
    /// Realms of the tenant's usernames, in lower case.
    pub realms: BTreeSet<String>,
    pub corrections: CorrectionPolicy,
    /// `period_usage`: the period of usage between two reports that an edge lies between.
    pub period_usage: Straddling,
    /// How far back a service may be billed for the first time, or be changed.
    pub backdate_days: u32,
    pub holds: BTreeMap<HoldKind, HoldDefault>,
    pub garden_group: Option<String>,
    /// RADIUS group of logins that a hold blocks; missing: they are refused.
    pub blocked_group: Option<String>,
    pub quarantine: QuarantineDays,
    pub retention: Retention,
    /// `history_case = "required"`: whoever looks at address or session history must name the case.
    pub history_needs_case: bool,
    pub garden: GardenProfile,
    /// In the order they are tried.
    pub models: Vec<DeviceModel>,
    pub cycles: BTreeMap<String, Cycle>,
    pub plans: BTreeMap<String, Plan>,
    /// In the order they are tried.
    pub classes: Vec<ClassRule>,
    pub tariffs: Vec<Tariff>,
    /// Accounts of this tenant that are tenants, and what their subscribers cost.
    pub wholesale: Vec<Wholesale>,
    /// The texts it was read from.
    pub bundle: Bundle,
}

/// For how many days what a tenant's subscribers leave behind is kept, by class; `None`: for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Raw accounting records and their archives. The journal is the installation's: the longest of all tenants counts.
    pub raw: Option<u32>,
    /// Names and addresses in sessions, and leases. What was counted stays.
    pub sessions: Option<u32>,
    /// The audit.
    pub audit: Option<u32>,
    /// What was taken in and answered (kept for repeated requests).
    pub ingest: Option<u32>,
}

/// What a hold of a kind does when it does not say so itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldDefault {
    pub treatment: Option<Treatment>,
    pub billing: Option<HoldBilling>,
}

/// A bill cycle and how its periods are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    pub calendar: BillCycle,
    pub close: Close,
    pub grace_seconds: i64,
    pub approval: Approval,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// By a person or a billing system.
    Manual,
    /// By the daemon, `grace` after a period's end.
    Auto,
}

/// Whether a person approves a period's bills before they are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// A run closes.
    None,
    /// A run leaves a draft, which is checked and approved.
    Required,
}

/// What can be bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub id: String,
    /// `None`: an add-on of any type of service.
    pub service: Option<ServiceType>,
    pub tariff: Option<String>,
    pub docsis: Option<DocsisProfile>,
    pub addon: Option<AddonProfile>,
    pub voice: Option<VoiceProfile>,
    pub radius: Option<RadiusProfile>,
    pub quota_mb: Option<u32>,
}

impl Catalog {
    /// What accounts are checked against and provisioned from.
    pub fn known(&self) -> Known {
        let plan = |plan: &Plan| KnownPlan {
            service: plan.service,
            docsis: plan.docsis.clone(),
            addon: plan.addon.clone(),
            voice: plan.voice.clone(),
            radius: plan.radius.clone(),
            quota_mb: plan.quota_mb,
        };
        let treatment = |(kind, hold): (&HoldKind, &HoldDefault)| Some((*kind, hold.treatment.clone()?));
        Known {
            plans: self.plans.values().map(|known| (known.id.clone(), plan(known))).collect(),
            bill_cycles: self.cycles.keys().cloned().collect(),
            mail_domains: self.mail_domains.clone(),
            treatments: self.holds.iter().filter_map(treatment).collect(),
            zone: Some(self.zone.clone()),
            garden_group: self.garden_group.clone(),
            blocked_group: self.blocked_group.clone(),
            quarantine: self.quarantine,
            history_needs_case: self.history_needs_case,
            models: self.models.clone(),
            garden: self.garden.clone(),
        }
    }

    /// Which tariff each plan names.
    pub fn plan_tariffs(&self) -> BTreeMap<String, String> {
        self.plans.values().filter_map(|plan| Some((plan.id.clone(), plan.tariff.clone()?))).collect()
    }
}
