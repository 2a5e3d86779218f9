//! Which configured client a record from elsewhere belongs to, so that its session has the key it has on the wire.

use std::net::IpAddr;

use crate::collector::{NasClient, NasTable};
use crate::radius::IdentityRule;

/// What the command line says about the NAS of an import.
#[derive(Debug, Clone, Default)]
pub struct NasChoice {
    /// Name of the configured client all records came from.
    pub client: Option<String>,
    /// NAS-Identifier of records that do not have one.
    pub identifier: Option<String>,
}

/// What a record says about its NAS.
#[derive(Debug, Clone, Default)]
pub struct NasHints {
    /// Where the packet came from: what decides on the wire.
    pub packet_source: Option<IpAddr>,
    pub nas_address: Option<IpAddr>,
    pub nas_identifier: Option<String>,
}

impl NasChoice {
    /// The client: the one that was named, else by the packet's source, the NAS's address, or its identifier when that
    /// is a client's name.
    ///
    /// **Errors**: a sentence for the person at the keyboard.
    pub fn find<'n>(&self, nas: &'n NasTable, hints: &NasHints) -> Result<&'n NasClient, String> {
        if let Some(name) = &self.client {
            return nas.named(name).ok_or_else(|| format!("no [[radius.nas]] is named {name:?}"));
        }
        let addresses = [hints.packet_source, hints.nas_address];
        let found = addresses
            .into_iter()
            .flatten()
            .find_map(|address| nas.of(address))
            .or_else(|| hints.nas_identifier.as_deref().and_then(|identifier| nas.named(identifier)));
        found.ok_or_else(|| {
            let told = match (addresses.into_iter().flatten().next(), &hints.nas_identifier) {
                (Some(address), _) => format!("no [[radius.nas]] covers {address}"),
                (None, Some(identifier)) => format!("no [[radius.nas]] is named {identifier:?}"),
                (None, None) => "nothing tells which NAS it came from".to_owned(),
            };
            format!("{told}; configure it, or name the client with --nas")
        })
    }

    /// The NAS-Identifier that a record without one is given.
    ///
    /// **Errors**: the client tells its NAS apart by an attribute the record cannot have: its session would get a key of
    /// its own and count twice.
    pub fn identifier_for(&self, client: &NasClient, hints: &NasHints) -> Result<Option<&str>, String> {
        match (client.identity, &hints.nas_identifier, &self.identifier) {
            (_, Some(_), _) => Ok(None),
            (_, None, Some(given)) => Ok(Some(given)),
            (IdentityRule::NasIdentifier, None, None) => Err(format!(
                "the NAS behind {} are told apart by NAS-Identifier, which is not recorded here; give it with \
                 --nas-identifier",
                client.name
            )),
            (_, None, None) => Ok(None),
        }
    }
}
