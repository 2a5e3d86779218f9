//! A modem's file as it is written: TLV behind TLV in one buffer, both MICs at its end.
//!
//! Comes in: types with their values, and which types of the recipe a template's stand in place of. Goes out: the bytes.
//! Never judges a value: what is too long for its length byte is cut here, and was measured where it came in.

use super::ber::VarBind;
use super::mic::{ExtendedMic, cm_mic_of, cmts_mic_of, extended_setting};
use super::tlv::{CM_MIC, CMTS_MIC, END, Framing, PAD, Tlv, View, views};

const ALIGNMENT: usize = 4;
const SNMP_OBJECT: u8 = 11;

/// A file being written, TLV behind TLV in one buffer.
pub struct Writer<'r> {
    out: Vec<u8>,
    replaced: &'r [u8],
}

impl<'r> Writer<'r> {
    pub fn new(replaced: &'r [u8]) -> Self {
        Self { out: Vec::with_capacity(USUAL_OCTETS), replaced }
    }

    /// Adds a TLV of the recipe, unless the template's stand in its place.
    pub fn add(&mut self, code: u8, value: &[u8]) {
        if !self.replaced.contains(&code) {
            Group { out: &mut self.out }.add(code, value);
        }
    }

    pub fn group(&mut self, code: u8, fill: impl FnOnce(&mut Group)) {
        if !self.replaced.contains(&code) {
            Group { out: &mut self.out }.group(code, fill);
        }
    }

    /// Adds an SNMP object.
    pub fn object(&mut self, bind: &VarBind) {
        self.group(SNMP_OBJECT, |group| bind.write(group.out));
    }

    pub fn extend_from(&mut self, tlvs: &[Tlv]) {
        for tlv in tlvs {
            Group { out: &mut self.out }.add(tlv.code, &tlv.value);
        }
    }

    /// Both MICs, the end and the padding.
    pub fn sealed(mut self, secret: &[u8], extended: Option<&ExtendedMic>) -> Vec<u8> {
        if let Some(extended) = extended {
            let setting = extended_setting(extended, &self.tlvs(), secret);
            Group { out: &mut self.out }.add(setting.code, &setting.value);
        }
        let mic = cm_mic_of(&self.out);
        Group { out: &mut self.out }.add(CM_MIC, &mic);
        let tlvs = self.tlvs();
        let mic = match extended.filter(|extended| !extended.explicit) {
            Some(extended) => extended.digest(&tlvs, secret),
            None => cmts_mic_of(&tlvs, secret),
        };
        Group { out: &mut self.out }.add(CMTS_MIC, &mic);
        self.out.push(END);
        let length = self.out.len();
        self.out.resize(length.next_multiple_of(ALIGNMENT), PAD);
        self.out
    }

    /// What was written, unsealed.
    #[cfg(test)]
    pub fn bytes(self) -> Vec<u8> {
        self.out
    }

    fn tlvs(&self) -> Vec<View<'_>> {
        views(Framing::Cm, &self.out).expect("what was written whole is read whole")
    }
}

/// Files of one subscriber are below this.
const USUAL_OCTETS: usize = 512;

/// Sub-TLVs being put together.
pub struct Group<'o> {
    out: &'o mut Vec<u8>,
}

impl Group<'_> {
    /// A value beyond one length byte is cut; what comes from outside was measured when it was read.
    pub fn add(&mut self, code: u8, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u8::MAX))];
        self.out.extend([code, value.len() as u8]);
        self.out.extend_from_slice(value);
    }

    pub fn group(&mut self, code: u8, fill: impl FnOnce(&mut Group)) {
        self.out.extend([code, 0]);
        let start = self.out.len();
        fill(&mut Group { out: self.out });
        self.out.truncate(start + usize::from(u8::MAX));
        self.out[start - 1] = (self.out.len() - start) as u8;
    }
}
