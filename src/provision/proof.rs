//! Whether a device runs what it must, judged from what it and its CMTS say: only its own word makes it provisioned.
//!
//! Comes in: the name of its file, how it must stand, and values read by SNMP. Goes out: a `Verdict` in the operator's
//! words. Sources: RFC 4639 (docsDevServer…), RFC 4546 (docsIfCmStatusValue, docsIfCmtsCmStatusValue), DOCS-IF3-MIB
//! (docsIf3CmStatusValue, docsIf3CmtsCmRegStatusValue), RFC 4682 (pktcMtaDevProvisioningState).

/// How a modem proves that its file is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// CPEs may send: it reports operational.
    Operational,
    /// Network access is off: it reports forwarding disabled, not operational.
    ForwardingDisabled,
}

/// What a modem says of itself. `None`: it has no such object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModemAnswer {
    /// docsDevServerConfigFile.
    pub config_file: Option<String>,
    /// docsIf3CmStatusValue of the cable interface.
    pub if3_status: Option<i64>,
    /// docsIfCmStatusValue of the cable interface.
    pub if_status: Option<i64>,
    /// docsDevServerBootState.
    pub boot_state: Option<i64>,
}

/// What a CMTS says of a modem. `None`: it does not know it, or has no such object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CmtsAnswer {
    /// docsIfCmtsCmStatusValue.
    pub if_status: Option<i64>,
    /// docsIf3CmtsCmRegStatusValue.
    pub if3_status: Option<i64>,
}

/// What follows from an answer. The sentence names what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Proven(String),
    /// It may still get there.
    NotYet(String),
    /// It came up otherwise than desired.
    Wrong(String),
}

const OPERATIONAL: i64 = 12;
const IF_ACCESS_DENIED: i64 = 13;
const IF3_FORWARDING_DISABLED: i64 = 20;
const BOOT_OPERATIONAL: i64 = 1;
const BOOT_REFUSED: i64 = 7;
const BOOT_FORWARDING_DENIED: i64 = 8;
const CMTS_ACCESS_DENIED: i64 = 7;
const CMTS_ONLINE: [i64; 3] = [6, 8, 9];
const CMTS3_ONLINE: [i64; 2] = [6, 8];
const CMTS3_FORWARDING_DISABLED: i64 = 17;

/// Judges a modem by its own word.
pub fn judge_modem(file: &str, standing: Standing, answer: &ModemAnswer) -> Verdict {
    if answer.boot_state == Some(BOOT_REFUSED) {
        return Verdict::Wrong(
            "the CMTS refused the file: the modem reports refusedByCmts (shared secret, or a class of service that the \
             CMTS does not know)"
                .to_owned(),
        );
    }
    match answer.config_file.as_deref().map(base_name) {
        None | Some("") => return Verdict::NotYet("the modem does not tell its configuration file yet".to_owned()),
        Some(other) if other != file => {
            return Verdict::Wrong(format!("the modem runs {other} instead of {file}"));
        }
        Some(_) => {}
    }
    let denied = answer.if3_status == Some(IF3_FORWARDING_DISABLED)
        || answer.if_status == Some(IF_ACCESS_DENIED)
        || answer.boot_state == Some(BOOT_FORWARDING_DENIED);
    let silent = answer.if3_status.is_none() && answer.if_status.is_none();
    let operational = !denied
        && (answer.if3_status == Some(OPERATIONAL)
            || answer.if_status == Some(OPERATIONAL)
            || (silent && answer.boot_state == Some(BOOT_OPERATIONAL)));
    match (standing, operational, denied) {
        (Standing::Operational, true, _) => Verdict::Proven(format!("the modem runs {file} and reports operational")),
        (Standing::ForwardingDisabled, _, true) => {
            Verdict::Proven(format!("the modem runs {file} and reports forwarding disabled"))
        }
        (Standing::Operational, _, true) => {
            Verdict::Wrong(format!("the modem runs {file} but reports that forwarding is denied"))
        }
        (Standing::ForwardingDisabled, true, _) => {
            Verdict::Wrong(format!("the modem runs {file} but reports operational though it must be blocked"))
        }
        (_, false, false) => Verdict::NotYet(format!("the modem runs {file} and is {} so far", progress(answer))),
    }
}

/// Judges a modem that does not answer by what its CMTS says; `fetches` counts fetches of the same file within minutes.
pub fn judge_cmts(cmts: &str, standing: Standing, answer: &CmtsAnswer, fetches: u32) -> Verdict {
    let denied = answer.if3_status == Some(CMTS3_FORWARDING_DISABLED) || answer.if_status == Some(CMTS_ACCESS_DENIED);
    let online = !denied
        && (answer.if3_status.is_some_and(|status| CMTS3_ONLINE.contains(&status))
            || answer.if_status.is_some_and(|status| CMTS_ONLINE.contains(&status)));
    match (standing, online, denied) {
        (Standing::Operational, true, _) => Verdict::Proven(format!("registered at {cmts}")),
        (Standing::ForwardingDisabled, _, true) => {
            Verdict::Proven(format!("registered at {cmts} with forwarding disabled"))
        }
        (Standing::Operational, _, true) => Verdict::Wrong(format!("{cmts} denies it access")),
        (Standing::ForwardingDisabled, true, _) => {
            Verdict::Wrong(format!("{cmts} lets it forward though it must be blocked"))
        }
        _ if fetches >= REFUSED_FETCHES => Verdict::Wrong(refused(cmts, fetches)),
        _ => Verdict::NotYet(format!("not registered at {cmts} yet")),
    }
}

/// Judges an MTA by pktcMtaDevProvisioningState.
pub fn judge_mta(state: Option<i64>) -> Verdict {
    match state {
        Some(1) => Verdict::Proven("the MTA reports pass".to_owned()),
        Some(4) => Verdict::Proven("the MTA reports passWithWarnings".to_owned()),
        Some(5) => Verdict::Proven("the MTA reports passWithIncompleteParsing".to_owned()),
        Some(3) => Verdict::Wrong("the MTA refused its file: failConfigFileError".to_owned()),
        Some(6) => Verdict::Wrong("the MTA was not provisioned: failureInternalError".to_owned()),
        Some(7) => Verdict::Wrong("the MTA was not provisioned: failureOtherReason".to_owned()),
        Some(2) => Verdict::NotYet("the MTA is still being provisioned".to_owned()),
        Some(_) | None => Verdict::NotYet("the MTA does not tell its provisioning state yet".to_owned()),
    }
}

/// A modem that fetches again and again and never comes up is refused at registration.
pub const REFUSED_FETCHES: u32 = 3;

/// The sentence for a modem that is refused, as far as it can be told from outside.
pub fn refused(cmts: &str, fetches: u32) -> String {
    format!(
        "{cmts} refused the file: the modem fetched it {fetches} times within minutes and did not come up; the usual cause \
         is another shared secret"
    )
}

/// Some modems tell the whole path.
fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file).trim_end_matches('\0')
}

/// The state as RFC 4546 and DOCS-IF3-MIB name it.
fn progress(answer: &ModemAnswer) -> String {
    let named = |status: i64| match status {
        1 => "other",
        2 => "notReady",
        3 => "notSynchronized",
        4 => "phySynchronized",
        5 => "usParametersAcquired",
        6 => "rangingComplete",
        7 => "ipComplete (or dhcpv4Complete)",
        8 => "todEstablished",
        9 => "securityEstablished",
        10 => "paramTransferComplete (or configFileDownloadComplete)",
        11 => "registrationComplete",
        _ => "in another state",
    };
    match answer.if3_status.or(answer.if_status) {
        Some(status) => format!("{} ({status})", named(status)),
        None => "of unknown state".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "7-001122334455-0123456789.cm";

    fn answer(file: &str, if3: Option<i64>, old: Option<i64>, boot: Option<i64>) -> ModemAnswer {
        ModemAnswer { config_file: Some(file.to_owned()), if3_status: if3, if_status: old, boot_state: boot }
    }

    fn kind(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Proven(_) => "proven",
            Verdict::NotYet(_) => "not yet",
            Verdict::Wrong(_) => "wrong",
        }
    }

    #[test]
    fn a_modem_is_proven_by_its_file_and_by_how_it_stands() {
        use Standing::{ForwardingDisabled, Operational};
        let cases = [
            (Operational, answer(FILE, Some(12), Some(12), Some(1)), "proven"),
            (Operational, answer("/tftp/7-001122334455-0123456789.cm", None, Some(12), None), "proven"),
            (Operational, answer(FILE, None, None, Some(1)), "proven"),
            (Operational, answer(FILE, Some(10), None, None), "not yet"),
            (Operational, answer(FILE, None, None, None), "not yet"),
            (Operational, answer("", Some(12), None, None), "not yet"),
            (Operational, answer("6-001122334455-aaaaaaaaaa.cm", Some(12), Some(12), Some(1)), "wrong"),
            (Operational, answer(FILE, Some(20), Some(12), None), "wrong"),
            (Operational, answer(FILE, Some(12), Some(12), Some(7)), "wrong"),
            (ForwardingDisabled, answer(FILE, Some(20), Some(12), None), "proven"),
            (ForwardingDisabled, answer(FILE, None, Some(13), None), "proven"),
            (ForwardingDisabled, answer(FILE, None, None, Some(8)), "proven"),
            (ForwardingDisabled, answer(FILE, Some(12), Some(12), Some(1)), "wrong"),
            (ForwardingDisabled, answer(FILE, Some(10), None, None), "not yet"),
        ];
        for (standing, answer, expected) in cases {
            let verdict = judge_modem(FILE, standing, &answer);
            assert_eq!(kind(&verdict), expected, "{standing:?} {answer:?} {verdict:?}");
        }
        assert_eq!(kind(&judge_modem(FILE, Operational, &ModemAnswer::default())), "not yet");
    }

    #[test]
    fn a_silent_modem_is_judged_by_its_cmts() {
        use Standing::{ForwardingDisabled, Operational};
        let says = |if_status, if3_status| CmtsAnswer { if_status, if3_status };
        let cases = [
            (Operational, says(Some(8), None), 1, "proven"),
            (Operational, says(None, Some(8)), 1, "proven"),
            (Operational, says(Some(8), Some(17)), 1, "wrong"),
            (Operational, says(Some(7), None), 1, "wrong"),
            (Operational, says(Some(5), None), 1, "not yet"),
            (Operational, says(None, None), 1, "not yet"),
            (Operational, says(Some(5), Some(16)), 3, "wrong"),
            (ForwardingDisabled, says(Some(8), Some(17)), 1, "proven"),
            (ForwardingDisabled, says(Some(8), Some(8)), 1, "wrong"),
        ];
        for (standing, answer, fetches, expected) in cases {
            let verdict = judge_cmts("cmts1", standing, &answer, fetches);
            assert_eq!(kind(&verdict), expected, "{standing:?} {answer:?} {verdict:?}");
        }
        let Verdict::Wrong(words) = judge_cmts("cmts1", Operational, &CmtsAnswer::default(), 4) else {
            panic!("a modem that fetches four times is refused");
        };
        assert!(words.contains("cmts1 refused the file") && words.contains("shared secret"), "{words}");
    }

    #[test]
    fn an_mta_s_state_is_its_proof() {
        for (state, expected) in
            [(1, "proven"), (2, "not yet"), (3, "wrong"), (4, "proven"), (6, "wrong"), (9, "not yet")]
        {
            assert_eq!(kind(&judge_mta(Some(state))), expected, "{state}");
        }
        assert_eq!(kind(&judge_mta(None)), "not yet");
    }
}
