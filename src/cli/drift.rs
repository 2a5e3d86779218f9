//! `drift list` and `drift sweep`: where mail rows, RADIUS rows, DHCP rows or modems differ from what is desired.

use clap::Subcommand;

use super::context::Context;
use super::deed::note;
use super::exit::{CliError, Exit};
use crate::provision::ElementKind;
use crate::store::drift::{self, Sweep};

/// The commands of `lastmile drift`.
#[derive(Subcommand)]
pub enum DriftCommand {
    /// List differences; exit 3 when one is open.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Also those that were healed.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: i64,
    },
    /// Let the daemon look at everything now instead of at its next time.
    Sweep,
}

/// Runs one of them.
pub async fn run(command: DriftCommand, context: &Context) -> Result<Exit, CliError> {
    let store = context.store().await?;
    match command {
        DriftCommand::List { tenant, all, limit } => {
            let mut tx = store.read().await?;
            let listed = drift::list(&mut tx, (tenant.as_deref(), None), None, all, 0, limit).await?;
            let open = listed.iter().any(|found| found.healed_at.is_none());
            if context.json {
                context.print_json(&listed)?;
            } else {
                let at = |at: Option<crate::vocabulary::Timestamp>| {
                    at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
                };
                let rows: Vec<Vec<String>> = listed
                    .into_iter()
                    .map(|found| {
                        vec![
                            found.kind,
                            found.key,
                            found.account,
                            found.detail,
                            at(found.found_at),
                            at(found.healed_at),
                        ]
                    })
                    .collect();
                context.print_table(&["KIND", "KEY", "ACCOUNT", "DIFFERENCE", "FOUND", "HEALED"], &rows)?;
            }
            Ok(if open { Exit::No } else { Exit::Done })
        }
        DriftCommand::Sweep => {
            let mut tx = store.write().await?;
            for kind in ElementKind::ALL {
                drift::keep_sweep(&mut tx, kind.as_str(), &Sweep::default()).await?;
            }
            tx.commit().await?;
            note(&store, None, "drift.sweep", "every kind", &serde_json::json!({}), context).await?;
            if !context.json {
                context.print("The daemon looks at everything now; `lastmile drift list` tells what it finds.\n")?;
            }
            Ok(Exit::Done)
        }
    }
}
