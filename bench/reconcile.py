#!/usr/bin/env python3
"""What a reconciliation costs: time, CPU and the most memory of one list against as many accounts as are stored, by the
command line and sent to the daemon (`POST /syncs`: until it is planned), and what it does to accounting meanwhile.

usage: bench/reconcile.py [--accounts N] [--rounds R] [--database sqlite|postgres|both] [--rate REPORTS] [--no-build]

Of N accounts 1 % differ: half of those have another plan, a quarter is missing on each side. The stored accounts are copies
of one that came through the API; the list is in another order. Each round is checked: the counts must be exactly these.
Starts every server itself on loopback ports and ends it by its pid.
"""
import argparse, contextlib, json, os, pathlib, random, socket, sqlite3, statistics, subprocess, tempfile, time
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
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "accounting_load"],
                       cwd=ROOT, check=True)
    print(f"{'database':<12}{'way':<10}{'accounts':>10}{'list MB':>9}{'seconds':>9}{'CPU s':>8}{'MB':>7}{'findings':>10}")
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
                sent, alone, meanwhile = send(site, snapshot, wanted, options.rate)
            finally:
                if cluster:
                    cluster.stop()
            for way, row in ("command", [statistics.median(column) for column in zip(*rounds)]), ("sent", sent):
                seconds, cpu, memory, findings = row
                print(f"{name:<12}{way:<10}{options.accounts:>10}{size:>9.0f}{seconds:>9.1f}{cpu:>8.1f}{memory:>7.0f}{findings:>10.0f}")
            for what, told in ("alone", alone), ("while the list is sent and compared", meanwhile):
                print(f"  accounting at {options.rate:,}/s {what}: p50 {told['p50_ms']:.2f} ms, p99 {told['p99_ms']:.2f} ms, "
                      f"{told['acked_per_second']:,.0f}/s answered", flush=True)


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
        self.radius = accounting.free_port(socket.SOCK_DGRAM)
        self.config.write_text(
            f'[database]\nurl = "{url}"\n[secrets]\nkey_file = "{key}"\n[api]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[radius]\naccounting = ["127.0.0.1:{self.radius}"]\n[[radius.nas]]\nname = "bench"\naddress = "127.0.0.0/8"\n'
            f'secret = "{accounting.SECRET}"\nidentity = "nas-identifier"\n[log]\nlevel = "error"\n')
        self.run("migrate")
        self.run("catalog", "apply", str(folder / "catalog.toml"))
        self.key = json.loads(self.run("--json", "key", "create", "--tenant", "bench", "--role", "admin").stdout)["key"]

    def run(self, *arguments, check=True):
        command = [str(TARGET / "release" / "lastmile"), "--config", str(self.config), *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    @contextlib.contextmanager
    def daemon(self):
        with open(self.folder / "log", "a") as log:
            daemon = subprocess.Popen([str(TARGET / "release" / "lastmile"), "--config", str(self.config), "serve"],
                                      stdout=log, stderr=log)
        try:
            accounting.wait_for_http(self.port, 0.1)
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait()

    def ask(self, method, path, body=None, wanted=200):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, f"/v1/tenants/bench/{path}", body, {"Authorization": f"Bearer {self.key}"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != wanted:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)

    def push(self):
        """The account that is copied, and users of another source for accounting."""
        with self.daemon():
            self.ask("PUT", "accounts/1", json.dumps(account(1)), 201)
            for number in range(accounting.SUBSCRIBERS):
                document = account(number)
                document["services"][0]["radius"] = {"username": f"user{number}@bench"}
                self.ask("PUT", f"accounts/{number}?source=users", json.dumps(document), 201)

    def load(self, rate, seconds, seed):
        # Five reports a session.
        return subprocess.Popen(
            [TARGET / "release/examples/accounting_load", "--target", f"127.0.0.1:{self.radius}", "--secret", accounting.SECRET,
             "--rate", str(rate), "--sessions", str(rate * seconds // 5), "--users", str(accounting.SUBSCRIBERS),
             "--user-pattern", "user{}@bench", "--sockets", "4", "--window", "512", "--seed", str(seed)],
            stdout=subprocess.PIPE, text=True)


COPY = """
INSERT INTO account (tenant, source, external_id, revision, source_revision, status, bill_cycle, document, etag, created_at,
                     updated_at)
SELECT tenant, source, {text}, 1, NULL, status, bill_cycle,
       REPLACE(REPLACE(REPLACE(document, 'u1@', 'u' || {text} || '@'), '"1-1"', '"' || {text} || '-1"'),
               'ubscriber 1"', 'ubscriber ' || {text} || '"'),
       etag || {text}, created_at - 86400000000, updated_at - 86400000000
FROM account JOIN numbers ON n > 1 WHERE source = 'default' AND external_id = '1';
UPDATE account SET updated_at = updated_at - 86400000000 WHERE source = 'default' AND external_id = '1';
UPDATE account SET document = REPLACE(REPLACE(document, '1 Main St', external_id || ' Main St'),
    '"csr":"1"', '"csr":"' || (CAST(external_id AS INTEGER) % 97) || '"')
WHERE source = 'default';
DELETE FROM job;
"""


def fill(site, cluster, count):
    site.push()
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
    check(found["report"], wanted)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, len(found["items"])


def check(report, wanted):
    got = {word: report["plan"][word] for word in wanted}
    if got != wanted:
        raise SystemExit(f"expected {wanted}, found {got}")
    if any(invariant["left"] != invariant["right"] for invariant in report["invariants"]):
        raise SystemExit("a sum does not hold")


def send(site, snapshot, wanted, rate):
    """The list sent to the daemon while accounting comes in, which came in alone before."""
    told = lambda process: json.loads(process.communicate()[0].strip().splitlines()[-1])
    with site.daemon() as daemon:
        alone = told(site.load(rate, 10, 1))
        accounted = cpu(daemon)
        meanwhile = site.load(rate, 20, 2)
        time.sleep(1)
        begun = time.perf_counter()
        with open(snapshot, "rb") as file:
            sync = site.ask("POST", "syncs", file, 202)["id"]
        while (found := site.ask("GET", f"syncs/{sync}"))["state"] == "received":
            time.sleep(0.2)
        seconds = time.perf_counter() - begun
        check(found["report"], wanted)
        told_meanwhile = told(meanwhile)
        status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
        most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
        sums = found["report"]
        findings = sum(sums[of][word] for of in ("subscribers", "services") for word in ("mismatch", "missing_here", "missing_there"))
        return (seconds, cpu(daemon) - accounted, most, findings), alone, told_meanwhile


def cpu(process):
    return accounting.cpu_of([process.pid])


main()
