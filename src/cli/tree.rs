//! `account tree` and `bill rollup`: who stands under whom, and what each level costs with everything below it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::bill::PeriodArguments;
use super::context::Context;
use super::exit::{CliError, Exit};
use crate::account::roll_up;
use crate::store::billing::sums_of_period;
use crate::store::lineage::{self, Node};
use crate::store::{Store, Tx, catalog};
use crate::vocabulary::{AccountKey, Currency, Money, SourceId, TenantId};

/// Which tree.
#[derive(clap::Args)]
pub struct TreeArguments {
    #[arg(long)]
    tenant: TenantId,
    #[arg(long, default_value_t)]
    source: SourceId,
    /// At most so many levels below the first.
    #[arg(long, default_value_t = LEVELS_MAX)]
    levels: i64,
}

/// Whose sums of which period.
#[derive(clap::Args)]
pub struct RollupArguments {
    #[command(flatten)]
    of: PeriodArguments,
    #[arg(long, default_value_t)]
    source: SourceId,
    /// Only this account and what is below it; absent: every tree of the source.
    #[arg(long, value_name = "ACCOUNT")]
    under: Option<String>,
    /// Show so many levels; the sums hold all of them.
    #[arg(long, default_value_t = LEVELS_MAX)]
    levels: i64,
}

const LEVELS_MAX: i64 = 1000;
const NODES_MAX: i64 = 2_000_000;
const TOPS_MAX: i64 = 100_000;

/// `account tree`.
pub async fn show(root: Option<&str>, of: &TreeArguments, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    let mut tx = store.read_snapshot().await?;
    let mut nodes = Vec::new();
    for root in roots(&mut tx, root, &of.tenant, &of.source).await? {
        nodes.extend(in_order(lineage::below(&mut tx, &root, of.levels, NODES_MAX).await?));
    }
    if nodes.is_empty() || nodes.iter().all(|node| node.account_id.is_none()) {
        return Ok(context.not_found("Nothing stands there."));
    }
    if context.json {
        let shown = |node: &Node| {
            json!({ "account": node.external_id, "parent": node.parent, "depth": node.depth,
                "tier_label": node.tier_label, "known": node.account_id.is_some(), "closed": node.closed })
        };
        context.print_json(&nodes.iter().map(shown).collect::<Vec<Value>>())?;
        return Ok(Exit::Done);
    }
    for node in &nodes {
        let label = node.tier_label.as_ref().map(|label| format!("  [{label}]")).unwrap_or_default();
        let state = match (node.account_id, node.closed) {
            (None, _) => "  (not pushed)",
            (_, true) => "  (closed)",
            _ => "",
        };
        context.print(&format!("{}{}{label}{state}\n", indent(node), node.external_id))?;
    }
    Ok(Exit::Done)
}

/// `bill rollup`.
pub async fn sums(asked: RollupArguments, context: &Context) -> Result<Exit, CliError> {
    let tenant = TenantId::parse(&asked.of.tenant).map_err(|error| CliError::usage(format!("--tenant {error}")))?;
    let store: Store = context.store().await?;
    let mut tx = store.read_snapshot().await?;
    let Some(in_force) = catalog::in_force(&mut tx, tenant.as_str()).await? else {
        return Ok(context.not_found(&format!("There is no tenant {tenant} with a catalog.")));
    };
    let Some(cycle) = in_force.catalog.cycles.get(&asked.of.cycle) else {
        return Ok(context.not_found(&format!("{tenant} has no cycle {}.", asked.of.cycle)));
    };
    let period = match &asked.of.period {
        Some(name) => cycle.calendar.named(name).map_err(|error| CliError::usage(error.to_string()))?,
        None => cycle.calendar.previous(&cycle.calendar.period_at(context.clock().now())?)?,
    };
    let mut own: HashMap<i64, BTreeMap<String, (i64, i64)>> = HashMap::new();
    for (account, currency, minor, lines) in
        sums_of_period(&mut tx, tenant.as_str(), &asked.of.cycle, period.start).await?
    {
        own.entry(account).or_default().insert(currency, (minor, lines));
    }
    let mut rows = Vec::new();
    for root in roots(&mut tx, asked.under.as_deref(), &tenant, &asked.source).await? {
        let nodes = lineage::below(&mut tx, &root, LEVELS_MAX, NODES_MAX).await?;
        rows.extend(rolled_up(nodes, &own)?.into_iter().filter(|row| row.node.depth <= asked.levels));
    }
    if rows.is_empty() {
        return Ok(context.not_found("Nothing stands there."));
    }
    if context.json {
        context
            .print_json(&json!({ "period": period, "items": rows.iter().map(Row::shown).collect::<Vec<Value>>() }))?;
        return Ok(Exit::Done);
    }
    let cells = |row: &Row| {
        let money = |sums: &BTreeMap<String, Sum>, part: fn(&Sum) -> String| {
            sums.iter().map(|(currency, sum)| format!("{} {currency}", part(sum))).collect::<Vec<_>>().join(", ")
        };
        vec![
            format!("{}{}", indent(&row.node), row.node.external_id),
            row.node.tier_label.clone().unwrap_or_default(),
            money(&row.sums, |sum| sum.own.to_string()),
            money(&row.sums, |sum| sum.all.to_string()),
            row.lines.to_string(),
        ]
    };
    let table: Vec<Vec<String>> = rows.iter().map(cells).collect();
    context.print_table(&["ACCOUNT", "TIER", "OWN", "WITH ALL BELOW", "LINES"], &table)?;
    Ok(Exit::Done)
}

struct Row {
    node: Node,
    sums: BTreeMap<String, Sum>,
    lines: i64,
}

/// Amounts without exclusive taxes.
struct Sum {
    own: Money,
    all: Money,
}

impl Row {
    fn shown(&self) -> Value {
        let sum = |(currency, sum): (&String, &Sum)| json!({ "currency": currency, "own": sum.own.to_string(), "all": sum.all.to_string() });
        json!({ "account": self.node.external_id, "parent": self.node.parent, "depth": self.node.depth,
            "tier_label": self.node.tier_label, "lines": self.lines, "sums": self.sums.iter().map(sum).collect::<Vec<_>>() })
    }
}

/// Each node with its own sum and that of all below it.
fn rolled_up(nodes: Vec<Node>, own: &HashMap<i64, BTreeMap<String, (i64, i64)>>) -> Result<Vec<Row>, CliError> {
    let edges: Vec<(&str, Option<&str>)> =
        nodes.iter().map(|node| (node.external_id.as_str(), node.parent.as_deref())).collect();
    let of = |node: &Node| node.account_id.and_then(|id| own.get(&id)).cloned().unwrap_or_default();
    let wide = |sums: BTreeMap<String, (i64, i64)>| -> BTreeMap<String, (i128, i64)> {
        sums.into_iter().map(|(currency, (minor, lines))| (currency, (i128::from(minor), lines))).collect()
    };
    let all = roll_up(&edges, nodes.iter().map(|node| wide(of(node))).collect(), |sums, below| {
        for (currency, (minor, lines)) in below {
            let sum = sums.entry(currency.clone()).or_default();
            *sum = (sum.0 + minor, sum.1 + lines);
        }
    });
    drop(edges);
    let mut rows = Vec::with_capacity(nodes.len());
    for (node, all) in nodes.into_iter().zip(all) {
        let own = of(&node);
        let mut sums = BTreeMap::new();
        let mut count = 0;
        for (code, (minor, lines)) in all {
            count += lines;
            let currency: Currency = code.parse().map_err(|_| CliError::failed(format!("{code} is no currency")))?;
            let too_much = |_| CliError::failed(format!("what is below {} does not fit 64 bits", node.external_id));
            let all = Money::new(i64::try_from(minor).map_err(too_much)?, currency);
            let own = Money::new(own.get(&code).map_or(0, |sum| sum.0), currency);
            sums.insert(code, Sum { own, all });
        }
        rows.push(Row { node, sums, lines: count });
    }
    Ok(in_order_by(rows, |row| &row.node))
}

async fn roots(
    tx: &mut Tx,
    named: Option<&str>,
    tenant: &TenantId,
    source: &SourceId,
) -> Result<Vec<AccountKey>, CliError> {
    let names = match named {
        Some(name) => vec![name.to_owned()],
        None => lineage::tops(tx, tenant.as_str(), source.as_str(), TOPS_MAX).await?,
    };
    let key = |name: &String| {
        let external_id = AccountKey::parse_external_id(name)
            .map_err(|error| CliError::usage(format!("the account's id {error}")))?;
        Ok(AccountKey { tenant: tenant.clone(), source: source.clone(), external_id })
    };
    names.iter().map(key).collect()
}

fn in_order(nodes: Vec<Node>) -> Vec<Node> {
    in_order_by(nodes, |node| node)
}

/// Children behind their parent, as a tree is read.
fn in_order_by<T>(nodes: Vec<T>, node: impl Fn(&T) -> &Node) -> Vec<T> {
    let mut children: HashMap<Option<String>, Vec<T>> = HashMap::new();
    let mut root = None;
    for one in nodes {
        if node(&one).depth == 0 {
            root = Some(one);
        } else {
            children.entry(node(&one).parent.clone()).or_default().push(one);
        }
    }
    let mut ordered = Vec::new();
    let mut waiting: Vec<T> = root.into_iter().collect();
    while let Some(one) = waiting.pop() {
        let mut below = children.remove(&Some(node(&one).external_id.clone())).unwrap_or_default();
        below.reverse();
        waiting.extend(below);
        ordered.push(one);
    }
    ordered
}

fn indent(node: &Node) -> String {
    "  ".repeat(usize::try_from(node.depth).unwrap_or(0))
}
