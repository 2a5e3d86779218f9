#!/usr/bin/env python3
"""Verifies a dispute pack without the program that made it: python3 verify.py [FOLDER]. Needs Python 3.11 or later.

What is checked, in this order; the first thing that does not hold ends the program with exit code 1:

1. manifest.sha256: every file has the SHA-256 it had when the pack was made.
2. The tariff: SHA-256 of tariff.toml is the digest that the line names.
3. The ledger: each entry of ledger.csv that touches the billed time has a SHA-256, over seven 64-bit big-endian integers
   (sequence, from_us, until_us, in_octets, out_octets, seconds, sessions); it is cut into eight 32-bit big-endian numbers,
   which are added up over all entries, one by one. SHA-256 over the number of entries and the eight sums, 64-bit big-endian
   each, is the digest that the line names. (Lines with basis.engine 1: one SHA-256 over the integers of all entries, in the
   order of their sequence.) Instants are microseconds since 1970-01-01T00:00:00Z.
4. The quantity: an entry counts with the part of its time [from, until) that lies in the billed time [a, b):
   floor(octets * (min(b, until) - from) / (until - from)) - floor(octets * (max(a, from) - from) / (until - from)).
5. The amount, in exact fractions: quantity / unit -> quantized -> less the allowance -> whole blocks -> tiers, packages or
   percent -> discounts -> maximum -> minimum; a recurring amount is amount * times * share. Rounded once. The line's amount
   is this, less what earlier lines of the same item have charged (before.json).
6. Taxes of the rounded amount, each rounded, less those of the earlier lines.
7. The records: records.bin holds every RADIUS packet as it was received; records.jsonl tells where it stands, its SHA-256
   and the counters that were read from it. The octets of a session in the ledger are not more than its counters rose.

Exit code 2: the tariff has terms that this program does not compute; nothing is said of the amount then.
"""
import csv, hashlib, json, math, pathlib, sys, tomllib
from datetime import datetime, timezone
from fractions import Fraction

FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
UNITS = {"octet": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
         "TiB": 2**40, "s": 1, "min": 60, "h": 3600, "session": 1}
KNOWN = {"id", "type", "amount", "timing", "proration", "refund_on_end", "meter", "direction", "unit", "quantize", "allowance",
         "model", "tiers", "unit_amount", "package_size", "package_amount", "free_units", "rate", "fixed_amount", "block",
         "charge_flat_at_zero", "minimum", "maximum", "tax_category", "jurisdiction", "per", "during_hold"}
CONDITIONS = {"promo", "requires", "trial_days"}


def fail(text):
    print("DOES NOT HOLD:", text)
    sys.exit(1)


def check(what, expected, found):
    if expected != found:
        fail(f"{what}: {expected} was expected, {found} was found")
    print(f"ok  {what}: {found}")


def micros(text):
    head, _, tail = text.rstrip("Z").partition(".")
    at = datetime.fromisoformat(head).replace(tzinfo=timezone.utc)
    return int(at.timestamp()) * 10**6 + int((tail + "000000")[:6])


def whole(value, mode):
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


def step_of(term, unit):
    """The step of quantize (`to = "1 MB"`) or block (`size = "10"`) in the charge's unit, and its rounding."""
    if "size" in term:
        return Fraction(term["size"]), term.get("mode", "up")
    number = term["to"].rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    return Fraction(number) * UNITS[term["to"][len(number):].strip()] / UNITS[unit], term.get("mode", "up")


def tiers_of(charge, beyond, scale):
    tiers, percent = charge["tiers"], charge["model"] == "graduated_percentage"
    price = lambda tier: Fraction(tier["rate"]) / 100 if percent else Fraction(tier.get("unit_amount", "0"))
    flat = lambda tier: Fraction(tier.get("flat_amount", "0")) * scale
    if beyond == 0:
        return flat(tiers[0]) if charge.get("charge_flat_at_zero") else Fraction(0)
    if charge["model"] == "volume":
        for tier in tiers:
            if "up_to" not in tier or beyond <= Fraction(tier["up_to"]) * scale:
                return beyond * price(tier) + flat(tier)
    amount, below = Fraction(0), Fraction(0)
    for tier in tiers:
        if beyond <= below:
            break
        bound = min(Fraction(tier["up_to"]) * scale, beyond) if "up_to" in tier else beyond
        amount += (bound - below) * price(tier) + flat(tier)
        below = bound
    return amount


def used(charge, quantity, events, share):
    unit, model = charge["unit"], charge.get("model", "standard")
    if "quantize" in charge:
        step, mode = step_of(charge["quantize"], unit)
        quantity = whole(quantity / step, mode) * step
    allowance = charge.get("allowance", {})
    included = Fraction(allowance.get("amount", "0")) * (share if allowance.get("prorate") else 1)
    beyond = quantity - min(included, quantity)
    if "block" in charge:
        step, mode = step_of(charge["block"], unit)
        beyond = whole(beyond / step, mode) * step
    scale = share if charge.get("proration") in ("tiers", "tiers_and_allowance") else Fraction(1)
    if model == "standard":
        return beyond * Fraction(charge["unit_amount"]), scale
    if model == "package":
        size, free = Fraction(charge["package_size"]), Fraction(charge.get("free_units", "0"))
        return math.ceil(max(beyond - free, Fraction(0)) / size) * Fraction(charge["package_amount"]), scale
    if model == "percentage":
        return beyond * Fraction(charge["rate"]) / 100 + Fraction(charge.get("fixed_amount", "0")) * events, scale
    return tiers_of(charge, beyond, scale), scale


def main():
    read = lambda name: (FOLDER / name).read_bytes()
    for entry in read("manifest.sha256").decode().splitlines():
        digest, name = entry.split("  ", 1)
        if hashlib.sha256(read(name)).hexdigest() != digest:
            fail(f"{name} is not the file that the pack was made with")
    print("ok  every file is as the pack was made")
    stored, before = json.loads(read("line.json")), json.loads(read("before.json"))
    line, basis = stored["line"], stored["basis"]
    check("digest of the tariff", line["tariff"]["digest"], hashlib.sha256(read("tariff.toml")).hexdigest())
    if basis.get("posted") or line.get("count"):
        print("this program does not compute charges that were posted by hand, nor counts of another tenant's subscribers")
        sys.exit(2)
    tariff = tomllib.loads(read("tariff.toml").decode())
    charge = next((charge for charge in tariff["charge"] if charge["id"] == line["charge"]), None)
    share, coverage = Fraction(basis["share"]), [(micros(a), micros(b)) for a, b in basis["coverage"]]
    own = next((Fraction(step["amount_exact"]) / max(basis["times"], 1)
                for step in line["adjustments"] if step["kind"] == "price"), None)

    sums, events, rows = [0, 0, 0], 0, []
    if line["usage"]:
        digest, lanes, counted = hashlib.sha256(), [0] * 8, 0
        rows = sorted(csv.DictReader(read("ledger.csv").decode().splitlines()), key=lambda row: int(row["sequence"]))
        for row in rows:
            start, end = int(row["from_us"]), int(row["until_us"])
            counts, inside = [int(row[name]) for name in ("in_octets", "out_octets", "seconds")], False
            for a, b in coverage:
                lo, hi = (start, end) if start >= end else (max(a, start), min(b, end))
                if not (a <= start < b if start >= end else lo < hi):
                    continue
                inside = True
                part = lambda n: n if start >= end else cut(n, hi - start, end - start) - cut(n, lo - start, end - start)
                sums = [sum_ + part(n) for sum_, n in zip(sums, counts)]
                if a <= start < b:
                    events += int(row["sessions"])
            if inside:
                counted += 1
                names = ("sequence", "from_us", "until_us", "in_octets", "out_octets", "seconds", "sessions")
                octets = b"".join(int(row[name]).to_bytes(8, "big", signed=True) for name in names)
                digest.update(octets)
                entry = hashlib.sha256(octets).digest()
                lanes = [lane + int.from_bytes(entry[at:at + 4], "big") for lane, at in zip(lanes, range(0, 32, 4))]
        check("ledger entries", line["usage"]["records"], counted)
        summed = hashlib.sha256(b"".join(number.to_bytes(8, "big") for number in (counted, *lanes)))
        found = digest if basis.get("engine", 1) == 1 else summed
        check("digest of the ledger entries", line["usage"]["digest"], found.hexdigest())

    if charge is None or set(charge) - KNOWN or charge.get("quantize", {}).get("level", "cycle") != "cycle" or "pool" in charge.get("allowance", {}) or "rollover" in charge.get("allowance", {}):
        print("this program does not compute the terms of this charge")
        sys.exit(2)
    if charge["type"] == "usage":
        up, down, seconds = sums
        meter, direction = charge["meter"], charge.get("direction", "sum")
        raw = {"seconds": seconds, "sessions": events}.get(meter)
        if raw is None:
            raw = {"up": up, "down": down, "sum": up + down, "max": max(up, down)}[direction]
        check("counted", basis["quantity_raw"], raw)
        amount, scale = used(charge, Fraction(raw, UNITS[charge["unit"]]), events, share)
    else:
        each = Fraction(charge["amount"]) if own is None else own
        scale = share if charge["type"] == "recurring" else Fraction(1)
        amount = each * basis["times"] * scale * (-1 if charge["type"] == "deposit" and basis["quantity_raw"] < 0 else 1)
    granted = {given["discount"]: Fraction(given["part"]) for given in basis.get("discounts", [])}
    for place, discount in enumerate(tariff.get("discount", []), 1):
        runs = basis["cycle_index"] < discount.get("cycles", math.inf)
        part = granted.get(discount.get("id", f"discount-{place}"), 0) if CONDITIONS & set(discount) else int(runs)
        if part and line["charge"] in discount.get("applies_to", [line["charge"]]):
            value = Fraction(discount["value"])
            amount -= amount * part * value / 100 if discount["kind"] == "percent" else min(value * scale * part, amount)
    if charge["type"] == "usage":
        amount = min(amount, Fraction(charge["maximum"]) * scale) if "maximum" in charge else amount
        amount = max(amount, Fraction(charge["minimum"]) * scale) if "minimum" in charge else amount
    if not coverage:
        amount = Fraction(0)
    numbered = [dict(tax, order=tax.get("order", place)) for place, tax in enumerate(tariff.get("tax", []), 1)]
    concerns = lambda tax: charge["type"] != "deposit" and line["charge"] in tax.get("applies_to", [line["charge"]])
    everything = [tax for tax in sorted(numbered, key=lambda tax: tax["order"]) if concerns(tax)]
    exempt = lambda tax: basis["tax_exempt"] or tax["id"] in basis.get("exempt_from", [])
    taxes = [tax for tax in everything if not exempt(tax)]
    (factor, shares), (full, _) = inclusive(taxes), inclusive(everything)
    amount = amount / full * factor
    check("exact amount", Fraction(basis["amount_exact"]), amount)
    digits = len(line["amount"].partition(".")[2])
    rounding = tariff.get("rounding", {})
    places, mode = min(rounding.get("line_dp", digits), digits), rounding.get("line", "half_up")
    minor = lambda value: whole(value * 10**places, mode) * 10 ** (digits - places)
    total = minor(amount)
    check("amount so far, in minor units", basis["amount_minor"], total)
    earlier = before["basis"]["amount_minor"] if before else 0
    check("amount of this line", line["amount"], shown(total - earlier, digits))
    if rounding.get("tax_level") == "batch":
        # Rounded over all lines of the account's batch, which are not here: the line's own part is compared before that.
        kept = {tax["id"]: Fraction(tax["exact"]) * 10**digits for tax in basis["taxes"]}
        for tax, owed in levied(taxes, shares, factor, total, lambda value: value, digits):
            check(f"tax {tax} before rounding, in minor units", kept.get(tax, 0), owed)
    else:
        kept = {tax["id"]: tax["amount_minor"] for tax in basis["taxes"] if tax["amount_minor"] or tax["base_minor"]}
        for tax, owed in levied(taxes, shares, factor, total, lambda value: whole(value, mode), digits):
            check(f"tax {tax}, in minor units", kept.get(tax, 0), owed)

    packets, rises, last = read("records.bin"), {}, {}
    records = [json.loads(text) for text in read("records.jsonl").decode().splitlines()]
    for record in records:
        octets = packets[record["offset"]:record["offset"] + record["octets"]]
        if hashlib.sha256(octets).hexdigest() != record["sha256"] or int.from_bytes(octets[2:4], "big") > len(octets):
            fail(f"record {record['record']} is not the packet that was received")
    print(f"ok  {len(records)} records are the packets that were received")
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
    used_by = {}
    for row in rows:
        for place, name in enumerate(("in_octets", "out_octets")):
            key = ((row["nas"], row["session"]), place)
            used_by[key] = used_by.get(key, 0) + int(row[name])
    dropped = (json.loads(read("explain.json")).get("journal") or {}).get("dropped")
    if dropped:
        print(f"records of {dropped} are not in the pack: the octets of the sessions are not compared with them")
    for key, octets in used_by.items():
        if records and not dropped and octets > rises.get(key, 0):
            fail(f"session {key[0]} has {octets} octets in the ledger, its counters rose by {rises.get(key, 0)}")
    if not dropped:
        print("ok  no session has more octets in the ledger than its counters rose")
    print(f"The line of {line['amount']} {line['currency']} holds.")


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


def cut(number, part, length):
    """Toward zero, as the ledger is cut."""
    product = abs(number) * part // length
    return product if number >= 0 else -product


def shown(minor, digits):
    text = str(abs(minor)).rjust(digits + 1, "0")
    return ("-" if minor < 0 else "") + (f"{text[:-digits]}.{text[-digits:]}" if digits else text)


main()
