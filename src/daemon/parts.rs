//! The tasks of the daemon: named, watched for ending by themselves, and stopped together.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use super::DaemonError;

/// The parts that run until the daemon stops.
pub struct Parts {
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, &'static str>,
    stop: watch::Sender<bool>,
}

impl Parts {
    pub fn new() -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop: watch::channel(false).0 }
    }

    /// Turns `true` when the parts must finish what they hold and end.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Starts a part that ends by itself after `stopping` turned true.
    pub fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(async move { part.await.map_err(|error| error.to_string()) });
        self.names.insert(task.id(), name);
    }

    /// Starts a part that holds nothing: it is dropped where it waits when the daemon stops.
    pub fn spawn_dropped<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let stopping = self.stopping();
        self.spawn(name, async move {
            tokio::select! {
                ended = part => ended,
                () = stopped(stopping) => Ok(()),
            }
        });
    }

    /// Waits for a part that ended by itself.
    pub async fn failure(&mut self) -> DaemonError {
        let (id, reason) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => (id, "it returned".to_owned()),
            Some(Ok((id, Err(reason)))) => (id, reason),
            Some(Err(error)) if error.is_panic() => (error.id(), "it panicked, see the line above".to_owned()),
            Some(Err(error)) => (error.id(), error.to_string()),
            // The daemon always has the part that watches the database.
            None => std::future::pending().await,
        };
        DaemonError::Part { name: self.names.get(&id).copied().unwrap_or("a part"), reason }
    }

    /// Tells every part to end and waits at most `limit`; `false` when one had to be cut off.
    pub async fn stop(&mut self, limit: Duration) -> bool {
        self.stop.send_replace(true);
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(limit, drained).await.is_ok();
        self.tasks.abort_all();
        in_time
    }
}

/// Returns once the daemon is stopping.
pub async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone means the daemon is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn part_that_panics_is_named() {
        let mut parts = Parts::new();
        parts.spawn_dropped("idle", std::future::pending::<Result<(), String>>());
        parts.spawn::<String>("fold", async { panic!("a broken invariant") });
        assert_eq!(parts.failure().await.to_string(), "fold stopped by itself: it panicked, see the line above");
    }

    #[tokio::test]
    async fn stopping_waits_for_the_part_that_drains_and_cuts_off_the_one_that_does_not() {
        let mut parts = Parts::new();
        let stopping = parts.stopping();
        parts.spawn::<String>("drains", async move {
            stopped(stopping).await;
            Ok(())
        });
        assert!(parts.stop(Duration::from_secs(5)).await);
        let mut parts = Parts::new();
        parts.spawn("hangs", std::future::pending::<Result<(), String>>());
        assert!(!parts.stop(Duration::from_millis(10)).await);
    }
}
