#!/usr/bin/env python3
"""What a reconciliation costs: time, CPU and the most memory of one list against as many accounts as are stored.

usage: bench/reconcile.py [--accounts N] [--rounds R] [--database sqlite|postgres|both] [--no-build]

Of N accounts 1 % differ: half of those have another plan, a quarter is missing on each side. The stored accounts are copies
of one that came through the API; the list is in another order. Each round is checked: the counts must be exactly these.
Starts every server itself on loopback ports and ends it by its pid.
"""
import argparse, json, os, pathlib, random, socket, sqlite3, statistics, subprocess, tempfile, time
import http.client

import accounting
from accounting import ROOT, TARGET

CATALOG = (ROOT / "bench" / "catalog.toml").read_text() + """
[[plan]]
id = "res-300"
service = "internet"
tariff = "res-100"
radius = { group = "res-300" }
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile"], cwd=ROOT, check=True)
    print(f"{'database':<12}{'accounts':>10}{'list MB':>9}{'seconds':>9}{'CPU s':>8}{'MB':>7}{'findings':>10}")
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        snapshot = folder / "list.jsonl"
        wanted = write_list(snapshot, options.accounts)
        size = snapshot.stat().st_size / 1e6
        for name in ["sqlite", "postgres"] if options.database == "both" else [options.database]:
            cluster = accounting.Postgres(folder / "pg") if name == "postgres" else None
            try:
                url = cluster.database() if cluster else f"sqlite://{folder}/lastmile.db"
                site = Site(folder, url)
                fill(site, cluster, options.accounts)
                rounds = [measure(site, snapshot, wanted) for _ in range(options.rounds)]
            finally:
                if cluster:
                    cluster.stop()
            seconds, cpu, memory, findings = (statistics.median(column) for column in zip(*rounds))
            print(f"{name:<12}{options.accounts:>10}{size:>9.0f}{seconds:>9.1f}{cpu:>8.1f}{memory:>7.0f}{findings:>10.0f}")


def account(number):
    radius = {"username": f"u{number}@bench"}
    service = {"id": f"{number}-1", "type": "internet", "plan": "res-100", "radius": radius}
    address = {"line1": f"{number} Main St", "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"}
    return {"status": "active", "bill_cycle": "c15", "name": f"Subscriber {number}", "email": f"u{number}@example.net",
            "billing_address": address, "services": [service], "tags": {"csr": str(number % 97)}}


def write_list(path, count):
    """The list; gives what a reconciliation must find."""
    every = 400
    numbers = list(range(1, count + 1))
    random.Random(1).shuffle(numbers)
    told = changed = missing = 0
    with open(path, "w") as file:
        for number in numbers:
            if number % every == 3:
                missing += 1
                continue
            document = {"id": str(number), **account(number)}
            if number % every in (1, 2):
                document["services"][0]["plan"] = "res-300"
                changed += 1
            told += 1
            file.write(json.dumps(document) + "\n")
        for number in range(count + 1, count + 1 + count // every):
            file.write(json.dumps({"id": str(number), **account(number)}) + "\n")
            told += 1
        file.write(json.dumps({"trailer": {"records": told}}) + "\n")
    return {"updates": changed, "creates": count // every, "deletes": missing}


class Site:
    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.config = folder / "lastmile.toml"
        self.port = accounting.free_port(socket.SOCK_STREAM)
        key = folder / "key"
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
        (folder / "catalog.toml").write_text(CATALOG)
        self.config.write_text(
            f'[database]\nurl = "{url}"\n[secrets]\nkey_file = "{key}"\n[api]\nlisten = "127.0.0.1:{self.port}"\n')
        self.run("migrate")
        self.run("catalog", "apply", str(folder / "catalog.toml"))

    def run(self, *arguments, check=True):
        command = [str(TARGET / "release" / "lastmile"), "--config", str(self.config), *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def push(self, number):
        key = json.loads(self.run("--json", "key", "create", "--tenant", "bench", "--role", "admin").stdout)["key"]
        with open(self.folder / "log", "a") as log:
            daemon = subprocess.Popen([str(TARGET / "release" / "lastmile"), "--config", str(self.config), "serve"],
                                      stdout=log, stderr=log)
        try:
            for _ in range(300):
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port)
                    connection.request("PUT", f"/v1/tenants/bench/accounts/{number}", json.dumps(account(number)),
                                       {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == 201:
                        return
                except OSError:
                    pass
                time.sleep(0.1)
            raise SystemExit("the daemon did not take the account")
        finally:
            daemon.terminate()
            daemon.wait()


COPY = """
INSERT INTO account (tenant, source, external_id, revision, source_revision, status, bill_cycle, document, etag, created_at,
                     updated_at)
SELECT tenant, source, {text}, 1, NULL, status, bill_cycle,
       REPLACE(REPLACE(REPLACE(document, 'u1@', 'u' || {text} || '@'), '"1-1"', '"' || {text} || '-1"'),
               'ubscriber 1"', 'ubscriber ' || {text} || '"'),
       etag || {text}, created_at - 86400000000, updated_at - 86400000000
FROM account JOIN numbers ON n > 1 WHERE external_id = '1';
UPDATE account SET updated_at = updated_at - 86400000000 WHERE external_id = '1';
UPDATE account SET document = REPLACE(REPLACE(document, '1 Main St', external_id || ' Main St'),
    '"csr":"1"', '"csr":"' || (CAST(external_id AS INTEGER) % 97) || '"');
DELETE FROM job;
"""


def fill(site, cluster, count):
    site.push(1)
    if cluster:
        script = f"CREATE TEMP TABLE numbers AS SELECT generate_series(1, {count}) AS n;" + COPY.format(text="CAST(n AS TEXT)")
        cluster.sql(site.url.split("/")[3].split("?")[0], "-c", script + "ANALYZE account;")
        return
    database = sqlite3.connect(site.url.removeprefix("sqlite://"))
    database.execute("CREATE TEMP TABLE numbers AS WITH RECURSIVE count (n) AS"
                     f" (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {count}) SELECT n FROM count")
    database.executescript("BEGIN;" + COPY.format(text="CAST(n AS TEXT)") + "COMMIT; PRAGMA wal_checkpoint(TRUNCATE);")
    database.close()


def measure(site, snapshot, wanted):
    command = [str(TARGET / "release" / "lastmile"), "--config", str(site.config), "--json", "reconcile", "--tenant", "bench",
               "--grace", "0", str(snapshot)]
    out = site.folder / "report.json"
    begun = time.perf_counter()
    with open(out, "w") as file:
        child = subprocess.Popen(command, stdout=file)
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) != 3:
        raise SystemExit(f"reconcile ended with {status}")
    found = json.loads(out.read_text())
    plan = found["report"]["plan"]
    got = {word: plan[word] for word in wanted}
    if got != wanted:
        raise SystemExit(f"expected {wanted}, found {got}")
    if any(invariant["left"] != invariant["right"] for invariant in found["report"]["invariants"]):
        raise SystemExit("a sum does not hold")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, len(found["items"])


main()
