//! What an MTA's configuration file says, built and proven before it is offered.
//!
//! Comes in: the desired content of an `mta` element, and the passwords of its SIP lines, opened. Goes out: the file's
//! bytes, the same for the same content. Knows no database and no socket, and names no password in what it says.

use std::collections::BTreeMap;

use crate::docsis::{
    FilledTlv, Filling, Framing, LineSettings, MtaAnnouncement, MtaSettings, Tlv, announce, mta_file, verify_mta,
};
use crate::provision::{Content, MtaContent, MtaLine, SIP_PASSWORD, SecretRef};
use crate::vocabulary::Secret;

/// Secrets of an element's content in clear, by service and field.
pub type OpenedSecrets = BTreeMap<(String, String), Secret>;

/// The secrets a content's file cannot be built without.
pub fn secrets_of(content: &Content) -> Vec<&SecretRef> {
    match content {
        Content::Mta(content) => content.lines.iter().filter_map(|line| Some(&line.sip.as_ref()?.password)).collect(),
        _ => Vec::new(),
    }
}

/// The file of an MTA.
///
/// **Errors**: a sentence for NOC, when the content makes no valid file; a person must mend catalog or account.
pub fn build(content: &MtaContent, secrets: &OpenedSecrets) -> Result<Vec<u8>, String> {
    if !content.fault.is_empty() {
        return Err(content.fault.clone());
    }
    if let Some(pair) = content.lines.windows(2).find(|pair| pair[0].port == pair[1].port) {
        let [first, second] = pair else { unreachable!("windows of two") };
        return Err(format!(
            "line {} of the MTA is given out twice, to services {} and {}",
            first.port, first.service, second.service
        ));
    }
    let family = content.family;
    let hash = content.flow.hash_in_file().then_some(family);
    let settings = MtaSettings {
        family,
        hash_in_file: hash.is_some(),
        enabled: content.enabled,
        lines: content.lines.iter().map(|of| line(of, secrets)).collect::<Result<_, _>>()?,
        objects: objects(&content.template, &|_| Filling::Absent)?,
    };
    let bytes = mta_file(&settings);
    verify_mta(&bytes, hash).map_err(|faults| {
        let named: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        format!("the configuration file would be refused: {}", named.join("; "))
    })?;
    Ok(bytes)
}

/// What a device of a HYBRID flow is told by SNMP about its file at `url`; `None` in a BASIC flow, where the file
/// carries its own hash.
pub fn announcement(content: &MtaContent, url: &str, file: &[u8]) -> Option<MtaAnnouncement> {
    (!content.flow.hash_in_file()).then(|| announce(content.family, url, file))
}

fn line(line: &MtaLine, secrets: &OpenedSecrets) -> Result<LineSettings, String> {
    let password = |name: &str| {
        let reference = line.sip.as_ref().filter(|_| name == SIP_PASSWORD).map(|sip| &sip.password);
        let secret = reference.and_then(|of| secrets.get(&(of.service.clone(), of.field.clone())));
        secret.map_or(Filling::Absent, |secret| Filling::Text(secret.expose().to_owned()))
    };
    let objects = objects(&line.template, &password).map_err(|fault| format!("line {}: {fault}", line.port))?;
    Ok(LineSettings { port: line.port, enabled: line.enabled, call_agent: line.call_agent.clone(), objects })
}

fn objects(template: &[FilledTlv], secret: &dyn Fn(&str) -> Filling) -> Result<Vec<Tlv>, String> {
    template.iter().map(|filled| filled.tlv(Framing::Mta, secret)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::docsis::MtaFlow;
    use crate::docsis::{CallAgent, HashFamily, decode};
    use crate::provision::MtaSip;

    pub fn content() -> MtaContent {
        let line = |port: u8, enabled| MtaLine {
            port,
            number: format!("+1512555010{port}"),
            enabled,
            service: format!("v{port}"),
            call_agent: Some(CallAgent { id: "cms1.voice.example".to_owned(), port: 2727 }),
            sip: None,
            template: Vec::new(),
        };
        MtaContent {
            mac: "00:11:22:33:44:56".parse().expect("a MAC"),
            cm_mac: "00:11:22:33:44:55".parse().expect("a MAC"),
            model: None,
            family: HashFamily::Na,
            flow: MtaFlow::Basic1,
            enabled: true,
            lines: vec![line(1, true), line(2, false)],
            locations: Vec::new(),
            template: Vec::new(),
            fault: String::new(),
        }
    }

    fn shown(content: &MtaContent) -> String {
        decode(&build(content, &OpenedSecrets::new()).expect("a valid file"), None).expect("our own file").toml
    }

    #[test]
    fn a_line_is_up_or_down_on_its_own() {
        let text = shown(&content());
        assert!(text.contains("{ oid = \"1.3.6.1.2.1.2.2.1.7.9\", integer = 1 }"), "{text}");
        assert!(text.contains("{ oid = \"1.3.6.1.2.1.2.2.1.7.10\", integer = 2 }"), "{text}");
    }

    #[test]
    fn only_a_hybrid_device_is_told_the_hash() {
        let basic = build(&content(), &OpenedSecrets::new()).expect("a file");
        assert_eq!(announcement(&content(), "tftp://192.0.2.1/x.mta", &basic), None);
        let hybrid = MtaContent { flow: MtaFlow::Hybrid2, ..content() };
        let file = build(&hybrid, &OpenedSecrets::new()).expect("a file");
        assert!(shown(&hybrid).contains("hash = \"none\""));
        assert!(announcement(&hybrid, "tftp://192.0.2.1/x.mta", &file).is_some());
    }

    #[test]
    fn a_sip_password_is_put_in_when_the_file_is_built_and_missed_by_name() {
        let mut sip = content();
        let password = SecretRef { service: "v1".into(), field: "lines.1.sip.password".into(), digest: None };
        sip.lines[0].call_agent = None;
        sip.lines[0].sip = Some(MtaSip { user: "u".into(), display_name: None, password });
        let entry = "SnmpMibObject = { oid = \"1.3.6.1.4.1.9.2.9\", string = \"u:{sip_password}\" }".to_owned();
        sip.lines[0].template = vec![FilledTlv::Open { entry }];
        let key = ("v1".to_owned(), "lines.1.sip.password".to_owned());
        let secrets = OpenedSecrets::from([(key, Secret::new("s3{cret}"))]);
        let file = build(&sip, &secrets).expect("a file");
        assert!(decode(&file, None).expect("our own file").toml.contains("string = \"u:s3{cret}\""));
        assert_eq!(
            build(&sip, &OpenedSecrets::new()),
            Err("line 1: SnmpMibObject needs a secret that is not stored".to_owned())
        );
    }

    #[test]
    fn one_port_for_two_services_is_a_person_s_business() {
        let mut odd = content();
        odd.lines[1].port = 1;
        let reason = build(&odd, &OpenedSecrets::new()).expect_err("two lines on one port");
        assert_eq!(reason, "line 1 of the MTA is given out twice, to services v1 and v2");
    }
}
