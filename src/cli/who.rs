//! `who`: whose an address was at an instant, by DHCP, by RADIUS, as a static address.

use std::net::IpAddr;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::store::leases::{Holder, holders_at};
use crate::vocabulary::parse_instant;

/// Runs it. Exit 3: nobody is known to have had the address.
pub async fn run(address: IpAddr, at: Option<String>, context: &Context) -> Result<Exit, CliError> {
    let at = match at {
        None => context.clock().now(),
        Some(text) => parse_instant(&text).ok_or_else(|| {
            CliError::usage(format!("{text:?} is no instant; write it with its offset, as in 2026-11-21T10:00:00Z"))
        })?,
    };
    let store = context.store().await?;
    let mut tx = store.read().await?;
    let found = holders_at(&mut tx, address.to_canonical(), at).await?;
    if context.json {
        context.print_json(&found)?;
    } else if !found.is_empty() {
        let headings = ["BY", "ACCOUNT", "TENANT", "DEVICE", "BEHIND", "SESSION", "USERNAME", "SINCE", "UNTIL"];
        let rows: Vec<Vec<String>> = found.iter().map(row).collect();
        context.print_table(&headings, &rows)?;
    }
    if found.is_empty() {
        return Ok(context.not_found(&format!("Nobody is known to have had {address} at {at}.")));
    }
    Ok(Exit::Done)
}

fn row(holder: &Holder) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let device = match (&holder.kind, &holder.mac) {
        (Some(kind), Some(mac)) => format!("{kind} {mac}"),
        _ => text(&holder.mac),
    };
    let behind = match (&holder.modem, &holder.cmts) {
        (Some(modem), Some(cmts)) => format!("{modem} at {cmts}"),
        _ => text(&holder.nas),
    };
    vec![
        holder.source.to_owned(),
        text(&holder.account),
        text(&holder.tenant),
        device,
        behind,
        text(&holder.session),
        text(&holder.username),
        format!("{:.0}", holder.since),
        holder.until.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
    ]
}
