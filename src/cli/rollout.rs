//! `rollout …`: many devices moved with care, instead of a fleet reset at once.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::provision::{CmContent, Content, DeviceKind, Phase, RolloutMode, RolloutPolicy};
use crate::provisioner::cmts::CmtsTable;
use crate::store::elements::{self, ElementRow};
use crate::store::rollouts::{self, Member, NewRollout, Rollout};
use crate::store::{Store, StoreError, Tx, devices, exceptions, follow};
use crate::vocabulary::MacAddress;

/// The commands of `lastmile rollout`.
#[derive(Subcommand)]
pub enum RolloutCommand {
    /// Begin a rollout over chosen modems, or count what it would do.
    Start(StartArgs),
    /// List rollouts, the newest first.
    List {
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Show a rollout and its devices.
    Show {
        id: i64,
        /// Only devices in this phase: waiting, moved, back, lost, skipped.
        #[arg(long)]
        phase: Option<Phase>,
        /// At most so many devices.
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Stop moving devices for now; what is under way ends.
    Pause { id: i64 },
    /// Go on with a paused or halted rollout.
    Resume { id: i64 },
    /// End a rollout; the devices it has not reached stay as they are.
    Cancel { id: i64 },
    /// Take back what it moved: the accounts return to the catalog before, the devices that were reset are reset again, at the
    /// rollout's rate.
    Rollback { id: i64 },
}

/// Which modems, and how.
#[derive(Args)]
pub struct StartArgs {
    #[arg(long)]
    tenant: String,
    /// Modems of accounts that `catalog apply --hold` left on the catalog before.
    #[arg(long, group = "which")]
    held: bool,
    /// Modems whose file on offer differs from the one they run.
    #[arg(long, group = "which")]
    behind: bool,
    /// Every modem.
    #[arg(long, group = "which")]
    all: bool,
    /// Only modems of this plan.
    #[arg(long)]
    plan: Option<String>,
    /// Only modems whose model begins so.
    #[arg(long)]
    model: Option<String>,
    /// Only modems last seen behind this CMTS.
    #[arg(long)]
    cmts: Option<String>,
    /// Only these modems.
    #[arg(long)]
    mac: Vec<MacAddress>,
    /// How each modem takes its new file. `reset-all` resets also those whose file is the same, for example after a shared
    /// secret was rotated.
    #[arg(long, value_enum, default_value_t = ModeArg::NextBoot)]
    mode: ModeArg,
    /// Modems moved first; the others follow when all of these are back.
    #[arg(long, default_value_t = RolloutPolicy::default().canary)]
    canary: u32,
    /// Modems moved in a minute behind one CMTS. Never more than its `resets_per_minute`.
    #[arg(long, default_value_t = RolloutPolicy::default().per_minute)]
    per_minute: u32,
    /// Halt when more than this part does not come back.
    #[arg(long, default_value_t = RolloutPolicy::default().halt_percent)]
    halt_percent: u32,
    /// Seconds in which a modem must be back.
    #[arg(long, default_value_t = RolloutPolicy::default().back_within_seconds)]
    back_within: u32,
    /// Only in the maintenance window of `[reset]`.
    #[arg(long)]
    in_window: bool,
    /// Why, for the record.
    #[arg(long, default_value = "by an operator")]
    reason: String,
    /// Only count: modems, boots, voice, by CMTS.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    NextBoot,
    Reset,
    ResetAll,
}

/// What a rollout would do.
#[derive(Debug, Default, Serialize)]
struct Scope {
    modems: u64,
    /// Modems that it makes boot.
    reboot: u64,
    reboot_with_voice: u64,
    /// Modems that were never seen: they take their file when they boot.
    never_seen: u64,
    by_cmts: BTreeMap<String, u64>,
}

/// Rows read in one go.
const PAGE: i64 = 1000;
/// Stands for modems that are behind no CMTS that is known.
const NO_CMTS: &str = "-";

/// Runs one of them.
pub async fn run(command: RolloutCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        RolloutCommand::Start(args) => start(&store, &args, context).await,
        RolloutCommand::List { tenant } => {
            let listed = rollouts::list(&mut store.read().await?, tenant.as_deref(), None, None).await?;
            if context.json {
                context.print_json(&listed)?;
                return Ok(Exit::Done);
            }
            let headings =
                ["ID", "TENANT", "REASON", "STATE", "WAITING", "MOVED", "BACK", "LOST", "SKIPPED", "STARTED"];
            context.print_table(&headings, &listed.iter().map(row).collect::<Vec<_>>())?;
            Ok(Exit::Done)
        }
        RolloutCommand::Show { id, phase, limit } => show(&store, id, phase, limit, context).await,
        RolloutCommand::Pause { id } => turn(&store, id, "paused", &["running"], context).await,
        RolloutCommand::Resume { id } => turn(&store, id, "running", &["paused", "halted"], context).await,
        RolloutCommand::Cancel { id } => turn(&store, id, "cancelled", &["running", "paused", "halted"], context).await,
        RolloutCommand::Rollback { id } => rollback(&store, id, context).await,
    }
}

async fn start(store: &Store, args: &StartArgs, context: &Context) -> Result<Exit, CliError> {
    if !(args.held || args.behind || args.all || !args.mac.is_empty()) {
        return Err(CliError::usage("say which modems: --held, --behind, --all or --mac"));
    }
    let plant = CmtsTable::new(context.config()?.cmts.clone());
    let (members, scope) = choose(store, args, &plant).await?;
    if args.dry_run || members.is_empty() {
        return tell(&scope, None, args.dry_run, context);
    }
    let slowest = plant.all().map(|cmts| cmts.resets_per_minute).min().unwrap_or(u32::MAX);
    let policy = RolloutPolicy {
        mode: args.mode.into(),
        canary: args.canary,
        per_minute: args.per_minute.min(slowest).max(1),
        halt_percent: args.halt_percent,
        back_within_seconds: args.back_within,
        in_window: args.in_window,
        keep_held: false,
    };
    let new = NewRollout { tenant: &args.tenant, reason: &args.reason, policy: &policy, by: "cli" };
    let mut tx = store.write().await?;
    let id = rollouts::begin(&mut tx, &new, &members, context.clock().now()).await?;
    tx.commit().await?;
    match id {
        Some(id) => tell(&scope, Some(id), false, context),
        None => Ok(context.not_found(&format!("There is no tenant {}.", args.tenant))),
    }
}

/// The modems that the arguments name, and what moving them means.
async fn choose(store: &Store, args: &StartArgs, plant: &CmtsTable) -> Result<(Vec<Member>, Scope), StoreError> {
    let (mut members, mut scope, mut after) = (Vec::new(), Scope::default(), 0);
    loop {
        // A transaction a page: a long list must not hold back the database's own cleaning.
        let mut tx = store.read().await?;
        let page = elements::of_kind(&mut tx, DeviceKind::Cm.element(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for element in page.iter().filter(|element| element.tenant == args.tenant) {
            if let Some(cm) = wanted(element, args) {
                let known = devices::one(&mut tx, element.id).await?;
                let held = args.held && is_held(&mut tx, element.account_id).await?;
                let behind = known.is_behind();
                if (args.held && !held) || (args.behind && !behind) {
                    continue;
                }
                let address = element.last_seen_from.as_deref().and_then(|from| from.parse().ok());
                let cmts = address.and_then(|address| plant.of_address(address)).map(|cmts| cmts.name.clone());
                let cmts = cmts.unwrap_or_else(|| NO_CMTS.to_owned());
                if args.cmts.as_ref().is_some_and(|name| *name != cmts) {
                    continue;
                }
                scope.count(&cmts, cm.voice, known.running.is_some(), boots(args.mode, held, behind));
                let (element_id, account_id) = (element.id, element.account_id);
                members.push(Member { element_id, account_id, mac: element.key.clone(), cmts, voice: cm.voice });
            }
        }
    }
    Ok((members, scope))
}

fn wanted<'a>(element: &'a ElementRow, args: &StartArgs) -> Option<&'a CmContent> {
    let Content::Cm(cm) = &element.desired else { return None };
    let of_plan = args.plan.is_none() || cm.plan == args.plan;
    let model = cm.model.as_deref().unwrap_or_default();
    let of_model = args.model.as_deref().is_none_or(|begin| model.starts_with(begin));
    let named = args.mac.is_empty() || args.mac.contains(&cm.mac);
    (of_plan && of_model && named).then_some(cm)
}

async fn is_held(tx: &mut Tx, account_id: i64) -> Result<bool, StoreError> {
    Ok(follow::of(tx, account_id).await?.is_some_and(|following| following.held))
}

/// Whether the rollout makes the modem boot. What a held account will want is known when it is moved: it counts.
fn boots(mode: ModeArg, held: bool, behind: bool) -> bool {
    match mode {
        ModeArg::NextBoot => false,
        ModeArg::Reset => held || behind,
        ModeArg::ResetAll => true,
    }
}

impl Scope {
    fn count(&mut self, cmts: &str, voice: bool, seen: bool, boots: bool) {
        self.modems += 1;
        *self.by_cmts.entry(cmts.to_owned()).or_default() += 1;
        self.never_seen += u64::from(!seen);
        if boots && seen {
            self.reboot += 1;
            self.reboot_with_voice += u64::from(voice);
        }
    }
}

fn tell(scope: &Scope, id: Option<i64>, dry_run: bool, context: &Context) -> Result<Exit, CliError> {
    if context.json {
        context.print_json(&serde_json::json!({ "rollout": id, "dry_run": dry_run, "scope": scope }))?;
        return Ok(Exit::Done);
    }
    let mut text = match (id, scope.modems) {
        (Some(id), _) => format!("Rollout {id} begins.\n"),
        (None, 0) => "No modem is concerned; nothing was begun.\n".to_owned(),
        (None, _) => "Nothing is begun: this only counts.\n".to_owned(),
    };
    text.push_str(&format!(
        "{} modems; {} reboot, {} with voice; {} never seen\n",
        scope.modems, scope.reboot, scope.reboot_with_voice, scope.never_seen
    ));
    for (cmts, modems) in &scope.by_cmts {
        text.push_str(&format!("  {cmts}: {modems}\n"));
    }
    context.print(&text)?;
    Ok(Exit::Done)
}

async fn show(store: &Store, id: i64, phase: Option<Phase>, limit: i64, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let Some(rollout) = rollouts::list(&mut tx, None, None, Some(id)).await?.pop() else {
        return Ok(context.not_found(&format!("There is no rollout {id}.")));
    };
    let members = rollouts::members(&mut tx, id, phase, limit).await?;
    if context.json {
        context.print_json(&serde_json::json!({ "rollout": rollout, "members": members }))?;
        return Ok(Exit::Done);
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let facts = [
        ("rollout", rollout.id.to_string()),
        ("tenant", rollout.tenant.clone()),
        ("reason", rollout.reason.clone()),
        ("state", rollout.state.clone()),
        ("note", text(&rollout.note)),
        ("mode", format!("{:?}", rollout.policy.mode)),
        ("canary", rollout.policy.canary.to_string()),
        ("per minute and CMTS", rollout.policy.per_minute.to_string()),
        (
            "halts above",
            format!("{} % not back in {} s", rollout.policy.halt_percent, rollout.policy.back_within_seconds),
        ),
        ("waiting", rollout.waiting.to_string()),
        ("moved", rollout.moved.to_string()),
        ("back", rollout.back.to_string()),
        ("lost", rollout.lost.to_string()),
        ("skipped", rollout.skipped.to_string()),
    ];
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    context.print_table(&["ROLLOUT", ""], &rows)?;
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| {
            let moved = member.moved_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
            vec![
                member.mac.clone(),
                member.cmts.clone(),
                member.phase.clone(),
                moved,
                member.state.clone(),
                text(&member.evidence),
            ]
        })
        .collect();
    context.print_table(&["MAC", "CMTS", "PHASE", "MOVED", "STATE", "EVIDENCE"], &rows)?;
    Ok(Exit::Done)
}

async fn turn(store: &Store, id: i64, state: &str, from: &[&str], context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.write().await?;
    let Some(rollout) = rollouts::list(&mut tx, None, None, Some(id)).await?.pop() else {
        return Ok(context.not_found(&format!("There is no rollout {id}.")));
    };
    if !from.contains(&rollout.state.as_str()) {
        return Err(CliError::no(format!("Rollout {id} is {} and cannot become {state}.", rollout.state)));
    }
    let now = context.clock().now();
    rollouts::set_state(&mut tx, &rollout, state, None, "cli", now).await?;
    exceptions::release_subject(&mut tx, rollouts::EXCEPTION_KIND, &format!("rollout {id}"), "cli", now).await?;
    tx.commit().await?;
    if context.json {
        context.print_json(&serde_json::json!({ "rollout": id, "state": state }))?;
    } else {
        context.print(&format!("Rollout {id} is {state}.\n"))?;
    }
    Ok(Exit::Done)
}

async fn rollback(store: &Store, id: i64, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.write().await?;
    let Some(rollout) = rollouts::list(&mut tx, None, None, Some(id)).await?.pop() else {
        return Ok(context.not_found(&format!("There is no rollout {id}.")));
    };
    if rollout.state == "rolled_back" || rollout.policy.keep_held {
        let message = format!("Rollout {id} was taken back before, or is a rollback itself; nothing is done.");
        return Err(CliError::no(message));
    }
    let now = context.clock().now();
    let back = rollouts::roll_back(&mut tx, &rollout, "cli", now).await?;
    exceptions::release_subject(&mut tx, rollouts::EXCEPTION_KIND, &format!("rollout {id}"), "cli", now).await?;
    tx.commit().await?;
    if context.json {
        context.print_json(&serde_json::json!({ "rolled_back": id, "rollout": back }))?;
    } else if let Some(back) = back {
        context.print(&format!(
            "Rollout {id} is taken back: its accounts return to catalog version {}; rollout {back} brings the devices there.\n",
            rollout.before_version
        ))?;
    }
    Ok(Exit::Done)
}

fn row(rollout: &Rollout) -> Vec<String> {
    vec![
        rollout.id.to_string(),
        rollout.tenant.clone(),
        rollout.reason.clone(),
        rollout.state.clone(),
        rollout.waiting.to_string(),
        rollout.moved.to_string(),
        rollout.back.to_string(),
        rollout.lost.to_string(),
        rollout.skipped.to_string(),
        format!("{:.0}", rollout.created_at),
    ]
}

impl From<ModeArg> for RolloutMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::NextBoot => Self::NextBoot,
            ModeArg::Reset => Self::Reset,
            ModeArg::ResetAll => Self::ResetAll,
        }
    }
}
