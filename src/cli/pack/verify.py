#!/usr/bin/env python3
"""Verifies a dispute pack without the program that made it: python3 verify.py [FOLDER]. Needs Python 3.11 or later; where a
price knows days or hours, also the time zones of the system (package tzdata).

What is checked, in this order; the first thing that does not hold ends the program with exit code 1 and names it:

 1. manifest.sha256: every file has the SHA-256 it had when the pack was made.
 2. The line's id: SHA-256 over tenant, source, account, cycle, service, add-on, tariff, version, charge, start of the period
    and number of the correction, each with its length before it.
 3. The price: SHA-256 of tariff.toml (or posting.json) is the digest that the line names. A charge that was posted for the
    account is the one of its row, posted.json.
 4. The ledger: each entry of ledger.csv that touches the billed time has a SHA-256, over seven 64-bit big-endian integers
    (sequence, from_us, until_us, in_octets, out_octets, seconds, sessions); where the charge looks at the session, the class or
    the number called, the first 64 bits of their SHA-256 are laid over the sequence (exclusive or). It is cut into eight 32-bit
    big-endian numbers, which are added up over all entries, one by one. SHA-256 over the number of entries and the eight
    sums, 64-bit big-endian each, is the digest that the line names. (Lines with basis.engine 1: one SHA-256 over the
    integers of all entries, in the order of their sequence.) Instants are microseconds since 1970-01-01T00:00:00Z.
    A count: the digest over counted.csv, the list of whom was counted.
 5. The quantity: an entry counts with the part of its time [from, until) that lies in the billed time [a, b):
    floor(octets * (min(b, until) - from) / (until - from)) - floor(octets * (max(a, from) - from) / (until - from)); where the
    charge has windows, classes or quantized days, each part of it apart. Calls: each whole where it began, by the longest
    prefix of the number called. Peaks: the slot of five minutes that 95 % of the slots do not exceed.
 6. The billed part of the period, from the billed time.
 7. The amount, in exact fractions: quantity / unit -> quantized -> less the allowance (shared ones from allowance.json; with
    top-ups or over several accounts from pool.json, pool.csv and the tariffs of those that share it) -> whole blocks ->
    tiers, packages or percent -> discounts -> maximum -> minimum; a recurring amount is amount * times * part of the period.
    Rounded once. The line's amount is this, less what earlier lines of the same item have charged (before.json).
 8. Taxes of the rounded amount, each rounded, less those of the earlier lines.
 9. The records: records.bin holds every RADIUS packet as it was received; records.jsonl tells where it stands, its SHA-256
    and what was read from it. The octets of a session in the ledger are not more than its counters rose.

What the pack cannot prove is said: which time was billed, how many pieces, which promotions and exemptions the account had,
what of a top-up periods of another bill cycle had used. Other accounts are numbered, never named.
Exit code 2: the tariff has terms that this program does not compute; nothing is said of the amount then.
"""
import csv, hashlib, json, math, pathlib, sys, tomllib
from bisect import bisect_right
from collections import namedtuple
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction

FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
UNITS = {"octet": 1, "MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30, "s": 1, "min": 60, "h": 3600, "session": 1,
         "bps": 1, "kbps": 10**3, "Mbps": 10**6, "Gbps": 10**9}
SLOT_SECONDS = 300
DIGEST = "digest of the ledger entries"
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MODEL = {"model", "tiers", "unit_amount", "package_size", "package_amount", "free_units", "rate", "fixed_amount", "block",
         "charge_flat_at_zero", "minimum", "maximum"}
# The terms of each table of a tariff that this program knows; it says nothing of a charge with any other.
TERMS = {
    "recurring": {"amount", "timing", "proration", "refund_on_end", "per", "during_hold"},
    "one_off": {"amount"},
    "deposit": {"amount"},
    "usage": MODEL | {"meter", "direction", "unit", "quantize", "allowance", "windows", "classes", "proration", "rates",
                      "increments", "prepaid"},
    "count": MODEL | {"count", "rule", "day", "service_types", "plans", "statuses"},
    "charge": {"id", "type", "tax_category", "jurisdiction"},
    "quantize": {"to", "mode", "level"},
    "block": {"size", "mode"},
    "allowance": {"amount", "prorate", "pool", "rollover"},
    "rollover": {"max", "expires_cycles"},
    "windows": {"id", "days", "from", "to", "weight", "unit_amount"},
    "classes": {"weight", "unit_amount", "direction"},
    "rates": {"prefix", "unit_amount", "connection", "minimum", "increments"},
    "tiers": {"up_to", "unit_amount", "flat_amount", "rate"},
    "discount": {"id", "origin", "kind", "value", "applies_to", "cycles", "promo", "requires", "trial_days"},
    "tax": {"id", "rate", "amount", "applies_to", "jurisdiction", "inclusive", "compound", "order"},
    "rounding": {"line", "line_dp", "tax_level"},
}
CONDITIONS = {"promo", "requires", "trial_days"}
Entry = namedtuple("Entry", "sequence start end up down seconds sessions session class_ called place")
Part = namedtuple("Part", "class_ window prefix calls raw quantity weight price amount")
Measured = namedtuple("Measured", "raw quantity apart events parts")


def main():
    every_file_is_as_the_pack_was_made()
    stored, before = load("line.json"), load("before.json")
    line, basis = stored["line"], stored["basis"]
    check("the line's id, made of its names", line["id"], line_id(line, basis))
    if before:
        check("the item of the line before", line_id(line, basis, basis["revision"] - 1), before["line"]["id"])
    tariff, charge = the_price(line, basis)
    know_every_term(tariff, charge)
    coverage = [(micros(a), micros(b)) for a, b in basis["coverage"]]
    entries = the_ledger(line, basis, charge, coverage) if line["usage"] else []
    measured = the_quantity(line, basis, charge, coverage, entries)
    check("counted", basis["quantity_raw"], measured.raw)
    check("usage by class, window and destination", line.get("parts", []), [shape_of(part) for part in measured.parts])
    share = the_share(line, charge, coverage)
    check("billed part of the period", Fraction(basis["share"]), share)
    steps, tiers, quantity, allowance_used, scale = the_model(line, basis, charge, measured, share, entries)
    the_discounts(line, basis, tariff, steps, tiers, scale)
    the_limits(charge, steps, tiers, scale if coverage else Fraction(0))
    taxes, all_taxes = the_taxes(line, basis, tariff, charge)
    (factor, shares), (full, _) = inclusive(taxes), inclusive(all_taxes)
    amount = total_of(steps, tiers)
    add(steps, "tax_exempt", amount / full * factor - amount)
    amount = total_of(steps, tiers)
    check("exact amount", Fraction(basis["amount_exact"]), amount)
    had = lambda name: Fraction(before["basis"][name]) if before else Fraction(0)
    add(steps, "already_issued", -had("amount_exact"))
    check("steps that are no tiers", shown_steps(line["adjustments"]), [(kind, decimal(value)) for kind, value in steps])
    check("tiers", line["tiers"], [tier_shape(*tier) for tier in tiers])
    check("quantity of this line", line["quantity"], decimal(quantity - had("quantity")))
    check("of it in the allowance", line["allowance_used"], decimal(allowance_used - had("allowance_used")))
    check("counted by this line", line["quantity_raw"], str(measured.raw - int(had("quantity_raw"))))
    check("exact amount of this line", line["amount_exact"], decimal(amount - had("amount_exact")))

    digits = len(line["amount"].partition(".")[2])
    rounding = tariff.get("rounding", {})
    places, mode = min(rounding.get("line_dp", digits), digits), rounding.get("line", "half_up")
    total = whole(amount * 10**places, mode) * 10 ** (digits - places)
    check("amount so far, in minor units", basis["amount_minor"], total)
    check("amount of this line", line["amount"], shown(total - int(had("amount_minor")), digits))
    check("rounding residue", line["rounding_residue"],
          decimal(Fraction(total, 10**digits) - had("amount_minor") / 10**digits - amount + had("amount_exact")))
    levy(line, basis, before, rounding, (taxes, shares, factor), total, mode, digits)
    the_records(line, entries)
    print(f"The line of {line['amount']} {line['currency']} holds.")


# ---- 1 to 3: files, names, prices

def every_file_is_as_the_pack_was_made():
    for entry in read("manifest.sha256").decode().splitlines():
        digest, name = entry.split("  ", 1)
        if hashlib.sha256(read(name)).hexdigest() != digest:
            fail(f"{name} is not the file that the pack was made with")
    print("ok  every file is as the pack was made")


def line_id(line, basis, revision=None):
    revision = basis["revision"] if revision is None else revision
    names = [line["tenant"], basis["source"], line["account"], line["cycle"], line["service"] or "", basis["addon"] or "",
             line["tariff"]["id"], str(line["tariff"]["version"]), line["charge"], str(micros(line["period"]["start"])),
             str(revision)]
    return "ln_" + hashlib.sha256(b"".join(map(with_length, names))).hexdigest()[:32]


def the_price(line, basis):
    """The tariff and the charge of the line. A posted charge is a charge of its own with the taxes of the tariff it names."""
    if not basis.get("posted"):
        text = read("tariff.toml")
        check("digest of the tariff", line["tariff"]["digest"], hashlib.sha256(text).hexdigest())
        tariff = tomllib.loads(text.decode())
        charge = next((charge for charge in tariff["charge"] if charge["id"] == line["charge"]), None)
        return tariff, charge or fail(f"the tariff has no charge {line['charge']}")
    row, posting = load("posted.json"), basis["posted"]["posting"]
    check("the posted charge", line["charge"], row["id"])
    # What a top-up is for, and what it costs where the posting does not say, is its service's tariff's to say.
    left_out = {"service", "tariff", "charge", "amount"} if posting["type"] == "top_up" else set()
    without = lambda terms: {name: term for name, term in terms.items() if name not in left_out}
    check("what was posted", without(row["charge"]), without(posting))
    check("pieces", posting.get("quantity", 1), basis["times"])
    day = local(micros(basis["coverage"][0][0]), line).date().isoformat() if basis["coverage"] else row["on"]
    check("the day it is for", row["on"], day)
    tariff, named = {}, {}
    if line["tariff"]["id"] == "posted":
        text = read("posting.json")
        # Who was forgotten took the description along; the charge keeps the digest it had with it.
        check("digest of the posted charge", line["tariff"]["digest"], posting.get("erased") or hashlib.sha256(text).hexdigest())
        check("what the digest is of", json.loads(text), posting)
    else:
        text = read("tariff.toml")
        check("digest of the tariff", line["tariff"]["digest"], hashlib.sha256(text).hexdigest())
        tariff = tomllib.loads(text.decode())
        named = next((charge for charge in tariff["charge"] if charge["id"] == posting.get("charge")), {})
        if posting.get("top_up"):
            named = next((one for one in tariff.get("top_up", []) if one["id"] == posting["top_up"]), {})
            check("what the top-up is for", named.get("charge"), posting["charge"])
        if posting["type"] == "top_up":
            price = row["charge"].get("amount") or named.get("price") or fail("the top-up has no price")
            check("price of the top-up", Fraction(price), Fraction(posting["amount"]))
    amount = posting.get("amount") or named.get("amount") or fail("the posted charge has no amount")
    kind = "deposit" if posting["type"].startswith("deposit") else "one_off"
    sign = "-" if posting["type"] in ("credit", "deposit_return") else ""
    concerns = lambda tax: posting.get("charge") in tax["applies_to"] if "applies_to" in tax else True
    taxes = [dict(tax, order=tax.get("order", place)) for place, tax in enumerate(tariff.get("tax", []), 1) if concerns(tax)]
    taxes = [{name: term for name, term in tax.items() if name != "applies_to"} for tax in taxes]
    return {"rounding": tariff.get("rounding", {}), "tax": taxes}, {"id": line["charge"], "type": kind, "amount": sign + amount}


def know_every_term(tariff, charge):
    unknown = [f"charge {term}" for term in set(charge) - TERMS["charge"] - TERMS.get(charge["type"], set())]
    tables = [(name, charge[name]) for name in ("quantize", "block", "allowance") if name in charge]
    tables += [(name, row) for name in ("windows", "rates", "tiers") for row in charge.get(name, [])]
    tables += [("classes", row) for row in charge.get("classes", {}).values() if isinstance(row, dict)]
    tables += [("rollover", charge["allowance"]["rollover"])] if "rollover" in charge.get("allowance", {}) else []
    tables += [(name, row) for name in ("discount", "tax") for row in tariff.get(name, [])]
    tables += [("rounding", tariff.get("rounding", {}))]
    unknown += [f"{name} {term}" for name, table in tables for term in set(table) - TERMS[name]]
    unknown += [f"type {charge['type']}"] if charge["type"] not in TERMS else []
    if unknown:
        print("this program does not compute these terms of the tariff:", ", ".join(sorted(unknown)))
        sys.exit(2)


# ---- 4 and 5: what was counted

def the_ledger(line, basis, charge, coverage):
    """The entries that touch the billed time, after their digest was found to be the line's."""
    meter, entries = charge["meter"], []
    for row in csv.DictReader(read("ledger.csv").decode().splitlines()):
        numbers = [int(row[name]) for name in ("sequence", "from_us", "until_us", "in_octets", "out_octets", "seconds", "sessions")]
        entry = Entry(*numbers, int(row["session_id"]), row["class"], row["called"], (row["nas"], row["session"]))
        check_quietly(f"instants of ledger entry {entry.sequence}", (micros(row["from"]), micros(row["until"])), entry[1:3])
        if any(inside(entry, a, b) for a, b in coverage) and (meter != "calls" or entry.called):
            entries.append(entry)
    entries.sort(key=lambda entry: entry.sequence)
    check("ledger entries", line["usage"]["records"], len(entries))
    check(DIGEST, line["usage"]["digest"], digest_of(charge, basis.get("engine", 1), entries))
    return entries


def digest_of(charge, engine, entries):
    meter, first, lanes = charge["meter"], hashlib.sha256(), [0] * 8
    by_session = charge.get("quantize", {}).get("level") == "session"
    for entry in entries:
        session = entry.session if by_session else 0
        class_ = entry.class_ if charge.get("classes") else ""
        called = entry.called if meter == "calls" else ""
        numbers = list(entry[:7])
        first.update(packed(numbers))
        if by_session or class_ or called:
            words = f"{session}|{len(class_.encode())}|{class_}|{called}".encode()
            numbers[0] ^= int.from_bytes(hashlib.sha256(words).digest()[:8], "big", signed=True)
        of_entry = hashlib.sha256(packed(numbers)).digest()
        lanes = [lane + int.from_bytes(of_entry[at:at + 4], "big") for lane, at in zip(lanes, range(0, 32, 4))]
    return (first if engine == 1 else hashlib.sha256(packed([len(entries), *lanes]))).hexdigest()


def the_quantity(line, basis, charge, coverage, entries):
    if charge["type"] == "count":
        return counted(line, charge, coverage)
    if charge["type"] != "usage":
        times = basis["times"] if coverage else 0
        # A deposit that is given back is the opposite of the one that was taken.
        times = -times if charge["type"] == "deposit" and basis["quantity_raw"] < 0 else times
        return Measured(times, Fraction(times), Fraction(0), 0, [])
    if charge["meter"] == "calls":
        return calls(charge, entries)
    if charge["meter"] == "peak_bps_95":
        octets = peak(charge, coverage, entries)
        return Measured(octets, Fraction(octets * 8, SLOT_SECONDS * UNITS[charge["unit"]]), Fraction(0),
                        sum(entry.sessions for entry in entries if begins_in(entry, coverage)), [])
    return metered(line, charge, coverage, entries)


def metered(line, charge, coverage, entries):
    """Octets, seconds or sessions, apart by class, window and what is quantized by itself."""
    windows, classes = charge.get("windows", []), charge.get("classes", {})
    level = charge["quantize"].get("level", "cycle") if "quantize" in charge else "cycle"
    if windows or classes or level != "cycle":
        entries = joined(entries)
    cells = {}
    for a, b in coverage:
        spans = spans_of(windows, a, b, line) if windows else []
        nights = midnights(a, b, line) if level == "day" else []
        marks = sorted({edge for start, end, _ in spans for edge in (start, end)} | set(nights))
        for entry in entries:
            if not inside(entry, a, b):
                continue
            class_ = entry.class_ if entry.class_ in classes else ""
            apart = class_ and own_price(classes[class_]) is not None
            begins_here = a <= entry.start < b
            for lo, hi in cut_at(entry, max(a, entry.start), min(b, entry.end), marks):
                window = None if apart else next((place for start, end, place in spans if start <= lo < end), None)
                group = {"session": entry.session, "day": (a, bisect_right(nights, lo))}.get(level, 0)
                sums = cells.setdefault((class_, window, group), [0, 0, 0, 0])
                for place, number in enumerate((entry.up, entry.down, entry.seconds)):
                    sums[place] += part_of(entry, number, lo, hi)
                sums[3] += entry.sessions if begins_here else 0
                begins_here = False
    direction_of = lambda class_: classes[class_].get("direction") if class_ and isinstance(classes[class_], dict) else None
    own = lambda class_: direction_of(class_) is None
    up, down = (sum(sums[place] for (class_, _, _), sums in cells.items() if own(class_)) for place in (0, 1))
    larger, found = "up" if up >= down else "down", {}
    for (class_, window, _), sums in cells.items():
        direction = direction_of(class_) or charge.get("direction", "sum")
        direction = larger if direction == "max" else direction
        octets = {"up": sums[0], "down": sums[1], "sum": sums[0] + sums[1]}[direction]
        found.setdefault((class_, window), []).append(
            {"octets": octets, "seconds": sums[2], "sessions": sums[3]}[charge["meter"]])
    parts = []
    for (class_, window), counts in sorted(found.items(), key=lambda cell: (cell[0][0], -1 if cell[0][1] is None else cell[0][1])):
        if any(counts):
            parts.append(weigh(charge, class_, window, counts, level))
    return Measured(sum(part.raw for part in parts), sum((part.quantity * part.weight for part in parts), Fraction(0)),
                    sum((part.amount for part in parts), Fraction(0)), sum(sums[3] for sums in cells.values()),
                    parts if windows or classes else [])


def weigh(charge, class_, window, counts, level):
    """How often a part counts in the charge's quantity, or what it costs by a price of its own; the class is asked first."""
    weight, price = Fraction(1), None
    for terms in ([charge["classes"][class_]] if class_ else []) + ([charge["windows"][window]] if window is not None else []):
        if own_price(terms) is None:
            weight *= Fraction(terms["weight"])
        elif price is None:
            price = own_price(terms)
    exact = [Fraction(count, UNITS[unit_of(charge)]) for count in counts]
    if "quantize" in charge and level != "cycle":
        exact = [in_steps(charge["quantize"], unit_of(charge), each) for each in exact]
    quantity = billed = sum(exact, Fraction(0))
    if price is not None and "quantize" in charge and level == "cycle":
        billed = in_steps(charge["quantize"], unit_of(charge), quantity)
    name = None if window is None else charge["windows"][window]["id"]
    amount = Fraction(0) if price is None else billed * weight * price
    return Part(class_ or None, name, None, None, sum(counts), quantity, weight if price is None else Fraction(0), price, amount)


def own_price(terms):
    text = terms if isinstance(terms, str) else terms.get("unit_amount")
    return None if text is None else Fraction(text)


def calls(charge, entries):
    """Each call by the rate of the longest prefix of the number called: first increment whole, then further ones begun."""
    talked = {}
    for entry in entries:
        # An entry that takes a call back is of the same call.
        _, seconds, count = talked.get(entry.session, ("", 0, 0))
        talked[entry.session] = (entry.called, seconds + entry.seconds, count + entry.sessions)
    rates, parts = {rate["prefix"]: rate for rate in charge["rates"]}, {}
    for called, seconds, count in (call for call in talked.values() if call[2]):
        prefix = next((called[:end] for end in range(len(called), -1, -1) if called[:end] in rates), None)
        if prefix is None:
            fail(f"no rate fits the number {called}")
        rate = rates[prefix]
        first, then = map(int, rate.get("increments", charge.get("increments", "1/1")).split("/"))
        whole_seconds = first if seconds <= first else first + -(-(seconds - first) // then) * then
        quantity = Fraction(whole_seconds, UNITS[charge["unit"]])
        amount = quantity * Fraction(rate["unit_amount"]) + Fraction(rate.get("connection", "0"))
        amount = max(amount, Fraction(rate.get("minimum", "0")))
        known = parts.get(prefix, Part(None, None, prefix, 0, 0, Fraction(0), Fraction(0), Fraction(rate["unit_amount"]), Fraction(0)))
        parts[prefix] = known._replace(calls=known.calls + abs(count), raw=known.raw + seconds,
                                       quantity=known.quantity + quantity, amount=known.amount + amount)
    listed = [parts[prefix] for prefix in sorted(parts)]
    return Measured(sum(part.raw for part in listed), sum((part.quantity for part in listed), Fraction(0)),
                    sum((part.amount for part in listed), Fraction(0)), sum(part.calls for part in listed), listed)


def peak(charge, coverage, entries):
    """Octets of the slot of five minutes that 95 % of the slots do not exceed; a slot without usage counts as zero."""
    length, slots = SLOT_SECONDS * 10**6, []
    for a, b in coverage:
        here = [[0, 0] for _ in range(-(-(b - a) // length))]
        for entry in (entry for entry in entries if inside(entry, a, b)):
            lo, hi = max(a, entry.start), min(b, entry.end)
            first, last = (lo - a) // length, max(lo, hi - 1) - a
            edges = [a + slot * length for slot in range(first + 1, last // length + 1)]
            for begins, ends in cut_at(entry, lo, hi, edges):
                here[(begins - a) // length][0] += part_of(entry, entry.up, begins, ends)
                here[(begins - a) // length][1] += part_of(entry, entry.down, begins, ends)
        slots += here
    rank = -(-len(slots) * 95 // 100)
    at_rank = lambda values: sorted(values)[rank - 1] if rank else 0
    up, down = at_rank(slot[0] for slot in slots), at_rank(slot[1] for slot in slots)
    both = at_rank(slot[0] + slot[1] for slot in slots)
    return {"up": up, "down": down, "sum": both, "max": max(up, down)}[charge["direction"]]


def counted(line, charge, coverage):
    """Whom a count counted: the list that was frozen when the line was made."""
    if not coverage:
        return Measured(0, Fraction(0), Fraction(0), 0, [])
    count = line["count"]
    rows = [(row["subject"], int(row["days"])) for row in csv.DictReader(read("counted.csv").decode().splitlines())]
    hashed = hashlib.sha256(b"".join(map(with_length, (count["tenant"], count["rule"], count["days"]))))
    for subject, days in rows:
        hashed.update(with_length(subject) + days.to_bytes(4, "big"))
    check("subjects on the list", count["members"], len(rows))
    check("digest of the list of whom was counted", count["digest"], hashed.hexdigest())
    rule = charge["rule"] + (f" {charge['day']}" if charge["rule"] == "active_on" else "")
    check("rule of the count", rule, count["rule"])
    if charge["rule"] != "average_daily":
        return Measured(len(rows), Fraction(len(rows)), Fraction(0), 0, [])
    first, last = (date.fromisoformat(day) for day in count["days"].split(".."))
    raw = sum(days for _, days in rows)
    return Measured(raw, Fraction(raw, (last - first).days + 1), Fraction(0), 0, [])


# ---- Pieces of time

def inside(entry, a, b):
    """Whether a part of the entry's time lies in [a, b). An entry without duration lies where it starts."""
    return a <= entry.start < b if entry.start >= entry.end else max(a, entry.start) < min(b, entry.end)


def begins_in(entry, coverage):
    return any(a <= entry.start < b for a, b in coverage)


def cut_at(entry, lo, hi, marks):
    """[lo, hi) of an entry cut at the marks; an entry without duration is one piece."""
    if entry.start >= entry.end:
        return [(entry.start, entry.end)]
    edges = [lo, *marks[bisect_right(marks, lo):], hi]
    edges = [edge for edge in edges if edge < hi] + [hi]
    return list(zip(edges, edges[1:]))


def part_of(entry, number, lo, hi):
    """What of the number falls into [lo, hi): a difference of cumulative shares, each cut toward zero."""
    length = entry.end - entry.start
    running = lambda at: math.trunc(Fraction(number * (at - entry.start), length))
    return number if length <= 0 else running(hi) - running(lo)


def joined(entries):
    """Entries of one session, class and time as one, so that a correction is cut together with what it corrects."""
    found = {}
    for entry in entries:
        key = (entry.session, entry.start, entry.end, entry.class_)
        known = found.get(key)
        found[key] = entry if known is None else known._replace(
            up=known.up + entry.up, down=known.down + entry.down, seconds=known.seconds + entry.seconds,
            sessions=known.sessions + entry.sessions)
    return list(found.values())


def spans_of(windows, a, b, line):
    """(start, end, place in the list) of every window of every day; of two that overlap the first in the list holds."""
    spans, day, last = [], local(a, line).date() - timedelta(days=1), local(b, line).date()
    while day <= last:
        for place, window in enumerate(windows):
            begins, ends = minute(window["from"]), minute(window["to"]) or 1440
            if day.weekday() in weekdays(window["days"]):
                over = day if ends > begins else day + timedelta(days=1)
                spans.append((instant(day, begins, line), instant(over, ends, line), place))
        day += timedelta(days=1)
    return sorted((span for span in spans if span[0] < span[1]), key=lambda span: span[2])


def midnights(a, b, line):
    found, day = [], local(a, line).date()
    while instant(day, 0, line, skipped="later") < b:
        found += [at for at in [instant(day, 0, line, skipped="later")] if at >= a]
        day += timedelta(days=1)
    return found


def instant(day, minutes, line, skipped="edge"):
    """The instant at which the local clock shows this minute of the day: the first one where it shows it twice; where it skips
    it, the first instant after the gap (for midnights: as much later as the gap is long)."""
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)
    epoch, zone = datetime(1970, 1, 1), zone_of(line)
    second = lambda fold: (wall - wall.replace(tzinfo=zone, fold=fold).utcoffset() - epoch) // timedelta(seconds=1)
    first, second_try = second(0), second(1)
    if first <= second_try or skipped == "later":
        return first * 10**6
    offset = lambda at: datetime.fromtimestamp(at, zone).utcoffset()
    before, lo, hi = offset(second_try), second_try, first
    while lo + 1 < hi:
        middle = (lo + hi) // 2
        lo, hi = (middle, hi) if offset(middle) == before else (lo, middle)
    return hi * 10**6


def zone_of(line):
    name = line["period"]["timezone"]
    try:
        from zoneinfo import ZoneInfo
        return timezone.utc if name == "UTC" else ZoneInfo(name)
    except Exception:
        print(f"this machine does not know the time zone {name}: install its time zones (package tzdata)")
        sys.exit(2)


def local(at, line):
    return datetime.fromtimestamp(at // 10**6, zone_of(line))


def minute(text):
    return int(text[:2]) * 60 + int(text[3:])


def weekdays(text):
    found = set()
    for word in text.split(","):
        first, _, last = word.strip().partition("-")
        first, last = DAYS.index(first.strip()), DAYS.index((last or first).strip())
        found |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    return found


def micros(text):
    head, _, tail = text.rstrip("Z").partition(".")
    at = datetime.fromisoformat(head).replace(tzinfo=timezone.utc)
    return (at - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1) * 10**6 + int((tail + "000000")[:6])


# ---- 6 and 7: what it costs

def the_share(line, charge, coverage):
    """The billed part of the period, by days, thirtieths or time."""
    start, end = micros(line["period"]["start"]), micros(line["period"]["end"])
    proration = charge.get("proration", "actual_days") if charge["type"] == "recurring" else "actual_days"
    if not coverage:
        return Fraction(0)
    if charge["type"] not in ("recurring", "usage") or proration == "none" and charge["type"] == "recurring":
        return Fraction(1)
    if proration == "per_second":
        return Fraction(sum(b - a for a, b in coverage), end - start)
    days = lambda a, b: (local(b, line).date() - local(a, line).date()).days
    length = days(start, end)
    if proration == "fixed_30" and 28 <= length <= 31:
        running = lambda at: 30 if at >= end else min(days(start, at), 30)
        return Fraction(sum(running(b) - running(a) for a, b in coverage), 30)
    return Fraction(sum(days(a, b) for a, b in coverage), length)


def the_model(line, basis, charge, measured, share, entries):
    """Steps (kind, amount), tiers (quantity, unit amount, flat amount), quantity, what the allowance holds of it, and the scale
    of what follows the billed part of the period."""
    if not basis["coverage"]:
        return [], [], Fraction(0), Fraction(0), Fraction(1)
    if charge["type"] not in ("usage", "count"):
        scale = share if charge["type"] == "recurring" else Fraction(1)
        full = price_of_one(line, basis, charge) * measured.quantity
        steps = []
        add(steps, "price", full)
        add(steps, "proration", full * scale - full)
        return steps, [], measured.quantity, Fraction(0), scale
    scale = share if charge["type"] == "usage" and charge.get("proration") == "tiers" else Fraction(1)
    quantity = quantized(charge, measured.quantity)
    allowance_used = min(the_allowance(line, basis, charge, quantity, share, entries), quantity)
    beyond = quantity - allowance_used
    if "block" in charge:
        size = Fraction(charge["block"]["size"])
        beyond = whole(beyond / size, charge["block"].get("mode", "up")) * size
    steps = []
    add(steps, "own_price", measured.apart)
    return steps, tiers_of(charge, beyond, scale, measured.events), quantity, allowance_used, scale


def price_of_one(line, basis, charge):
    """The amount of one piece; a subscriber may have a price of their own, and then the line says so."""
    amount = Fraction(charge["amount"])
    step = next((step["amount_exact"] for step in line["adjustments"] if step["kind"] == "price"), "0")
    own = Fraction(step) / basis["times"] if basis["times"] else amount
    if charge["type"] == "recurring" and own != amount:
        print(f"--  this subscriber's own price: {decimal(own)} instead of the tariff's {decimal(amount)}")
        return own
    return amount


def quantized(charge, quantity):
    if charge.get("quantize", {}).get("level", "cycle") == "cycle" and "quantize" in charge:
        return in_steps(charge["quantize"], unit_of(charge), quantity)
    return quantity


def own_allowance(charge, share):
    terms = charge.get("allowance", {})
    return Fraction(terms.get("amount", "0")) * (share if terms.get("prorate") else 1)


def the_allowance(line, basis, charge, quantity, share, entries):
    """What the price includes."""
    terms, own, pool = charge.get("allowance", {}), own_allowance(charge, share), basis.get("pool")
    others = pool and any(member.get("account") for member in pool.get("members", []))
    if pool and (pool.get("grants") or others or charge.get("prepaid") or terms.get("pool") == "parent"):
        return the_pool(line, basis, charge, (own, quantity), entries)
    if terms.get("pool", "service") == "service" and "rollover" not in terms:
        return own
    check("own allowance of the line", line["allowance"]["own"], decimal(own))
    figures, granted = load("allowance.json"), Fraction(basis["granted"])
    if not figures["holds"]:
        print("--  a correction of a service that shares the allowance is held back: its part of it is taken as the line says")
        return granted
    mine = next((member for member in figures["members"] if member["line"] == line["id"]), None)
    if mine is None:
        fail("the line is not among those that share the allowance")
    check("own allowance", own, Fraction(mine["own"]))
    check("quantity that asks for the allowance", quantity, Fraction(mine["quantity"]))
    used, carried_in, carried_on = shared_out(figures)
    shape = line["allowance"]
    check("allowance from earlier periods", shape["carried_in"], decimal(carried_in))
    for member, amount in zip(figures["members"], used):
        check_quietly(f"allowance used by service {member['service']}", Fraction(member["used"]), amount)
    check("of the shared allowance used here", granted, used[figures["members"].index(mine)])
    check("of the shared allowance used here, on the line", shape["used"], decimal(granted))
    if "carried_on" in shape:
        check("allowance carried on", shape["carried_on"], decimal(sum((amount for _, amount in carried_on), Fraction(0))))
    return granted


def the_pool(line, basis, charge, mine, entries):
    """An allowance with top-ups, or of several accounts, from the ledger entries of all that share it."""
    pool, told, shape, granted = basis["pool"], load("pool.json"), line["allowance"], Fraction(basis["granted"])
    check("what was carried in", carried_as(reaching(told["before"], pool)), carried_as(reaching(pool["before"], pool)))
    top_ups = the_top_ups(line, charge, pool, {grant["id"]: grant for grant in told["grants"]})
    members, rollover = [mine], charge.get("allowance", {}).get("rollover")
    if pool.get("members"):
        members, rollover = the_members(line, charge, pool, told["members"], mine)
    used, buckets, carried_in, left, granted_left = poured(members, rollover, pool["period"], pool["before"], top_ups)
    available, wanted = sum((bucket[2] for bucket in buckets), Fraction(0)), sum((asked for _, asked in members), Fraction(0))
    check("own allowance of the line", shape["own"], decimal(mine[0]))
    check("allowance from earlier periods", shape["carried_in"], decimal(carried_in))
    check("all there was", shape["available"], decimal(available))
    check("what is left of it", shape["left"], decimal(available - min(available, wanted)))
    check("of the shared allowance used here", granted, used[pool.get("place", 0)])
    check("of the shared allowance used here, on the line", shape["used"], decimal(granted))
    if "carried_on" in shape:
        check("allowance carried on", shape["carried_on"], decimal(sum((amount for _, amount in left), Fraction(0))))
        kinds = {"carried": "carried", "own": "included"}
        found = [(kinds.get(name, "top_up"), None if name in kinds else name, decimal(amount), decimal(taken))
                 for name, _, amount, taken in buckets if name not in kinds or amount]
        check("what there was, in its order", buckets_of(shape), found)
        carry = {"period": pool["period"], "left": [{"until": until, "amount": amount} for until, amount in left],
                 "granted": [{"id": name, "amount": rest} for name, rest in granted_left]}
        check("what is carried on", carried_as(basis["carry"]), carried_as(carry))
    return granted


def buckets_of(shape):
    return [(one["kind"], one.get("id"), one["quantity"], one["used"]) for one in shape.get("buckets", [])]


def the_top_ups(line, charge, pool, stored):
    """The top-ups of the period as (id, last period, amount, what other cycles had of it), after they were found to be those that
    were posted."""
    start, end, found, instants = micros(line["period"]["start"]), micros(line["period"]["end"]), [], []
    for grant in pool.get("grants", []):
        name, until = grant["id"], grant.get("until")
        row = stored.get(name) or fail(f"the top-up {name} is not in the pack")
        check(f"top-up {name}", Fraction(grant["amount"]), Fraction(row["amount"], UNITS[unit_of(charge)]))
        ends = None if row["until"] is None else micros(row["until"])
        if micros(row["from"]) >= end or ends is not None and ends <= start:
            fail(f"the top-up {name} cannot be used in this period")
        check_quietly(f"end of the top-up {name}", (until is None, until is not None and until > pool["period"]),
                      (ends is None, ends is not None and ends > end))
        elsewhere = Fraction(grant.get("elsewhere", "0"))
        if elsewhere:
            print(f"--  of the top-up {name} {decimal(elsewhere)} were used on another bill cycle, as the line says")
        instants += [] if ends is None else [(until, ends)]
        found.append((name, math.inf if until is None else until, Fraction(grant["amount"]), elsewhere))
    instants.sort()
    for (one, ends), (other, later) in zip(instants, instants[1:]):
        if one < other and later <= ends:
            fail("the top-ups do not expire in the order that the line says")
    return found


def the_members(line, charge, pool, told, mine):
    """What each that shares the allowance has of its own and asks for, and how what is left is carried on."""
    rows, members, rollover = {}, [], None
    for row in csv.DictReader(read("pool.csv").decode().splitlines()):
        numbers = [int(row[name]) for name in ("sequence", "from_us", "until_us", "in_octets", "out_octets", "seconds", "sessions")]
        entry = Entry(*numbers, int(row["session_id"]), row["class"], "", (row["member"], row["session_id"]))
        rows.setdefault(int(row["member"]), []).append(entry)
    check("members of the allowance", len(pool["members"]), len(told))
    for place, (member, known) in enumerate(zip(pool["members"], told)):
        text, name = read(known["tariff"]), f"member {place + 1}"
        tariff = tomllib.loads(text.decode())
        check_quietly(f"tariff of {name}", (member["tariff"], member["version"]), (tariff["id"], tariff["version"]))
        terms = next((one for one in tariff["charge"] if one["id"] == line["charge"]), None)
        know_every_term(tariff, terms or fail(f"{known['tariff']} has no charge {line['charge']}"))
        rollover = terms.get("allowance", {}).get("rollover", rollover)
        coverage = [(micros(a), micros(b)) for a, b in member["coverage"]]
        if not coverage:
            members.append((Fraction(0), Fraction(0)))
            continue
        share = the_share(line, terms, coverage)
        check(f"billed part of the period of {name}", Fraction(member["share"]), share)
        if place == pool.get("place", 0):
            check_quietly("own allowance among the members", mine[0], own_allowance(terms, share))
            members.append(mine)
            continue
        touches = lambda entry, until, spans: entry.sequence <= until and any(inside(entry, a, b) for a, b in spans)
        of_member = sorted(rows.get(place, []), key=lambda entry: entry.sequence)
        said = known["line"]
        if said is None:
            print(f"--  no line tells of {name}: its ledger entries are taken as they are in the pack")
        else:
            check(f"tariff of {name}, by its line {said['id']}", said["tariff_digest"], hashlib.sha256(text).hexdigest())
            billed = [(micros(a), micros(b)) for a, b in said["coverage"]]
            seen = [entry for entry in of_member if touches(entry, said["watermark"], billed)]
            check(f"{DIGEST} of {name}, by its line", said["digest"], digest_of(terms, said["engine"], seen))
        counted_in = [entry for entry in of_member if touches(entry, member["watermark"], coverage)]
        members.append((own_allowance(terms, share), quantized(terms, metered(line, terms, coverage, counted_in).quantity)))
    return members, rollover


def poured(members, rollover, period, before, top_ups):
    """Buckets as [name, last period, amount, used] in the order in which they are used up: those that expire first; of those that
    expire together what was carried, the period's own, then the top-ups as they came."""
    left = carried_into(before["left"], rollover, period)
    carried_in, fresh = sum((amount for _, amount in left), Fraction(0)), sum((own for own, _ in members), Fraction(0))
    buckets = [["carried", until, amount, Fraction(0)] for until, amount in left]
    buckets.append(["own", period + (rollover.get("expires_cycles", 1) if rollover else 0), fresh, Fraction(0)])
    known = {one["id"]: Fraction(one["amount"]) + Fraction(one.get("elsewhere", "0")) for one in before.get("granted", [])}
    rests = {}
    for name, until, amount, elsewhere in top_ups:
        rests[name] = known.get(name, amount)
        buckets.append([name, until, max(rests[name] - elsewhere, Fraction(0)), Fraction(0)])
    buckets.sort(key=lambda bucket: bucket[1])
    used = served(members, sum((bucket[2] for bucket in buckets), Fraction(0)) - fresh)
    open_ = sum(used, Fraction(0))
    for bucket in buckets:
        bucket[3] = min(open_, bucket[2])
        open_ -= bucket[3]
    on = [(until, amount - taken) for name, until, amount, taken in buckets if name not in rests and rollover and amount != taken]
    granted = [(name, rests[name] - taken) for name, until, _, taken in buckets if name in rests and until > period]
    return used, buckets, carried_in, on, granted


def served(members, rest):
    """A member uses its own first; what is left of everybody's, and `rest`, goes to those that need more, in their order."""
    used = [min(own, quantity) for own, quantity in members]
    rest += sum((own - taken for (own, _), taken in zip(members, used)), Fraction(0))
    for place, (_, quantity) in enumerate(members):
        more = min(quantity - used[place], rest)
        rest, used[place] = rest - more, used[place] + more
    return used


def carried_into(left, rollover, period):
    """What of it has not expired and is within `max`; the earliest to expire is lost first."""
    if not rollover:
        return []
    left = sorted([one["until"], Fraction(one["amount"])] for one in left if one["until"] >= period)
    beyond = max(sum((amount for _, amount in left), Fraction(0)) - Fraction(rollover["max"]), Fraction(0))
    for carried in left:
        lost = min(beyond, carried[1])
        beyond, carried[1] = beyond - lost, carried[1] - lost
    return left


def reaching(carry, pool):
    """What of it the period can go on from: what has not expired, and its top-ups."""
    usable = {grant["id"] for grant in pool.get("grants", [])}
    return {"period": 0, "left": [one for one in carry["left"] if one["until"] >= pool["period"]],
            "granted": [one for one in carry.get("granted", []) if one["id"] in usable]}


def carried_as(carry):
    """What is carried on, as later periods go on from it; nothing is nothing, wherever it comes from."""
    left = [(one["until"], Fraction(one["amount"])) for one in carry["left"]]
    granted = [(one["id"], Fraction(one["amount"]) + Fraction(one.get("elsewhere", "0"))) for one in carry.get("granted", [])]
    return [carry["period"] if left or granted else 0, left, granted]


def shared_out(figures):
    """A member uses its own first; what is left of everybody's, and what was carried here, goes to those that need more, in the
    order of the members. Of what was carried the earliest to expire is lost first beyond `max`, and used first."""
    members = [(Fraction(member["own"]), Fraction(member["quantity"])) for member in figures["members"]]
    rollover, period = figures["rollover"], figures["period"]
    left = carried_into(figures["carried"], rollover, period)
    carried_in = sum((amount for _, amount in left), Fraction(0))
    used = served(members, carried_in)
    open_ = sum(used, Fraction(0))
    for carried in left:
        taken = min(open_, carried[1])
        open_, carried[1] = open_ - taken, carried[1] - taken
    fresh = sum((own for own, _ in members), Fraction(0)) - open_
    left += [[period + rollover.get("expires_cycles", 1), fresh]] if rollover else []
    return used, carried_in, [(until, amount) for until, amount in left if amount]


def tiers_of(charge, beyond, scale, events):
    """The parts of the quantity with their prices: (quantity, unit amount, flat amount)."""
    model = charge.get("model")
    if charge.get("prepaid"):
        return [(beyond, Fraction(0), Fraction(0))]  # Nothing is billed beyond what is there.
    if model is None:
        return []  # Calls: each has been priced by itself.
    if model == "standard":
        return [(beyond, Fraction(charge["unit_amount"]), Fraction(0))]
    if model == "package":
        packages = math.ceil(max(beyond - Fraction(charge.get("free_units", "0")), Fraction(0)) / Fraction(charge["package_size"]))
        return [(Fraction(packages), Fraction(charge["package_amount"]), Fraction(0))]
    if model == "percentage":
        return [(beyond, Fraction(charge["rate"]) / 100, Fraction(charge.get("fixed_amount", "0")) * events)]
    percent = model == "graduated_percentage"
    price = lambda tier: Fraction(tier["rate"]) / 100 if percent else Fraction(tier.get("unit_amount", "0"))
    flat = lambda tier: Fraction(tier.get("flat_amount", "0")) * scale
    tiers, found, below = charge["tiers"], [], Fraction(0)
    if beyond == 0:
        return [(beyond, price(tiers[0]), flat(tiers[0]))] if charge.get("charge_flat_at_zero") else []
    for tier in tiers:
        if model == "volume":
            if "up_to" not in tier or beyond <= Fraction(tier["up_to"]) * scale:
                return [(beyond, price(tier), flat(tier))]
            continue
        if beyond <= below:
            break
        bound = min(Fraction(tier["up_to"]) * scale, beyond) if "up_to" in tier else beyond
        found.append((bound - below, price(tier), flat(tier)))
        below = bound
    return found


def the_discounts(line, basis, tariff, steps, tiers, scale):
    granted = {given["discount"]: Fraction(given["part"]) for given in basis.get("discounts", [])}
    for place, discount in enumerate(tariff.get("discount", []), 1):
        if line["charge"] not in discount.get("applies_to", [line["charge"]]):
            continue
        runs = int(basis["cycle_index"] < discount.get("cycles", math.inf))
        part = granted.get(discount.get("id", f"discount-{place}"), 0) if CONDITIONS & set(discount) else runs
        value, amount = Fraction(discount["value"]), total_of(steps, tiers)
        if part:
            off = amount * part * value / 100 if discount["kind"] == "percent" else min(value * scale * part, amount)
            add(steps, "discount", -off)


def the_limits(charge, steps, tiers, scale):
    for kind, worse in (("maximum", lambda a, b: a > b), ("minimum", lambda a, b: a < b)):
        amount = total_of(steps, tiers)
        if charge["type"] in ("usage", "count") and kind in charge and worse(amount, Fraction(charge[kind]) * scale):
            add(steps, kind, Fraction(charge[kind]) * scale - amount)


def total_of(steps, tiers):
    return sum((amount for _, amount in steps), Fraction(0)) + sum((q * price + flat for q, price, flat in tiers), Fraction(0))


def add(steps, kind, amount):
    """A step of nothing is none."""
    steps += [(kind, amount)] if amount else []


# ---- 8: taxes

def the_taxes(line, basis, tariff, charge):
    """The taxes the account pays on this charge, and all there are on it, in their order. A deposit has none."""
    numbered = [dict(tax, order=tax.get("order", place)) for place, tax in enumerate(tariff.get("tax", []), 1)]
    concerns = lambda tax: charge["type"] != "deposit" and line["charge"] in tax.get("applies_to", [line["charge"]])
    everything = [tax for tax in sorted(numbered, key=lambda tax: tax["order"]) if concerns(tax)]
    exempt = lambda tax: basis["tax_exempt"] or tax["id"] in basis.get("exempt_from", [])
    return [tax for tax in everything if not exempt(tax)], everything


def levy(line, basis, before, rounding, terms, total, mode, digits):
    taxes, shares, factor = terms
    sums = {tax["id"]: tax for tax in basis["taxes"]}
    if rounding.get("tax_level") == "batch":
        # Rounded over all lines of the account's batch, which are not here: the line's own part is compared before that.
        for tax, owed in levied(taxes, shares, factor, total, lambda value: value, digits):
            kept = Fraction(sums[tax]["exact"]) * 10**digits if tax in sums else 0
            check(f"tax {tax} before rounding, in minor units", kept, owed)
        return
    earlier = {tax["id"]: tax["amount_minor"] for tax in before["basis"]["taxes"]} if before else {}
    for tax, owed in levied(taxes, shares, factor, total, lambda value: whole(value, mode), digits):
        check(f"tax {tax}, in minor units", sums[tax]["amount_minor"] if tax in sums else 0, owed)
        on_line = next((shape["amount"] for shape in line["tax"] if shape["id"] == tax), shown(0, digits))
        check(f"tax {tax} of this line", on_line, shown(owed - earlier.get(tax, 0), digits))


def inclusive(taxes):
    """What an amount is divided by to be without its inclusive taxes, and each of them as a part of what is left."""
    factor, shares = Fraction(1), {}
    for tax in (tax for tax in taxes if tax.get("inclusive")):
        shares[tax["id"]] = Fraction(tax["rate"]) / 100 * (factor if tax.get("compound") else 1)
        factor += shares[tax["id"]]
    return factor, shares


def levied(taxes, shares, factor, total, rounded, digits):
    """Each tax of an amount in minor units. Inclusive ones are taken out of it; the others are of what is left."""
    taken = {tax: rounded(Fraction(total) / factor * share) for tax, share in shares.items()}
    net, before = total - sum(taken.values()), 0
    for tax in taxes:
        owed = taken.get(tax["id"])
        if "amount" in tax:
            owed = rounded(Fraction(tax["amount"]) * 10**digits) if net > 0 else 0
        elif owed is None:
            owed = rounded((net + (before if tax.get("compound") else 0)) * Fraction(tax["rate"]) / 100)
        before += owed
        yield tax["id"], owed


# ---- 9: the records of the network

def the_records(line, entries):
    packets, rises, last = read("records.bin"), {}, {}
    records = [json.loads(text) for text in read("records.jsonl").decode().splitlines()]
    for record in records:
        octets = packets[record["offset"]:record["offset"] + record["octets"]]
        if hashlib.sha256(octets).hexdigest() != record["sha256"] or int.from_bytes(octets[2:4], "big") > len(octets):
            fail(f"record {record['record']} is not the packet that was received")
        packet_says_so(record, octets)
    if not line["usage"] or any(entry.called for entry in entries):
        return
    print(f"ok  {len(records)} records are the packets that were received, and say what was read from them")
    for record in sorted(records, key=lambda record: (record["event_us"], record["session_seconds"] or 0)):
        key = (record["nas"], record["session"])
        for place, name in enumerate(("in_octets", "out_octets")):
            if record[name] is not None and record["since_last_report"]:
                rises[(key, place)] = rises.get((key, place), 0) + record[name]
            elif record[name] is not None:
                was = last.get((key, place), 0)
                rise = record[name] - was if record[name] >= was else max(record[name], record[name] + 2**32 - was)
                rises[(key, place)] = rises.get((key, place), 0) + rise
                last[(key, place)] = record[name]
    dropped = (load("explain.json").get("journal") or {}).get("dropped")
    if dropped:
        print(f"--  records of {dropped} are not in the pack: the octets of the sessions are not compared with them")
        return
    used_by = {}
    for entry in entries:
        for place, octets in enumerate((entry.up, entry.down)):
            used_by[(entry.place, place)] = used_by.get((entry.place, place), 0) + octets
    for (session, place), octets in used_by.items():
        if octets > rises.get((session, place), 0):
            fail(f"session {session} has {octets} octets in the ledger, its counters rose by {rises.get((session, place), 0)}")
    print("ok  no session has more octets in the ledger than its counters rose")


def packet_says_so(record, packet):
    """Reads the RADIUS attributes of a packet (RFC 2866 section 5, RFC 2869 section 5.1): session, seconds, octets."""
    found, at = {}, 20
    while at + 2 <= int.from_bytes(packet[2:4], "big"):
        kind, length = packet[at], packet[at + 1]
        found.setdefault(kind, []).append(packet[at + 2:at + length])
        at += max(length, 2)
    number = lambda kind: int.from_bytes(found[kind][0], "big") if len(found.get(kind, [])) == 1 else None
    session = found.get(44, [b""])[0]
    if session and record["session"] not in (session.decode(errors="replace"), "0x" + session.hex()):
        fail(f"record {record['record']} is of session {session!r}, not of {record['session']}")
    if number(46) is not None and record["session_seconds"] is not None and number(46) != record["session_seconds"]:
        fail(f"record {record['record']} reports {number(46)} seconds, not {record['session_seconds']}")
    # Equipment of some vendors counts in attributes of its own (26, 241 to 246).
    if not {26, *range(241, 247)} & set(found) and None not in (number(42), number(43), record["in_octets"], record["out_octets"]):
        told = sorted((number(low) + ((number(high) or 0) << 32)) for low, high in ((42, 52), (43, 53)))
        if told != sorted((record["in_octets"], record["out_octets"])):
            fail(f"record {record['record']} reports {told} octets, not {record['in_octets']} and {record['out_octets']}")


# ---- Numbers and words

def read(name):
    return (FOLDER / name).read_bytes()


def load(name):
    return json.loads(read(name))


def fail(text):
    print("DOES NOT HOLD:", text)
    sys.exit(1)


def check(what, expected, found):
    check_quietly(what, expected, found)
    print(f"ok  {what}: {found}")


def check_quietly(what, expected, found):
    if expected != found:
        fail(f"{what}: the pack says {expected}, {found} was found")


def whole(value, mode):
    """Rounds to a whole number: half_up is half away from zero, up is away from zero, down is toward zero."""
    floor = math.floor(value)
    rest = value - floor
    if rest == 0:
        return floor
    away = floor if value < 0 else floor + 1
    toward = floor + 1 if value < 0 else floor
    if mode in ("up", "down"):
        return away if mode == "up" else toward
    if rest * 2 != 1:
        return floor + (1 if rest * 2 > 1 else 0)
    return away if mode == "half_up" else floor + floor % 2


def in_steps(terms, unit, quantity):
    """A quantity in whole steps of `to`, for example "1 MB", in the charge's unit."""
    number, _, word = terms["to"].partition(" ")
    step = Fraction(number) * UNITS[word.strip()] / UNITS[unit]
    return whole(quantity / step, terms.get("mode", "up")) * step


def unit_of(charge):
    return charge.get("unit", "session")


def decimal(value):
    """As lines write exact numbers: all digits where they end, else the first 20 after the point."""
    value, rest, places = Fraction(value), Fraction(value).denominator, 0
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest, places = rest // (10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5), places + 1
    digits = places if rest == 1 else 20
    scaled = abs(value.numerator) * 10**digits // value.denominator
    return ("-" if value < 0 else "") + (shown(scaled, digits) if digits else str(scaled))


def shown(minor, digits):
    text = str(abs(minor)).rjust(digits + 1, "0")
    return ("-" if minor < 0 else "") + (f"{text[:-digits]}.{text[-digits:]}" if digits else text)


def shape_of(part):
    """A part as the line writes it; what it does not have is not there."""
    shape = {"class": part.class_, "window": part.window, "prefix": part.prefix, "calls": part.calls,
             "quantity_raw": str(part.raw), "quantity": decimal(part.quantity), "weight": decimal(part.weight),
             "unit_amount": None if part.price is None else decimal(part.price), "amount_exact": decimal(part.amount)}
    return {name: value for name, value in shape.items() if value is not None}


def tier_shape(quantity, price, flat):
    return {"quantity": decimal(quantity), "unit_amount": decimal(price), "flat_amount": decimal(flat),
            "amount_exact": decimal(quantity * price + flat)}


def shown_steps(adjustments):
    return [(step["kind"], step["amount_exact"]) for step in adjustments]


def packed(numbers):
    return b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)


def with_length(text):
    return len(text.encode()).to_bytes(8, "big") + text.encode()


try:
    main()
except FileNotFoundError as error:
    fail(f"{error.filename} is not in the pack")
