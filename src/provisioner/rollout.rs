//! Moves rollouts on: one daemon at a time looks what became of the members, asks `provision::decide_rollout`, and moves the
//! next ones. Everything is in the store, so that another daemon goes on where one was killed.

use std::time::Duration;

use tokio::sync::watch;

use super::device::Devices;
use crate::provision::{Decision, Phase, decide_rollout, phase_of, reset_is_due};
use crate::store::rollouts::{self, Rollout, RolloutFilter};
use crate::store::{Store, StoreError, billing, exceptions};
use crate::telemetry::Heartbeat;
use crate::vocabulary::{Clock, Timestamp};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Somebody else goes on when the daemon that moves rollouts died.
const CLAIM: Duration = Duration::from_secs(30);
const CLAIM_NAME: &str = "rollouts";
const LATELY: Duration = Duration::from_secs(60);
/// Moved members looked at in one turn, and moved in one transaction.
const MOST: i64 = 2000;
const MOVE_MOST: u64 = 200;
const ACTOR: &str = "rollout";

/// What rollouts are moved with.
#[derive(Clone)]
pub struct Rollouts {
    pub store: Store,
    pub clock: Clock,
    pub devices: Devices,
}

impl Rollouts {
    /// Runs until `stopping` turns true.
    pub async fn run(self, beat: Heartbeat, mut stopping: watch::Receiver<bool>) -> Result<(), StoreError> {
        let mut failing = false;
        while !*stopping.borrow() {
            beat.beat();
            match self.turn().await {
                Ok(()) => failing = false,
                // The part that watches the database tells the outage itself.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!("Rollouts stand still: {error}. Trying again every {LOOK_EVERY:?}.");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
        Ok(())
    }

    async fn turn(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.read().await?;
        let filter = RolloutFilter { state: Some(rollouts::RUNNING.to_owned()), ..RolloutFilter::default() };
        let running = rollouts::list(&mut tx, &filter).await?;
        drop(tx);
        if running.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.write().await?;
        let until = now.checked_add(CLAIM).unwrap_or(Timestamp::MAX);
        let ours = billing::claim(&mut tx, CLAIM_NAME, self.store.owner(), until, now).await?;
        tx.commit().await?;
        if ours {
            for rollout in running {
                self.move_on(rollout, now).await?;
            }
        }
        Ok(())
    }

    async fn move_on(&self, rollout: Rollout, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        // It may have been paused since it was listed.
        let known = rollouts::locked(&mut tx, rollout.id).await?.filter(|rollout| rollout.state == rollouts::RUNNING);
        let Some(mut rollout) = known else { return tx.commit().await };
        for member in rollouts::moved(&mut tx, rollout.id, MOST, now).await? {
            let phase = phase_of(&rollout.policy, &member.facts, now);
            if phase == Phase::Moved {
                if reset_is_due(&rollout.policy, &member.facts) {
                    rollouts::ask_reset(&mut tx, &rollout, member.element_id, now).await?;
                }
                continue;
            }
            rollouts::set_phase(&mut tx, rollout.id, member.element_id, phase).await?;
            rollout.moved -= 1;
            match phase {
                Phase::Back => rollout.back += 1,
                Phase::Lost => rollout.lost += 1,
                Phase::Skipped | Phase::Moved | Phase::Waiting => rollout.skipped += 1,
            }
        }
        let since = now.checked_sub(LATELY).unwrap_or(Timestamp::UNIX_EPOCH);
        let tally = rollouts::tally(&mut tx, &rollout, since).await?;
        let open = self.devices.settings().window.holds(now);
        match decide_rollout(&rollout.policy, &tally, open) {
            Decision::Wait => {}
            Decision::Move { most } => {
                rollouts::advance(&mut tx, &rollout, most.min(MOVE_MOST), &tally.moved_lately, now).await?;
            }
            Decision::Finish => {
                rollouts::set_state(&mut tx, &rollout, "finished", None, ACTOR, now).await?;
                tracing::info!(
                    "Rollout {} ({}) finished: {} back, {} lost, {} not reached.",
                    rollout.id,
                    rollout.reason,
                    rollout.back,
                    rollout.lost,
                    rollout.skipped
                );
            }
            Decision::Halt(reason) => {
                rollouts::set_state(&mut tx, &rollout, "halted", Some(&reason), ACTOR, now).await?;
                let subject = format!("rollout {}", rollout.id);
                let tenant = Some(rollout.tenant.as_str());
                exceptions::open(&mut tx, tenant, rollouts::EXCEPTION_KIND, &subject, &reason, now).await?;
                tracing::error!(
                    "Rollout {} ({}) halted: {reason}. {} devices were not touched. Look at `lastmile rollout show {}`, then \
                     resume it or roll it back.",
                    rollout.id,
                    rollout.reason,
                    rollout.waiting,
                    rollout.id
                );
            }
        }
        tx.commit().await
    }
}
