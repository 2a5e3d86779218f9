//! `rollout …`: many devices moved with care, instead of a fleet reset at once.

use clap::{Args, Subcommand, ValueEnum};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::provision::{Phase, RolloutMode, RolloutPolicy};
use crate::provisioner::cmts::CmtsTable;
use crate::store::Store;
use crate::store::rollout_scope::{Choice, Scope, Which, choose};
use crate::store::rollouts::{self, NewRollout, Rollout, RolloutFilter, Turn};
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

/// Runs one of them.
pub async fn run(command: RolloutCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        RolloutCommand::Start(args) => start(&store, &args, context).await,
        RolloutCommand::List { tenant } => {
            let listed =
                rollouts::list(&mut store.read().await?, &RolloutFilter { tenant, ..RolloutFilter::default() }).await?;
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
        RolloutCommand::Pause { id } => turn(&store, id, Turn::Pause, context).await,
        RolloutCommand::Resume { id } => turn(&store, id, Turn::Resume, context).await,
        RolloutCommand::Cancel { id } => turn(&store, id, Turn::Cancel, context).await,
        RolloutCommand::Rollback { id } => turn(&store, id, Turn::RollBack, context).await,
    }
}

async fn start(store: &Store, args: &StartArgs, context: &Context) -> Result<Exit, CliError> {
    let choice = choice(args);
    if !choice.names_some() {
        return Err(CliError::usage("say which modems: --held, --behind, --all or --mac"));
    }
    let plant = CmtsTable::new(context.config()?.cmts.clone());
    let cmts_of = |address| plant.of_address(address).map(|cmts| cmts.name.clone());
    let (members, scope) = choose(store, &args.tenant, &choice, args.mode.into(), &cmts_of).await?;
    if args.dry_run || members.is_empty() {
        return tell(&scope, None, args.dry_run, context);
    }
    let slowest = plant.resets_per_minute().unwrap_or(u32::MAX);
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

/// The modems that the arguments name.
fn choice(args: &StartArgs) -> Choice {
    let which = match (args.held, args.behind, args.all) {
        (true, ..) => Some(Which::Held),
        (_, true, _) => Some(Which::Behind),
        (_, _, true) => Some(Which::All),
        _ => None,
    };
    let (plan, model, cmts) = (args.plan.clone(), args.model.clone(), args.cmts.clone());
    Choice { which, plan, model, cmts, macs: args.mac.clone() }
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
    let filter = RolloutFilter { id: Some(id), ..RolloutFilter::default() };
    let Some(rollout) = rollouts::list(&mut tx, &filter).await?.pop() else {
        return Ok(context.not_found(&format!("There is no rollout {id}.")));
    };
    let members = rollouts::members(&mut tx, id, phase, None, limit).await?;
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

async fn turn(store: &Store, id: i64, turn: Turn, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.write().await?;
    let Some(rollout) = rollouts::locked(&mut tx, id).await? else {
        return Ok(context.not_found(&format!("There is no rollout {id}.")));
    };
    let now = context.clock().now();
    let by = match rollouts::turn(&mut tx, &rollout, turn, "cli", now).await? {
        Ok(by) => by,
        Err(refusal) => return Err(CliError::no(format!("{refusal}."))),
    };
    tx.commit().await?;
    let state = match turn {
        Turn::Pause => "paused",
        Turn::Resume => rollouts::RUNNING,
        Turn::Cancel => "cancelled",
        Turn::RollBack => return taken_back(&rollout, by, context),
    };
    if context.json {
        context.print_json(&serde_json::json!({ "rollout": id, "state": state }))?;
    } else {
        context.print(&format!("Rollout {id} is {state}.\n"))?;
    }
    Ok(Exit::Done)
}

fn taken_back(rollout: &Rollout, by: Option<i64>, context: &Context) -> Result<Exit, CliError> {
    let id = rollout.id;
    if context.json {
        context.print_json(&serde_json::json!({ "rolled_back": id, "rollout": by }))?;
    } else if let Some(by) = by {
        context.print(&format!(
            "Rollout {id} is taken back: its accounts return to catalog version {}; rollout {by} brings the devices there.\n",
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
