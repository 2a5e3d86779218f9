//! RADIUS in: receives, verifies, makes durable, then answers; the fold that reads behind it is a task of its own.
//!
//! ```text
//! socket ─► door: known NAS? well formed? signed? seen before? ─► queue ─► commit: journal, COMMIT ─► answer
//!              └ no: silence, a counter, at most one line a minute                       └ fails: silence
//! ```
//!
//! A port's task reads datagrams; one task commits. While a commit runs the next batch queues up, so a batch is as
//! large as the load makes it and nothing waits for a timer (HOUSE decision 4). Exactly the committed set is answered;
//! after an error or an unknown outcome nothing is, the lane is left and a new one opened: the NAS sends again.
//! Connections (`radsec`) come in beside the ports and share the queue, the committer and the memory of copies.
//! Sources: RFC 2866, RFC 5080 section 2.2, RFC 5997, RFC 6614.

mod commit;
mod complaints;
pub mod dictionaries;
mod door;
mod feed;
pub mod fold;
pub mod import;
pub mod keeper;
mod nas;
mod port;
pub mod profiles;
pub mod radsec;
mod reply;
mod seen;
mod tally;
#[cfg(test)]
mod tests;
mod vigil;

use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::store::Store;
use crate::telemetry::{Heartbeats, Metrics};
use crate::vocabulary::Clock;
use commit::Committer;
use door::Door;
use port::Port;
use radsec::RadSec;
use tally::Tallies;
use vigil::Vigil;

pub use feed::{Committed, Fed, Feed};
pub use nas::{NasClient, NasTable};
pub use radsec::certificate::CertificateName;
pub use radsec::{RadSecSettings, Radius11, Ready};
pub use vigil::{ReportState, report_state};

/// What the collector is wired to.
#[derive(Clone)]
pub struct Wiring {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Who may send; a reload sends a new table.
    pub nas: watch::Receiver<Arc<NasTable>>,
    /// Told of every commit: the fold has something to read.
    pub feed: Feed,
    pub hearts: Heartbeats,
    /// Turns `true` when the daemon stops.
    pub stopping: watch::Receiver<bool>,
}

/// What is served: bound sockets.
#[derive(Default)]
pub struct Sockets {
    pub accounting: Vec<UdpSocket>,
    /// Listeners for RadSec, with what new connections are accepted with; a reload sends new settings.
    pub radsec: Option<(Vec<TcpListener>, watch::Receiver<Arc<Ready>>)>,
}

/// Serves the bound sockets until `stopping`: then nothing more is received, what is queued is committed and answered.
///
/// **Errors**: a socket that cannot be prepared for answering from the address it was asked at.
pub async fn run(sockets: Sockets, wiring: Wiring) -> std::io::Result<()> {
    let Sockets { accounting, radsec } = sockets;
    let ports: Vec<Arc<Port>> =
        accounting.into_iter().map(|socket| Port::new(socket).map(Arc::new)).collect::<std::io::Result<_>>()?;
    let (queue, queued) = mpsc::channel(QUEUE_MAX);
    let committer = Committer::new(&wiring, ports.clone(), queued);
    let tallies = Arc::new(Tallies::new(wiring.metrics.clone()));
    let door = Arc::new(Door::new(&wiring, queue, committer.seen(), Arc::clone(&tallies)));
    let mut tasks = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let beat = wiring.hearts.register(format!("RADIUS port {}", port.address()));
        tasks.spawn(door::receive(Arc::clone(&door), port, index, beat, wiring.stopping.clone()));
    }
    if let Some((listeners, settings)) = radsec {
        let radsec = Arc::new(RadSec::new(&wiring, Arc::clone(&door), settings));
        for listener in listeners {
            let beat = wiring.hearts.register(format!("RadSec port {}", listener.local_addr()?));
            tasks.spawn(Arc::clone(&radsec).accept(listener, beat));
        }
    }
    // Only the ports and connections may hold the door, and with it the queue's entrance: the committer ends when the last one is gone.
    drop(door);
    tasks.spawn(Vigil::new(&wiring, tallies).run(wiring.hearts.register("NAS reports"), wiring.stopping.clone()));
    tasks.spawn(committer.run(wiring.hearts.register("RADIUS journal"), wiring.stopping));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            // A broken part must not leave the others looking alive.
            tasks.abort_all();
            return Err(std::io::Error::other(error));
        }
    }
    Ok(())
}

/// Requests that wait for the commit after the running one. Beyond it the newest are dropped; their NAS sends again.
const QUEUE_MAX: usize = 8192;

/// How long a task may wait before it beats again.
const BEAT_EVERY: std::time::Duration = std::time::Duration::from_secs(3);

/// Waits until the daemon stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone means the daemon is gone.
    let _: Result<_, _> = stopping.wait_for(|stop| *stop).await;
}
