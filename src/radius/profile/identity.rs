//! Which attribute tells the NAS behind one configured client apart.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which attribute tells the NAS behind one configured client apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityRule {
    /// The configured client is one NAS.
    #[default]
    Client,
    /// NAS-Identifier.
    NasIdentifier,
    /// NAS-IP-Address or NAS-IPv6-Address.
    NasIp,
}

impl FromStr for IdentityRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::Client),
            "nas-identifier" => Ok(Self::NasIdentifier),
            "nas-ip" => Ok(Self::NasIp),
            other => Err(format!("{other:?} is no identity rule; write client, nas-identifier or nas-ip")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_rules_are_spelled_as_in_the_configuration() {
        for (text, rule) in [
            ("client", IdentityRule::Client),
            ("nas-identifier", IdentityRule::NasIdentifier),
            ("nas-ip", IdentityRule::NasIp),
        ] {
            assert_eq!(text.parse(), Ok(rule));
            assert_eq!(serde_json::to_value(rule).expect("a text"), text);
        }
        assert!("nas".parse::<IdentityRule>().is_err());
    }
}
