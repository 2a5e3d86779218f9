//! Keeps a list as it comes, sealed piece by piece, with the digest of all of it.

use sha2::{Digest, Sha256};

use super::read::place;
use crate::intake::App;
use crate::store::StoreError;
use crate::store::syncs::{self, NewSync};
use crate::vocabulary::hex;

/// A list that is being received.
pub(super) struct Keeping<'a> {
    app: &'a App,
    id: String,
    held: Vec<u8>,
    number: i64,
    octets: u64,
    digest: Sha256,
}

impl<'a> Keeping<'a> {
    /// Begins one, or one that was begun and not ended anew.
    pub async fn begin(app: &'a App, new: &NewSync<'_>) -> Result<Self, StoreError> {
        let mut tx = app.store.write().await?;
        syncs::forget_one(&mut tx, new.id).await?;
        syncs::create(&mut tx, new, app.clock.now()).await?;
        tx.commit().await?;
        let held = Vec::with_capacity(PIECE);
        Ok(Self { app, id: new.id.to_owned(), held, number: 0, octets: 0, digest: Sha256::new() })
    }

    pub fn octets(&self) -> u64 {
        self.octets
    }

    pub async fn add(&mut self, data: &[u8]) -> Result<(), StoreError> {
        self.octets += data.len() as u64;
        self.digest.update(data);
        self.held.extend_from_slice(data);
        while self.held.len() >= PIECE {
            let rest = self.held.split_off(PIECE);
            let piece = std::mem::replace(&mut self.held, rest);
            self.keep(&piece).await?;
        }
        Ok(())
    }

    /// Everything came: how many octets, and their SHA-256 in hex. The caller says that it is received.
    pub async fn end(mut self) -> Result<(i64, String), StoreError> {
        let rest = std::mem::take(&mut self.held);
        if !rest.is_empty() {
            self.keep(&rest).await?;
        }
        Ok((i64::try_from(self.octets).unwrap_or(i64::MAX), hex(self.digest.finalize())))
    }

    /// Nothing of it is wanted.
    pub async fn drop_all(self) -> Result<(), StoreError> {
        let mut tx = self.app.store.write().await?;
        syncs::forget_one(&mut tx, &self.id).await?;
        tx.commit().await
    }

    async fn keep(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        let sealed = self.app.store.sealer().seal_bytes(&place(&self.id, self.number), piece)?;
        let mut tx = self.app.store.write().await?;
        syncs::add_part(&mut tx, &self.id, self.number, &sealed).await?;
        tx.commit().await?;
        self.number += 1;
        Ok(())
    }
}

/// Octets of a piece.
const PIECE: usize = 1 << 20;
