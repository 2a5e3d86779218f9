//! Reads SAMIS usage records from an IPDR document: the octets of a modem's service flows, as a CMTS exports them.
//!
//! ```text
//! <IPDRDoc …>
//!   <IPDR xsi:type="…"> CMTS name and up time, modem MAC, RecType, service flow, class, direction, octets … </IPDR>
//!   <IPDRDoc.End count="1" …/>
//! </IPDRDoc>
//! ```
//! Element names come in the spellings of several versions (`CMmacAddress`, `CmMacAddr`), in any case and namespace.
//! In: a stream of octets. Out: flows, one after another, and faults with their line. No DTD, no entities but the five
//! of XML; depth, length of a piece and number of elements are bounded, so that memory does not depend on the file.
//! Source: DOCSIS OSSI 3.0/3.1 (SAMIS-TYPE-1 and -2, XML schema 3.5.1-A), IPDR/XDR file encoding.

use std::io::{self, BufRead, Read};

use jiff::civil::DateTime;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use thiserror::Error;

use crate::vocabulary::{MacAddress, Timestamp, Zone, parse_instant};

/// Which way a service flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowDirection {
    /// From the subscriber (2).
    Upstream,
    /// To the subscriber (1).
    Downstream,
}

/// What a record reports of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowReport {
    Interim,
    Stop,
    Start,
}

/// The counters of one service flow at one instant; they grow from the flow's creation on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowUsage {
    /// Line its record begins on.
    pub line: u64,
    pub cmts: String,
    pub modem: MacAddress,
    /// The service flow's identifier as it stands there.
    pub flow: String,
    pub class: Option<String>,
    pub direction: FlowDirection,
    pub report: FlowReport,
    pub recorded_at: Timestamp,
    /// 0 to 2^63−1.
    pub octets: u64,
    pub packets: Option<u64>,
    /// When the flow was created, in hundredths of a second of the CMTS's up time.
    pub created_ticks: Option<u64>,
    /// How long it has existed, in seconds, where up time and creation tell.
    pub age_seconds: Option<u64>,
}

/// What cannot be read, and where. After a `fatal` one nothing more can be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {detail}")]
pub struct SamisFault {
    pub line: u64,
    pub detail: String,
    pub fatal: bool,
}

/// Reads flow after flow.
pub struct SamisReader<'z, R> {
    xml: Reader<Bounded<R>>,
    buffer: Vec<u8>,
    zone: Option<&'z Zone>,
    /// Local names of the open elements, in lower case.
    open: Vec<String>,
    record: Option<Draft>,
    text: String,
    records: u64,
    ended: bool,
    done: bool,
}

/// A record whose end has not come.
#[derive(Default)]
struct Draft {
    line: u64,
    elements: usize,
    values: Vec<(String, String)>,
    fault: Option<SamisFault>,
}

impl<'z, R: BufRead> SamisReader<'z, R> {
    /// `zone` is the zone of instants that name none; without it they are faults.
    pub fn new(input: R, zone: Option<&'z Zone>) -> Self {
        Self {
            xml: Reader::from_reader(Bounded { input, line: 1, since: 0 }),
            buffer: Vec::new(),
            zone,
            open: Vec::new(),
            record: None,
            text: String::new(),
            records: 0,
            ended: false,
            done: false,
        }
    }

    /// The next flow or fault; `None` at the end and after a fatal fault.
    pub fn next_flow(&mut self) -> Option<Result<FlowUsage, SamisFault>> {
        while !self.done {
            match self.step() {
                Ok(None) => {}
                Ok(Some(draft)) => return Some(draft.finish(self.zone)),
                Err(fault) => {
                    self.done |= fault.fatal;
                    return Some(Err(fault));
                }
            }
        }
        None
    }

    fn line(&self) -> u64 {
        self.xml.get_ref().line
    }

    fn fatal(&self, detail: impl Into<String>) -> SamisFault {
        SamisFault { line: self.line(), detail: detail.into(), fatal: true }
    }

    /// One piece of the document.
    fn step(&mut self) -> Result<Option<Draft>, SamisFault> {
        self.buffer.clear();
        self.xml.get_mut().since = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = match self.xml.read_event_into(&mut buffer) {
            Ok(event) => self.piece(&event),
            Err(quick_xml::Error::Io(error)) => Err(self.fatal(format!("it cannot be read further: {error}"))),
            Err(error) => Err(self.fatal(format!("the XML cannot be read further: {error}"))),
        };
        self.buffer = buffer;
        outcome
    }

    fn piece(&mut self, event: &Event<'_>) -> Result<Option<Draft>, SamisFault> {
        match event {
            Event::Start(element) => self.begin(element).map(|()| None),
            Event::Empty(element) => {
                self.begin(element)?;
                self.end()
            }
            Event::End(_) => self.end(),
            Event::Text(text) => {
                let text = text.decode().map_err(|_| self.fatal("a text is not UTF-8"))?.into_owned();
                self.add_text(&text)
            }
            Event::CData(text) => {
                let text = text.decode().map_err(|_| self.fatal("a text is not UTF-8"))?.into_owned();
                self.add_text(&text)
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|_| self.fatal("a reference is not UTF-8"))?.into_owned();
                let known = match name.as_str() {
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "amp" => Some('&'),
                    "apos" => Some('\''),
                    "quot" => Some('"'),
                    _ => reference.resolve_char_ref().ok().flatten(),
                };
                let known = known.ok_or_else(|| self.fatal(format!("the entity &{name}; is not read")))?;
                self.add_text(known.encode_utf8(&mut [0; 4]))
            }
            Event::DocType(_) => Err(self.fatal("a document type is not read")),
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().and_then(Result::ok);
                let fits = encoding.is_none_or(|name| {
                    [&b"utf-8"[..], b"us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))
                });
                if fits { Ok(None) } else { Err(self.fatal("it is not encoded in UTF-8")) }
            }
            Event::Comment(_) | Event::PI(_) => Ok(None),
            Event::Eof => {
                self.done = true;
                match (self.open.is_empty(), self.ended) {
                    (true, true) => Ok(None),
                    _ => Err(self.fatal("the document has no end; it was cut off, or is still being written")),
                }
            }
        }
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), SamisFault> {
        let name = String::from_utf8_lossy(element.local_name().as_ref()).to_ascii_lowercase();
        self.text.clear();
        match self.open.len() {
            0 if self.ended => return Err(self.fatal("something stands behind the end of the document")),
            0 if name != "ipdrdoc" => {
                return Err(self.fatal(format!("it is no IPDR document: it begins with <{name}>")));
            }
            1 if name == "ipdr" => self.record = Some(Draft { line: self.line(), ..Draft::default() }),
            1 if name == "ipdrdoc.end" => self.check_count(element)?,
            depth if depth >= DEPTH_MAX => {
                return Err(self.fatal(format!("elements are nested more than {DEPTH_MAX} deep")));
            }
            _ => {}
        }
        if let Some(draft) = &mut self.record {
            draft.elements += 1;
            if draft.elements > ELEMENTS_MAX {
                return Err(self.fatal(format!("a record has more than {ELEMENTS_MAX} elements")));
            }
        }
        self.open.push(name);
        Ok(())
    }

    fn end(&mut self) -> Result<Option<Draft>, SamisFault> {
        let Some(name) = self.open.pop() else { return Err(self.fatal("an element ends that never began")) };
        match self.open.len() {
            0 => self.ended = true,
            1 if name == "ipdr" => {
                self.records += 1;
                return Ok(self.record.take());
            }
            2 => {
                let text = std::mem::take(&mut self.text);
                if let Some(draft) = &mut self.record {
                    draft.values.push((name, text.trim().to_owned()));
                }
            }
            _ => {}
        }
        self.text.clear();
        Ok(None)
    }

    fn add_text(&mut self, text: &str) -> Result<Option<Draft>, SamisFault> {
        if self.open.is_empty() && !self.ended && !text.trim().is_empty() {
            return Err(self.fatal("it is no IPDR document: it begins with a text"));
        }
        if self.record.is_none() {
            return match text.trim().is_empty() || self.open.len() > 1 {
                true => Ok(None),
                false => Err(self.fatal("a text stands between the records")),
            };
        }
        if self.text.len() + text.len() > TEXT_MAX {
            let (line, detail) = (self.line(), format!("a value is longer than {TEXT_MAX} octets"));
            let draft = self.record.as_mut().expect("just looked");
            draft.fault.get_or_insert(SamisFault { line, detail, fatal: false });
            return Ok(None);
        }
        self.text.push_str(text);
        Ok(None)
    }

    /// The trailer tells how many records there must be.
    fn check_count(&self, element: &BytesStart<'_>) -> Result<(), SamisFault> {
        let counted = element.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == b"count");
        let Some(counted) = counted else { return Ok(()) };
        let told = std::str::from_utf8(&counted.value).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if told == Some(self.records) {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&counted.value).chars().take(20).collect::<String>();
        let detail = format!("the document says it has {told} records, {} came", self.records);
        Err(SamisFault { line: self.line(), detail, fatal: false })
    }
}

impl Draft {
    fn finish(self, zone: Option<&Zone>) -> Result<FlowUsage, SamisFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let line = self.line;
        self.usage(zone).map_err(|detail| SamisFault { line, detail, fatal: false })
    }

    fn usage(self, zone: Option<&Zone>) -> Result<FlowUsage, String> {
        let modem = self.required(&["cmmacaddress", "cmmacaddr"])?;
        let modem: MacAddress = modem.parse().map_err(|_| format!("{modem:?} is no MAC address"))?;
        let direction = match self.required(&["servicedirection", "serviceflowdir", "serviceflowdirection"])? {
            "1" => FlowDirection::Downstream,
            "2" => FlowDirection::Upstream,
            word if word.eq_ignore_ascii_case("downstream") => FlowDirection::Downstream,
            word if word.eq_ignore_ascii_case("upstream") => FlowDirection::Upstream,
            other => return Err(format!("the direction {other:?} is neither 1 (downstream) nor 2 (upstream)")),
        };
        let report = match self.required(&["rectype"])? {
            "1" => FlowReport::Interim,
            "2" => FlowReport::Stop,
            "3" => FlowReport::Start,
            word if word.eq_ignore_ascii_case("interim") => FlowReport::Interim,
            word if word.eq_ignore_ascii_case("stop") => FlowReport::Stop,
            word if word.eq_ignore_ascii_case("start") => FlowReport::Start,
            other => return Err(format!("RecType {other:?} is not 1 (interim), 2 (stop) or 3 (start)")),
        };
        // The moment the counters were read goes before the moment the document's record was written.
        let recorded = self.required(&["reccreationtime", "ipdrcreationtime"])?;
        let recorded_at = instant(recorded, zone)?;
        let octets = self.counter(&["serviceoctetspassed", "serviceoctetpassed"])?;
        let octets = octets.ok_or("serviceOctetsPassed is missing")?;
        if i64::try_from(octets).is_err() {
            return Err(format!("{octets} octets are more than can be counted"));
        }
        let created_ticks = self.counter(&["servicetimecreated"])?;
        let up_ticks = self.counter(&["cmtssysuptime"])?;
        let age_seconds = match (up_ticks, created_ticks) {
            (Some(up), Some(created)) => up.checked_sub(created).map(|ticks| ticks / 100),
            _ => None,
        };
        Ok(FlowUsage {
            line: self.line,
            cmts: name(self.required(&["cmtshostname"])?, "CMTShostName")?,
            modem,
            flow: name(self.required(&["serviceidentifier", "serviceflowid", "sfid"])?, "serviceIdentifier")?,
            class: self.optional(&["serviceclassname"])?.map(str::to_owned),
            direction,
            report,
            recorded_at,
            octets,
            packets: self.counter(&["servicepktspassed"])?,
            created_ticks,
            age_seconds,
        })
    }

    fn optional(&self, names: &[&str]) -> Result<Option<&str>, String> {
        for name in names {
            let mut found = self.values.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
            let Some(first) = found.next() else { continue };
            if found.any(|other| other != first) {
                return Err(format!("{name} stands twice with different values"));
            }
            if !first.is_empty() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    fn required(&self, names: &[&str]) -> Result<&str, String> {
        self.optional(names)?.ok_or_else(|| format!("{} is missing", names[0]))
    }

    fn counter(&self, names: &[&str]) -> Result<Option<u64>, String> {
        let Some(text) = self.optional(names)? else { return Ok(None) };
        let digits = text.bytes().all(|octet| octet.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Some).ok_or_else(|| format!("{} is {text:?}, no counter of 64 bits", names[0]))
    }
}

/// A name of printable characters that fits an attribute.
fn name(text: &str, what: &str) -> Result<String, String> {
    let fits = text.len() <= NAME_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| format!("{what} is no name of at most {NAME_MAX} characters"))
}

fn instant(text: &str, zone: Option<&Zone>) -> Result<Timestamp, String> {
    if let Some(at) = parse_instant(text) {
        return Ok(at);
    }
    let local: DateTime = text.parse().map_err(|_| format!("{text:?} is no instant"))?;
    let zone = zone.ok_or_else(|| format!("{text:?} names no time zone; give it with --timezone"))?;
    zone.to_timestamp(local).map_err(|_| format!("{text:?} is no instant"))
}

/// Counts lines, and fails when one piece of XML has no end.
struct Bounded<R> {
    input: R,
    line: u64,
    since: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let taken = available.len().min(into.len());
        into[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.since > PIECE_MAX {
            let detail = format!("a tag, comment or text is longer than {PIECE_MAX} octets");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.since += amount;
        // It is filled: this reads nothing.
        if let Ok(available) = self.input.fill_buf() {
            let lines = available.iter().take(amount).filter(|octet| **octet == b'\n').count();
            self.line += lines as u64;
        }
        self.input.consume(amount);
    }
}

const DEPTH_MAX: usize = 16;
const ELEMENTS_MAX: usize = 500;
const TEXT_MAX: usize = 4096;
const NAME_MAX: usize = 100;
const PIECE_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<Result<FlowUsage, SamisFault>> {
        // A small buffer, so that every piece crosses its edge.
        let mut reader = SamisReader::new(io::BufReader::with_capacity(7, text.as_bytes()), None);
        std::iter::from_fn(|| reader.next_flow()).take(1000).collect()
    }

    fn document(records: &[&str]) -> String {
        let records: String = records.iter().map(|record| format!("<IPDR>{record}</IPDR>\n")).collect();
        format!("<?xml version=\"1.0\"?>\n<IPDRDoc>\n{records}<IPDRDoc.End count=\"COUNT\"/></IPDRDoc>\n")
            .replace("COUNT", &records.matches("<IPDR>").count().to_string())
    }

    const OLD: &str = "<IPDRcreationTime>2026-11-20T14:00:00Z</IPDRcreationTime><CMTShostName>cmts01</CMTShostName>\
        <CMTSsysUpTime>287315</CMTSsysUpTime><CMmacAddress>02-00-5E-10-20-30</CMmacAddress><RecType>1</RecType>\
        <serviceIdentifier>3</serviceIdentifier><serviceDirection>2</serviceDirection>\
        <serviceOctetsPassed>7234567890123</serviceOctetsPassed><servicePktsPassed>51</servicePktsPassed>";
    const NEW: &str = "<i:CmtsHostName>c&#x6d;ts &amp; 2</i:CmtsHostName><i:CmtsSysUpTime>500000</i:CmtsSysUpTime>\
        <i:CmMacAddr>02:00:5e:10:20:31</i:CmMacAddr><i:RecType>Stop</i:RecType>\
        <i:RecCreationTime>2026-11-20T14:15:00.250Z</i:RecCreationTime><i:ServiceIdentifier>4</i:ServiceIdentifier>\
        <i:ServiceClassName><![CDATA[gold]]></i:ServiceClassName><i:ServiceDirection>1</i:ServiceDirection>\
        <i:ServiceOctetsPassed>9</i:ServiceOctetsPassed><i:ServiceTimeCreated>100050</i:ServiceTimeCreated>\
        <i:CmCpeList><i:Cpe><i:ServiceOctetsPassed>1</i:ServiceOctetsPassed></i:Cpe></i:CmCpeList>";

    #[test]
    fn records_of_both_generations_are_read() {
        let found = read(&document(&[OLD, NEW]));
        let [Ok(old), Ok(new)] = &found[..] else { panic!("{found:?}") };
        let mac = |text: &str| text.parse::<MacAddress>().expect("a MAC");
        assert_eq!((old.line, old.cmts.as_str(), old.modem), (3, "cmts01", mac("02:00:5e:10:20:30")));
        assert_eq!((old.direction, old.report), (FlowDirection::Upstream, FlowReport::Interim));
        assert_eq!((old.octets, old.packets, old.class.as_deref()), (7_234_567_890_123, Some(51), None));
        assert_eq!((old.created_ticks, old.age_seconds), (None, None));
        assert_eq!((new.line, new.cmts.as_str(), new.flow.as_str()), (4, "cmts & 2", "4"));
        assert_eq!((new.direction, new.report, new.octets), (FlowDirection::Downstream, FlowReport::Stop, 9));
        assert_eq!((new.class.as_deref(), new.age_seconds), (Some("gold"), Some(3999)));
        assert_eq!(new.recorded_at.to_string(), "2026-11-20T14:15:00.25Z");
    }

    #[test]
    fn what_is_wrong_in_a_record_is_named_and_the_next_one_is_read() {
        let cases = [
            ("<RecType>1</RecType>", "<RecType>9</RecType>", "RecType \"9\" is not"),
            ("<serviceDirection>2", "<serviceDirection>0", "the direction \"0\""),
            (">7234567890123<", ">99999999999999999999<", "no counter of 64 bits"),
            (">7234567890123<", ">9223372036854775808<", "more than can be counted"),
            (">7234567890123<", ">-1<", "no counter of 64 bits"),
            ("02-00-5E-10-20-30", "02-00-5E-10-20", "no MAC address"),
            ("<CMTShostName>cmts01</CMTShostName>", "", "cmtshostname is missing"),
            ("14:00:00Z", "14:00:00", "names no time zone"),
            ("<serviceIdentifier>3", "<serviceIdentifier>4</serviceIdentifier><serviceIdentifier>3", "stands twice"),
        ];
        for (from, to, words) in cases {
            let found = read(&document(&[&OLD.replace(from, to), NEW]));
            let [Err(fault), Ok(_)] = &found[..] else { panic!("{from}: {found:?}") };
            assert!(fault.to_string().starts_with("line 3: ") && fault.detail.contains(words), "{from}: {fault}");
        }
    }

    #[test]
    fn a_document_that_is_cut_off_gives_its_whole_records_and_says_so() {
        let whole = document(&[OLD, NEW]);
        for at in 0..whole.len() - 1 {
            if !whole.is_char_boundary(at) {
                continue;
            }
            let found = read(&whole[..at]);
            let (last, before) = found.split_last().expect("at least a fault");
            assert!(last.as_ref().is_err_and(|fault| fault.fatal), "{at}: {found:?}");
            assert!(before.iter().all(Result::is_ok), "{at}: {found:?}");
        }
        let found = read(&whole.replace("count=\"2\"", "count=\"3\""));
        assert!(found[2].as_ref().is_err_and(|fault| fault.detail.contains("says it has 3 records, 2 came")));
    }

    #[test]
    fn hostile_documents_end_in_a_fault() {
        let deep = format!("<IPDRDoc>{}", "<a>".repeat(100_000));
        let wide = format!("<IPDRDoc><IPDR>{}", "<a/>".repeat(100_000));
        let tag = format!("<IPDRDoc {}", "x".repeat(1_000_000));
        let comment = format!("<IPDRDoc><!--{}", "x".repeat(1_000_000));
        let external = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><IPDRDoc>&x;</IPDRDoc>";
        let laughs = "<!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;\">]><IPDRDoc/>";
        let entity = document(&[&OLD.replace("cmts01", "&secret;")]);
        let foreign = "<html></html>";
        let latin = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><IPDRDoc/>";
        let behind = format!("{}<IPDRDoc/>", document(&[]));
        for text in [&deep, &wide, &tag, &comment, external, laughs, &entity, foreign, latin, &behind, "", "x", "\u{0}"]
        {
            let found = read(text);
            let start: String = text.chars().take(60).collect();
            assert!(found.len() == 1 && found[0].as_ref().is_err_and(|fault| fault.fatal), "{start}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(pieces in proptest::collection::vec(prop_oneof![
            Just(OLD.to_owned()), Just("<IPDRDoc>".to_owned()), Just("</IPDRDoc>".to_owned()), Just("<IPDR>".to_owned()),
            Just("</IPDR>".to_owned()), Just("<IPDRDoc.End count=\"1\"/>".to_owned()), "[<>&;!/a-z\"=\\-\\[\\]]{0,12}",
        ], 0..12)) {
            read(&pieces.concat());
        }
    }
}
