//! Moves of accounts in their tree: refused where they would make a loop, written with the push that asks for them.

use std::collections::HashMap;

use crate::account::loop_of;
use crate::intake::problem::Problem;
use crate::store::{StoreError, Tx, lineage};
use crate::vocabulary::{AccountKey, Fault, SourceId, TenantId};

/// The parent that a push wants for its account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move<'a> {
    pub key: &'a AccountKey,
    /// The one that is stored.
    pub before: Option<&'a str>,
    pub parent: Option<&'a str>,
}

impl Move<'_> {
    fn goes_under(&self) -> Option<&str> {
        self.parent.filter(|_| self.before != self.parent)
    }
}

/// Which moves would make a loop, alone or together with those before them.
pub(super) async fn refused(tx: &mut Tx, moves: &[Move<'_>]) -> Result<Vec<Option<Problem>>, StoreError> {
    let mut refused: Vec<Option<Problem>> = moves.iter().map(|_| None).collect();
    if moves.iter().all(|wanted| wanted.goes_under().is_none()) {
        return Ok(refused);
    }
    lineage::lock(tx).await?;
    let mut trees = above(tx, moves).await?;
    for (wanted, refused) in moves.iter().zip(&mut refused) {
        let key = wanted.key;
        let edges = trees.entry((&key.tenant, &key.source)).or_default();
        match wanted.goes_under() {
            Some(parent) => match loop_of(&key.external_id, parent, edges) {
                Some(way) => *refused = Some(problem(&way)),
                None => {
                    edges.insert(key.external_id.clone(), parent.to_owned());
                }
            },
            None if wanted.parent.is_none() => {
                edges.remove(&key.external_id);
            }
            None => {}
        }
    }
    Ok(refused)
}

/// Writes moves that are let through.
pub(super) async fn write(tx: &mut Tx, moves: &[Move<'_>]) -> Result<(), StoreError> {
    let under: Vec<(&AccountKey, &str)> =
        moves.iter().filter_map(|wanted| Some((wanted.key, wanted.goes_under()?))).collect();
    let out = moves.iter().filter(|wanted| wanted.parent.is_none() && wanted.before.is_some());
    let out: Vec<&AccountKey> = out.map(|wanted| wanted.key).collect();
    if !under.is_empty() {
        lineage::set(tx, &under).await?;
    }
    if !out.is_empty() {
        lineage::cut(tx, &out).await?;
    }
    Ok(())
}

type Trees<'a> = HashMap<(&'a TenantId, &'a SourceId), HashMap<String, String>>;

/// Everything above the wanted parents, read a level at a time.
async fn above<'a>(tx: &mut Tx, moves: &[Move<'a>]) -> Result<Trees<'a>, StoreError> {
    let mut trees: Trees<'a> = HashMap::new();
    let mut next: Vec<(&'a TenantId, &'a SourceId, String)> = Vec::new();
    for wanted in moves {
        if let Some(parent) = wanted.goes_under() {
            next.push((&wanted.key.tenant, &wanted.key.source, parent.to_owned()));
        }
    }
    while !next.is_empty() {
        next.sort();
        next.dedup();
        let keys: Vec<AccountKey> = next
            .drain(..)
            .filter(|(tenant, source, id)| !trees.get(&(*tenant, *source)).is_some_and(|edges| edges.contains_key(id)))
            .map(|(tenant, source, external_id)| AccountKey {
                tenant: tenant.clone(),
                source: source.clone(),
                external_id,
            })
            .collect();
        for (key, parent) in lineage::parents(tx, &keys.iter().collect::<Vec<_>>()).await? {
            let whose = moves.iter().find(|wanted| wanted.key.tenant == key.tenant && wanted.key.source == key.source);
            let Some(Move { key: AccountKey { tenant, source, .. }, .. }) = whose else { continue };
            trees.entry((tenant, source)).or_default().insert(key.external_id, parent.clone());
            next.push((tenant, source, parent));
        }
    }
    Ok(trees)
}

fn problem(way: &[String]) -> Problem {
    let detail = format!("would make a loop: {}", way.join(" under "));
    Problem::invalid(vec![Fault { pointer: "/parent".to_owned(), detail }])
}
