//! `device list` and `device show`: the modems as the plant has them, and how far each is.

use clap::Subcommand;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::store::Store;
use crate::store::devices::{Whose, ask_reset, details};
use crate::store::leases::{self, UnknownDevice};
use crate::store::plant::{Device, DeviceFilter, devices};
use crate::vocabulary::MacAddress;

/// The commands of `lastmile device`.
#[derive(Subcommand)]
pub enum DeviceCommand {
    /// List devices.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those of accounts of this source.
        #[arg(long)]
        source: Option<String>,
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// Instead those that asked for an address or a file and that no account has.
        #[arg(long, conflicts_with_all = ["tenant", "source", "account"])]
        unknown: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100_000)]
        limit: usize,
    },
    /// Make a device boot, whatever it runs; its job sends the reset. With voice it waits for a silent line.
    Reset {
        /// Its MAC address, in any of the usual spellings.
        mac: MacAddress,
        /// Only if it is this tenant's.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Show one device.
    Show {
        /// Its MAC address, in any of the usual spellings.
        mac: MacAddress,
        /// Only if it is this tenant's.
        #[arg(long)]
        tenant: Option<String>,
    },
}

/// Rows read in one go.
const PAGE: i64 = 1000;

/// Runs one of them.
pub async fn run(command: DeviceCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        DeviceCommand::List { unknown: true, limit, .. } => list_unknown(&store, limit, context).await,
        DeviceCommand::List { tenant, source, account, limit, .. } => {
            let filter = DeviceFilter { tenant, source, account, limit: PAGE, ..DeviceFilter::default() };
            list(&store, filter, limit, context).await
        }
        DeviceCommand::Reset { mac, tenant } => reset(&store, mac, tenant.as_deref(), context).await,
        DeviceCommand::Show { mac, tenant } => {
            let filter = DeviceFilter { tenant, mac: Some(mac), limit: 1, ..DeviceFilter::default() };
            show(&store, filter, mac, context).await
        }
    }
}

async fn reset(store: &Store, mac: MacAddress, tenant: Option<&str>, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.write().await?;
    let asked = ask_reset(&mut tx, mac, Whose { tenant, source: None }, "cli", context.clock().now()).await?;
    let Some((element, job)) = asked else {
        return Ok(context.not_found(&format!("No account has a device {mac}.")));
    };
    tx.commit().await?;
    if context.json {
        context.print_json(&serde_json::json!({ "mac": element.key, "job": job }))?;
    } else {
        context.print(&format!(
            "Job {job} resets {}; `lastmile device show {}` tells what came of it.\n",
            element.key, element.key
        ))?;
    }
    Ok(Exit::Done)
}

async fn list(store: &Store, mut filter: DeviceFilter, limit: usize, context: &Context) -> Result<Exit, CliError> {
    let mut listed: Vec<Device> = Vec::new();
    loop {
        // A transaction a page: a long list must not hold back the database's own cleaning.
        let mut tx = store.read().await?;
        let page = devices(&mut tx, store.sealer(), &filter).await?;
        let more = page.len() as i64 == filter.limit;
        filter.after = page.last().map_or(filter.after, |device| device.id);
        listed.extend(page);
        if !more || listed.len() >= limit {
            break;
        }
    }
    listed.truncate(limit);
    if context.json {
        context.print_json(&listed)?;
    } else {
        let headings = ["MAC", "ACCOUNT", "SERVICE", "STATE", "DESIRED", "FETCHED", "LAST SEEN", "LAST ERROR"];
        let rows: Vec<Vec<String>> = listed.into_iter().map(row).collect();
        context.print_table(&headings, &rows)?;
    }
    Ok(Exit::Done)
}

async fn list_unknown(store: &Store, limit: usize, context: &Context) -> Result<Exit, CliError> {
    let mut listed: Vec<UnknownDevice> = Vec::new();
    loop {
        let mut tx = store.read().await?;
        let after = listed.last().map_or(String::new(), |device| device.mac.clone());
        let page = leases::unknown(&mut tx, &after, PAGE).await?;
        let more = page.len() as i64 == PAGE;
        listed.extend(page);
        if !more || listed.len() >= limit {
            break;
        }
    }
    listed.truncate(limit);
    if context.json {
        context.print_json(&listed)?;
    } else {
        let headings =
            ["MAC", "KIND", "CMTS", "RELAY", "VENDOR", "MODEL", "SERIAL", "SOFTWARE", "FIRST SEEN", "LAST SEEN"];
        let row = |device: UnknownDevice| {
            vec![
                device.mac,
                device.kind,
                device.cmts,
                device.relay,
                device.vendor,
                device.model,
                device.serial,
                device.software,
                format!("{:.0}", device.first_seen),
                format!("{:.0}", device.last_seen),
            ]
        };
        let rows: Vec<Vec<String>> = listed.into_iter().map(row).collect();
        context.print_table(&headings, &rows)?;
    }
    Ok(Exit::Done)
}

async fn show(store: &Store, filter: DeviceFilter, mac: MacAddress, context: &Context) -> Result<Exit, CliError> {
    let mut tx = store.read().await?;
    let Some(device) = devices(&mut tx, store.sealer(), &filter).await?.pop() else {
        return Ok(context.not_found(&format!("No account has a device {mac}.")));
    };
    let details = details(&mut tx, device.id).await?;
    if context.json {
        let mut shown = serde_json::json!(device);
        if let (Some(shown), serde_json::Value::Object(details)) = (shown.as_object_mut(), serde_json::json!(details)) {
            shown.extend(details);
        }
        context.print_json(&shown)?;
        return Ok(Exit::Done);
    }
    let facts = [
        ("MAC", device.mac.clone()),
        ("kind", device.kind.to_owned()),
        ("account", device.account.clone()),
        ("service", text(device.service.as_ref())),
        ("model", text(device.model.as_ref())),
        ("state", device.state.clone()),
        ("config file", device.config_file.clone()),
        ("desired revision", device.desired_revision.to_string()),
        ("offered revision", text(device.offered_revision)),
        ("fetched revision", text(device.fetched_revision)),
        ("confirmed revision", text(device.confirmed_revision)),
        ("last seen", text(device.last_seen)),
        ("last error", text(device.last_error.as_ref())),
    ];
    let facts = facts.into_iter().chain(details.facts());
    let rows: Vec<Vec<String>> = facts.map(|(name, value)| vec![name.to_owned(), value]).collect();
    context.print_table(&["DEVICE", ""], &rows)?;
    Ok(Exit::Done)
}

fn row(device: Device) -> Vec<String> {
    vec![
        device.mac,
        device.account,
        text(device.service),
        device.state,
        device.desired_revision.to_string(),
        text(device.fetched_revision),
        text(device.last_seen),
        text(device.last_error),
    ]
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
