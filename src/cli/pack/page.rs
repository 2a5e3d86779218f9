//! The page of a dispute pack that people read: the line, how it was computed, what it was computed from.
//!
//! One file of HTML, without scripts and without anything from elsewhere, so that it can be mailed and printed.

use super::Pack;
use crate::cli::replayed::place;
use crate::vocabulary::from_micros;

/// The page.
pub fn page(pack: &Pack<'_>) -> String {
    let line = &pack.explanation.line;
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Invoice line {}</title>\n<style>{STYLE}</style>\n",
        text(&line.id)
    );
    out.push_str(&format!(
        "<h1>{} {}</h1>\n<p class=\"lead\">{}</p>\n",
        text(&line.amount),
        text(&line.currency),
        text(&line.description)
    ));
    out.push_str(&facts(pack));
    out.push_str(&computation(pack));
    out.push_str(&verdict(pack));
    out.push_str(&shared(pack));
    out.push_str(&counted(pack));
    out.push_str(&entries(pack));
    out.push_str(&records(pack));
    out.push_str(&format!("<h2>The price</h2>\n<pre>{}</pre>\n", text(&pack.ground.tariff.document)));
    out.push_str(VERIFICATION);
    out
}

fn facts(pack: &Pack<'_>) -> String {
    let line = &pack.explanation.line;
    let tariff = format!("{}, version {}", line.tariff.id, line.tariff.version);
    let period = format!("{} to {} ({})", line.period.start, line.period.end, line.period.timezone);
    let rows = [
        ("Line", line.id.clone()),
        ("Account", line.account.clone()),
        ("Service", line.service.clone().unwrap_or_else(|| "-".to_owned())),
        ("Charge", format!("{} ({})", line.charge, line.kind.as_str())),
        ("Period", period),
        ("Billed time", coverage(pack)),
        ("Tariff", tariff),
        ("Batch", line.batch.clone().unwrap_or_else(|| "-".to_owned())),
        ("Made", line.created_at.to_string()),
        ("Corrects", line.corrects.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("<tr><th>{name}<td>{}\n", text(value))).collect();
    format!("<table class=\"facts\">\n{rows}</table>\n")
}

fn coverage(pack: &Pack<'_>) -> String {
    let edges = pack.explanation.coverage.iter().map(|edge| format!("{} to {}", edge.from, edge.until));
    let edges: Vec<String> = edges.collect();
    if edges.is_empty() { "none".to_owned() } else { edges.join(", ") }
}

fn computation(pack: &Pack<'_>) -> String {
    let (line, now) = (&pack.explanation.line, &pack.explanation.recomputed);
    let mut rows = String::new();
    let mut row = |what: &str, how: String, amount: &str| {
        rows.push_str(&format!("<tr><td>{}<td>{}<td class=\"n\">{}\n", text(what), text(&how), text(amount)));
    };
    let counted = match line.unit.as_str() {
        "s" | "min" | "h" => "seconds",
        "session" => "sessions",
        "period" | "piece" => "times",
        "subscriber" | "service" => "subjects or days of them",
        _ => "octets",
    };
    row("Counted", format!("{} {counted}", now.quantity_raw), "");
    row("Quantity", format!("{} {}", now.quantity, line.unit), "");
    for part in &now.parts {
        let name = |word: &Option<String>, what: &str| word.as_ref().map(|word| format!("{what} {word}"));
        let calls = part.calls.map(|calls| format!("{calls} calls"));
        let words = [name(&part.class, "class"), name(&part.window, "window"), name(&part.prefix, "to"), calls];
        let words: Vec<String> = words.into_iter().flatten().collect();
        let what = if words.is_empty() { "other usage".to_owned() } else { words.join(", ") };
        match &part.unit_amount {
            Some(price) => row(&what, format!("{} {} at {price}", part.quantity, line.unit), &part.amount_exact),
            None => row(&what, format!("{} {}, counts {} times", part.quantity, line.unit, part.weight), ""),
        }
    }
    row("Of it in the allowance", format!("{} {}", now.allowance_used, line.unit), "");
    for tier in &now.tiers {
        let how = format!("{} {} × {} + {}", tier.quantity, line.unit, tier.unit_amount, tier.flat_amount);
        row("Tier", how, &tier.amount_exact);
    }
    for step in &now.adjustments {
        row(&step.kind.replace('_', " "), String::new(), &step.amount_exact);
    }
    row("Exact", "the sum of these".to_owned(), &now.amount_exact);
    row("Rounded once", pack.explanation.rounding.clone(), &now.amount);
    row("Rounding residue", "rounded less exact".to_owned(), &now.rounding_residue);
    row("Charged by earlier lines", String::new(), &pack.explanation.issued_before);
    row("This line", String::new(), &line.amount);
    for tax in &line.tax {
        let how = format!("{} % of {}{}", tax.rate, tax.base, if tax.inclusive { ", contained" } else { "" });
        row(&format!("Tax {}", tax.id), how, &tax.amount);
    }
    format!(
        "<h2>How it was computed</h2>\n<table>\n<tr><th>step<th>how<th class=\"n\">{}\n{rows}</table>\n",
        text(&line.currency)
    )
}

fn verdict(pack: &Pack<'_>) -> String {
    let mut out = String::from("<h2>Computed again</h2>\n<ul>\n");
    let mut say = |from: &str, differences: &[String]| {
        if differences.is_empty() {
            out.push_str(&format!("<li>From {from}: the same to the last digit.\n"));
        }
        for difference in differences {
            out.push_str(&format!("<li class=\"bad\">From {from}: {}.\n", text(difference)));
        }
    };
    say("the ledger entries", &pack.explanation.differences);
    match pack.journal {
        Some(journal) => say("the records themselves", &journal.differences),
        None => {
            out.push_str("<li>No equipment of the network reported what the line is of: there are no such records.\n")
        }
    }
    out.push_str("</ul>\n");
    out
}

fn shared(pack: &Pack<'_>) -> String {
    if super::pool::told(pack.ground).is_some() {
        return pooled(pack);
    }
    let Some(figures) = &pack.ground.shared else { return String::new() };
    let mut rows = String::new();
    for member in &figures.members {
        rows.push_str(&format!(
            "<tr><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}\n",
            text(&member.service),
            text(&member.line),
            member.own.0,
            member.quantity.0,
            member.used.0
        ));
    }
    let note = match figures.holds {
        true => "",
        false => " A correction of one of them is held back, and no line tells of it yet.",
    };
    let carried: Vec<String> = figures.carried.iter().map(|left| left.amount.0.to_string()).collect();
    format!(
        "<h2>The shared allowance</h2>\n<p>From earlier periods: {}.{note}</p>\n<table>\n<tr><th>service<th>line\
         <th>own<th>asked for<th>used\n{rows}</table>\n",
        if carried.is_empty() { "nothing".to_owned() } else { carried.join(" and ") }
    )
}

/// An allowance with top-ups, or over several accounts, as it was computed anew.
fn pooled(pack: &Pack<'_>) -> String {
    let Some(shared) = &pack.explanation.shared else { return String::new() };
    let (mut rows, mut top_ups) = (String::new(), String::new());
    for member in &shared.members {
        rows.push_str(&format!(
            "<tr><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}\n",
            text(&member.account),
            text(&member.service),
            text(&member.own),
            text(&member.quantity),
            text(&member.used)
        ));
    }
    for top_up in &shared.top_ups {
        top_ups.push_str(&format!(
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}\n",
            text(&top_up.id),
            text(&top_up.amount),
            text(&top_up.left_before),
            text(&top_up.used)
        ));
    }
    if !top_ups.is_empty() {
        top_ups = format!("<table>\n<tr><th>top-up<th>granted<th>left before<th>used\n{top_ups}</table>\n");
    }
    format!(
        "<h2>The shared allowance</h2>\n<p>From earlier periods: {}. All there was: {}. Other accounts are numbered here.</p>\n\
         <table>\n<tr><th>account<th>service<th>own<th>asked for<th>used\n{rows}</table>\n{top_ups}",
        text(&shared.carried_in),
        text(&shared.available)
    )
}

fn counted(pack: &Pack<'_>) -> String {
    let (Some(count), Some(list)) = (&pack.explanation.line.count, &pack.ground.counted) else { return String::new() };
    let mut rows = String::new();
    for (subject, days) in list.members.iter().take(ROWS_MAX) {
        rows.push_str(&format!("<tr><td>{}<td class=\"n\">{days}\n", text(subject)));
    }
    format!(
        "<h2>Whom it counted</h2>\n<p>{} of tenant {}, by the rule {}, on {}. SHA-256: <code>{}</code>{}</p>\n<table>\n\
         <tr><th>subject<th>days\n{rows}</table>\n",
        count.members,
        text(&count.tenant),
        text(&count.rule),
        text(&count.days),
        text(&count.digest),
        rest(list.members.len(), "counted.csv")
    )
}

fn entries(pack: &Pack<'_>) -> String {
    let Some(usage) = &pack.explanation.line.usage else { return String::new() };
    let mut rows = String::new();
    for (entry, nas, session) in pack.entries.iter().take(ROWS_MAX) {
        let at = |micros| from_micros(micros).map(|at| at.to_string()).unwrap_or_default();
        rows.push_str(&format!(
            "<tr><td class=\"n\">{}<td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td>{}\n",
            entry.sequence,
            at(entry.from_at),
            at(entry.until_at),
            entry.in_octets,
            entry.out_octets,
            entry.seconds,
            text(&match (&entry.called, &entry.class) {
                (Some(called), _) => format!("call to {called}"),
                (None, Some(class)) => format!("{session} of {nas}, class {class}"),
                (None, None) => format!("{session} of {nas}"),
            })
        ));
    }
    format!(
        "<h2>Ledger entries</h2>\n<p>{} entries count, up to sequence {}. SHA-256: <code>{}</code>{}</p>\n<table>\n\
         <tr><th>sequence<th>from<th>until<th>octets up<th>octets down<th>seconds<th>session\n{rows}</table>\n",
        usage.records,
        usage.watermark,
        text(&usage.digest),
        rest(pack.entries.len(), "ledger.csv")
    )
}

fn records(pack: &Pack<'_>) -> String {
    let Some(journal) = pack.journal else { return String::new() };
    let mut rows = String::new();
    for known in journal.replay.records.iter().take(ROWS_MAX) {
        let read = &known.read;
        let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        rows.push_str(&format!(
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td>{}\n",
            place(known),
            read.arrived_at,
            text(&read.kind.to_string()),
            read.event_at,
            number(read.session_seconds),
            number(read.in_octets),
            number(read.out_octets),
            text(known.archive.as_deref().unwrap_or("journal"))
        ));
    }
    let dropped = journal.replay.dropped.as_ref().map_or(String::new(), |day| {
        format!(" Records of {} were dropped from the journal; its archive has them.", text(day))
    });
    format!(
        "<h2>Records</h2>\n<p>{} accounting records of these sessions, as the network sent them.{dropped}{}</p>\n<table>\n\
         <tr><th>record<th>arrived<th>kind<th>event<th>seconds<th>octets up<th>octets down<th>kept in\n{rows}</table>\n",
        journal.replay.records.len(),
        rest(journal.replay.records.len(), "records.jsonl")
    )
}

fn rest(rows: usize, file: &str) -> String {
    if rows > ROWS_MAX { format!(" The first {ROWS_MAX} are shown; {file} has all.") } else { String::new() }
}

fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const ROWS_MAX: usize = 1_000;
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1b1b1b}\
h1{margin-bottom:0}.lead{margin-top:.2em;font-size:1.15em}h2{margin-top:2em}\
table{border-collapse:collapse;width:100%;font-size:.9em}th,td{text-align:left;padding:.25em .6em;border-bottom:1px solid #ddd;\
vertical-align:top}.facts{width:auto}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\
pre{background:#f5f5f5;padding:1em;overflow-x:auto}code{word-break:break-all}.bad{color:#a00;font-weight:bold}\
@media print{body{margin:0;font-size:11px}}";
const VERIFICATION: &str = "<h2>Check it yourself</h2>\n\
<p>This folder holds everything the line was made from. <code>python3 verify.py</code> (Python 3.11 or later, nothing else)\n\
checks that no file was changed, that the ledger entries and the tariff have the digests the line names, counts the quantity,\n\
computes the amount and its taxes in exact fractions, rounds once, and compares each session with its records' counters.\n\
The beginning of <code>verify.py</code> says each step in words. <code>sha256sum -c manifest.sha256</code> checks the files\n\
alone.</p>\n\
<table>\n<tr><th>file<th>what is in it\n\
<tr><td>line.json<td>the line, and what is kept beside it (times, share, sums so far)\n\
<tr><td>before.json<td>the line of the same item before this one; null when it is the first\n\
<tr><td>tariff.toml or posting.json<td>the price, in the form whose digest the line names\n\
<tr><td>ledger.csv<td>the ledger entries; up is from the subscriber; instants are UTC\n\
<tr><td>allowance.json, counted.csv, posted.json<td>where the line has them: the shared allowance, whom it counted, what was\n\
posted by hand\n\
<tr><td>pool.json, pool.csv, tariff-2.toml<td>where top-ups or other accounts share the allowance: the top-ups, what was\n\
carried in, and the ledger entries and tariffs of the others, whose names are numbers\n\
<tr><td>records.jsonl, records.bin<td>the records: as they were read, and the RADIUS packets octet for octet (passwords blanked)\n\
<tr><td>explain.json<td>the whole computation, and which records made which entry\n\
</table>\n</html>\n";
