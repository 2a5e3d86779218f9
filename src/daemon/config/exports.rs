//! Reads `[[export]]`: closed batches of a tenant written as a source profile wants them.

use std::path::Path;
use std::sync::Arc;

use super::probe;
use super::reader::{Found, Section};
use super::sections::Door;
use crate::dispatcher::Export;
use crate::mediation::{PROFILE_MAX, Profile, Subject};
use crate::vocabulary::{SourceId, TenantId};

const NAME_MAX: usize = 64;

impl Door<'_, '_> {
    /// `None`: something is unusable and noted.
    pub(super) fn exports(&self, sections: Vec<Section<'_, '_>>) -> Option<Vec<Export>> {
        let mut seen: Vec<(TenantId, String)> = Vec::new();
        let mut exports = Vec::new();
        for section in sections {
            let tenant = section.required("tenant").and_then(|found| section.parse::<TenantId>(&found));
            let name = section.required("name");
            let profile = section.required("profile").and_then(|found| self.source_profile(&found));
            let out = section.required("out");
            let directory = section.required("directory").map(|found| {
                let path = self.reader.path(found.value);
                if self.probing {
                    probe::folder(self.reader, &found, &path);
                }
                path
            });
            let source = section.parsed::<SourceId>("source").map(|found| found.value.to_string());
            section.close();
            let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
            if let Some(name) = &name
                && (name.value.is_empty() || name.value.len() > NAME_MAX || !name.value.chars().all(plain))
            {
                self.reader.fault(name.at, &name.key, format!("is 1 to {NAME_MAX} letters, digits, - and _"));
            }
            if let (Some(profile), Some(out)) = (&profile, &out) {
                match profile.outs.get(out.value).map(|out| out.of) {
                    Some(Subject::Lines) => {}
                    Some(Subject::Usage) => {
                        self.reader.fault(out.at, &out.key, "is a file of usage, not of invoice lines");
                    }
                    None => {
                        let known: Vec<&str> = profile.outs.keys().map(String::as_str).collect();
                        let detail =
                            format!("{} has no [out.{}]; it has {}", profile.name, out.value, known.join(", "));
                        self.reader.fault(out.at, &out.key, detail);
                    }
                }
            }
            exports.push((|| {
                let (tenant, name) = (tenant?.value, name?);
                if seen.contains(&(tenant.clone(), name.value.to_owned())) {
                    self.reader.fault(name.at, &name.key, format!("{:?} is named twice", name.value));
                }
                seen.push((tenant.clone(), name.value.to_owned()));
                Some(Export {
                    tenant: tenant.to_string(),
                    name: name.value.to_owned(),
                    profile: profile?,
                    out: out?.value.to_owned(),
                    directory: directory?,
                    source,
                })
            })());
        }
        exports.into_iter().collect()
    }

    /// A shipped profile, or a file.
    fn source_profile(&self, found: &Found<&str>) -> Option<Arc<Profile>> {
        let path = self.reader.path(found.value);
        if !path.exists()
            && let Some(profile) = Profile::named(found.value)
        {
            return Some(Arc::new(profile));
        }
        match read(&path) {
            Ok(profile) => Some(Arc::new(profile)),
            Err(faults) => {
                for fault in faults {
                    self.reader.fault(found.at, &found.key, fault);
                }
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<Profile, Vec<String>> {
    let cannot = |error| vec![format!("{} is no shipped profile and cannot be read: {error}", path.display())];
    if std::fs::metadata(path).map_err(cannot)?.len() > PROFILE_MAX as u64 {
        return Err(vec![format!("{} is too long for a profile", path.display())]);
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    let told = |fault: crate::vocabulary::Fault| format!("{}: {}", fault.pointer, fault.detail);
    Profile::read(&path.display().to_string(), &text).map_err(|faults| faults.into_iter().map(told).collect())
}
