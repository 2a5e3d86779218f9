#!/usr/bin/env python3
"""Closing periods: seconds and memory for growing numbers of accounts, rating anew from ledger entries, balance queries.

usage: bench/billing.py [--sizes 10000,100000] [--entries 100,720] [--databases sqlite,postgres] [--rate 1000]
       [--months 13] [--program FILE]

Builds the release binary, pushes one account over HTTP and multiplies its rows in the database; every account has an
advance charge and usage in four graduated tiers, whose period totals are there as the fold keeps them. `first` closes a
period for accounts that were never billed (3 lines each), `next` the one after it (2 lines each), `again` finds nothing.
CPU counts the run itself, not PostgreSQL. With --rate N accounting of 200 further subscribers comes in at N records a second,
answered by the daemon on the same database, for some seconds alone and then while a third period is closed (`beside`). With
--months N as many periods are closed one after the other, so that what was billed before grows.
"""
import argparse, datetime, json, os, pathlib, statistics, subprocess, tempfile, time
import http.client

import accounting
from accounting import ROOT, TARGET

CATALOG = """
[tenant]
id = "bench"
currency = "USD"
timezone = "UTC"
[[bill_cycle]]
id = "c1"
anchor_day = 1
every = "month"
[[bill_cycle]]
id = "c2"
anchor_day = 15
every = "month"
[[plan]]
id = "res"
service = "internet"
tariff = "res"
[[tariff]]
id = "res"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "49.95"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "graduated"
tiers = [{ up_to = "50", unit_amount = "0" }, { up_to = "200", unit_amount = "0.05" }, { up_to = "500", unit_amount = "0.03" }, { unit_amount = "0.02" }]
[[tariff.tax]]
id = "sales"
rate = "8.25"
"""
RUN = ("bill", "run", "--tenant", "bench", "--cycle", "c1")
SUBSCRIBERS = 200
# Of more accounts one period is closed: a line takes two kilobytes of disk.
MOST_TWICE = 200_000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--entries", default="100,720")
    parser.add_argument("--rerated", type=int, default=2000)
    parser.add_argument("--months", type=int, default=0)
    parser.add_argument("--monthly", type=int, default=2000)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--program", type=pathlib.Path)
    options = parser.parse_args()
    if not options.program:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "accounting_load"], cwd=ROOT, check=True)
    program = options.program or TARGET / "release/lastmile"
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        cluster = accounting.Postgres(folder / "pg") if "postgres" in options.databases else None
        try:
            for name in options.databases.split(","):
                counts = [int(count) for count in options.entries.split(",") if count]
                sizes, told = [int(size) for size in options.sizes.split(",") if size], []
                if sizes:
                    print(f"\nclosing, {name}\n\n| accounts | run | lines | seconds | accounts/s | CPU s | peak MB |\n|" + "---|" * 7, flush=True)
                for size in sizes:
                    site = Site(folder / f"{name}{size}", name, cluster, program)
                    site.fill(size, 0)
                    def show(what, row):
                        print(f"| {size:,} | {what} | {row['lines']:,} | {row['seconds']:.1f} | {size / row['seconds']:,.0f} | {row['cpu']:.1f} | {row['mb']:.0f} |", flush=True)
                    more = (("next", site.before), ("again", site.before)) if size <= MOST_TWICE else ()
                    for what, period in (("first", site.eldest), *more):
                        show(what, site.timed(*RUN, "--period", period))
                    if options.rate and more:
                        alone, beside, row = site.beside(options.rate, options.seconds)
                        show("beside", row)
                        told.append(f"accounting at {options.rate:,}/s, {name}, {size:,} accounts, p50 and p99 ms: alone {alone['p50_ms']:.2f} and {alone['p99_ms']:.2f}, "
                                    f"while the period is closed {beside['p50_ms']:.2f} and {beside['p99_ms']:.2f}; {beside['acked_per_second']:,.0f}/s answered")
                    site.drop()
                print("".join(f"\n{line}\n" for line in told))
                if options.months:
                    print(f"\nmonth after month, {options.monthly} accounts, {name}\n\n| periods closed before | lines | seconds | CPU us/account |\n|" + "---|" * 4, flush=True)
                    site = Site(folder / f"{name}m", name, cluster, program, options.months)
                    site.fill(options.monthly, 0)
                    for number, period in enumerate(site.periods):
                        row = site.timed(*RUN, "--period", period)
                        print(f"| {number} | {row['lines']:,} | {row['seconds']:.2f} | {row['cpu'] * 1e6 / options.monthly:.0f} |", flush=True)
                    site.drop()
                if counts:
                    print(f"\nrating anew from the ledger, {options.rerated} accounts, {name}\n\n| entries/account | seconds | ms/account | entries/s |\n|" + "---|" * 4, flush=True)
                for entries in counts:
                    site = Site(folder / f"{name}e{entries}", name, cluster, program)
                    site.fill(options.rerated, entries)
                    for period in (site.eldest, site.before, site.last):
                        site.timed(*RUN, "--period", period)
                    row = site.timed("bill", "rerate", "--tenant", "bench", "--cycle", "c1", "--period", site.last)
                    print(f"| {entries} | {row['seconds']:.2f} | {row['seconds'] * 1000 / options.rerated:.2f} | {entries * options.rerated / row['seconds']:,.0f} |", flush=True)
                    if entries == max(counts):
                        show_balances(site, options, f"{site.running} entries in the running period, each of them read")
                    site.drop()
                if counts:
                    site = Site(folder / f"{name}s", name, cluster, program)
                    site.fill(options.rerated, 0)
                    for period in (site.eldest, site.before, site.last):
                        site.timed(*RUN, "--period", period)
                    show_balances(site, options, "its period's sums, as the fold keeps them")
                    site.drop()
        finally:
            if cluster:
                cluster.stop()


def show_balances(site, options, what):
    alone, beside = site.balances(options.rate, options.seconds)
    print("\nbalance of an account with {}: p50 {:.1f} ms, p99 {:.1f} ms".format(what, *alone), flush=True)
    if beside:
        print("beside accounting at {:,}/s: p50 {:.1f} ms, p99 {:.1f} ms".format(options.rate, *beside), flush=True)


class Site:
    def __init__(self, folder, name, cluster, program, months=3):
        folder.mkdir(mode=0o755)
        self.size = 0
        self.folder, self.cluster, self.program = folder, cluster if name == "postgres" else None, program
        self.url = self.cluster.database() if self.cluster else f"sqlite://{folder}/lastmile.db"
        (folder / "catalog.toml").write_text(CATALOG)
        self.today = datetime.datetime.now(datetime.timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        first = self.today.date()
        last = (first - datetime.timedelta(days=1)).replace(day=1)
        days = [last]
        while len(days) < months:
            days.insert(0, (days[0] - datetime.timedelta(days=1)).replace(day=1))
        self.starts = [int(datetime.datetime(day.year, day.month, 1, tzinfo=datetime.timezone.utc).timestamp()) * 1_000_000 for day in days]
        self.periods = [day.strftime("%Y-%m") for day in days]
        self.eldest, self.before, self.last = self.periods[0], self.periods[1], self.periods[-1]
        accounting.SECRET, self.http = "testing123", accounting.free_port(accounting.socket.SOCK_STREAM)
        self.config = folder / "lastmile.toml"
        (folder / "key").write_text("0123456789abcdef" * 4)
        os.chmod(folder / "key", 0o600)
        self.radius = accounting.free_port(accounting.socket.SOCK_DGRAM)
        self.config.write_text(f'[database]\nurl = "{self.url}"\n[secrets]\nkey_file = "{folder}/key"\n[api]\nlisten = "127.0.0.1:{self.http}"\n[log]\nlevel = "error"\n'
                               f'[radius]\naccounting = ["127.0.0.1:{self.radius}"]\n[[radius.nas]]\nname = "bench"\naddress = "127.0.0.0/8"\nsecret = "testing123"\n'
                               'identity = "nas-identifier"\n')
        self.run("migrate")
        self.run("catalog", "apply", folder / "catalog.toml")
        made = self.run("--json", "key", "create", "--tenant", "bench", "--role", "admin")
        self.key = json.loads(made)["key"]
        with self.daemon():
            document = {"status": "active", "bill_cycle": "c1",
                        "services": [{"id": "s1", "type": "internet", "plan": "res", "billing_from": f"{self.eldest}-01",
                                      "radius": {"username": "model@bench", "password": "a-password"}}]}
            self.push("model", document)
            for number in range(SUBSCRIBERS):
                document["bill_cycle"], document["services"][0]["radius"]["username"] = "c2", f"user{number}@bench"
                self.push(f"sub{number}", document)

    def push(self, account, document):
        status, body = self.ask("PUT", f"/v1/tenants/bench/accounts/{account}", document)
        assert status == 201, body

    def beside(self, rate, seconds):
        """Closes the last period while accounting comes in, which came in alone before."""
        told = lambda process: json.loads(process.communicate()[0].strip().splitlines()[-1])
        with self.daemon():
            alone = told(self.load(rate, seconds, 1))
            meanwhile = self.load(rate, seconds, 2)
            time.sleep(1)
            row = self.timed(*RUN, "--period", self.last)
            beside = told(meanwhile)
        return alone, beside, row

    def load(self, rate, seconds, seed):
        # Five reports a session.
        return subprocess.Popen(
            [TARGET / "release/examples/accounting_load", "--target", f"127.0.0.1:{self.radius}", "--secret", "testing123", "--rate", str(rate),
             "--sessions", str(rate * seconds // 5), "--users", str(SUBSCRIBERS), "--user-pattern", "user{}@bench", "--sockets", "4", "--window", "512", "--seed", str(seed)],
            stdout=subprocess.PIPE, text=True)

    def run(self, *arguments):
        done = subprocess.run([self.program, "--config", self.config, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.stdout[-500:], done.stderr[-2000:])
        return done.stdout

    def timed(self, *arguments):
        began = time.monotonic()
        process = subprocess.Popen([self.program, "--config", self.config, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, (arguments, output[-500:])
        told = [line for line in output.splitlines() if " lines for " in line][-1]
        lines = int(told.split(": ")[1].split()[0])
        return {"seconds": time.monotonic() - began, "cpu": usage.ru_utime + usage.ru_stime, "mb": usage.ru_maxrss / 1024, "lines": lines}

    def sql(self, text):
        if self.cluster:
            name = self.url.split("/")[3].split("?")[0]
            self.cluster.sql(name, "-c", text)
        else:
            subprocess.run(["sqlite3", self.folder / "lastmile.db", text], check=True)

    def fill(self, size, entries):
        """Multiplies the model account: its services, their history, and each period's usage."""
        series = (f"(SELECT value AS n FROM generate_series(1, {size}) AS value)" if self.cluster else
                  f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {size}) SELECT n FROM s)")
        base, self.size = 1_000_000, size
        self.sql(f"""INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag, created_at, updated_at)
            SELECT {base} + n, tenant, source, 'b' || n, revision, status, bill_cycle, document, etag, created_at, updated_at
            FROM account CROSS JOIN {series} AS series WHERE external_id = 'model' ORDER BY n""")
        self.sql(f"""INSERT INTO service (id, account_id, external_id, type, plan, created_at, updated_at)
            SELECT {base} + n, {base} + n, external_id, type, plan, created_at, updated_at
            FROM service CROSS JOIN {series} AS series WHERE service.account_id = (SELECT id FROM account WHERE external_id = 'model') ORDER BY n""")
        self.sql(f"""INSERT INTO service_history (id, service_id, account_id, from_at, detail)
            SELECT {base} + n, {base} + n, {base} + n, from_at, detail
            FROM service_history CROSS JOIN {series} AS series WHERE service_history.account_id = (SELECT id FROM account WHERE external_id = 'model') ORDER BY n""")
        whole = "TRUE" if entries == 0 else "FALSE"
        running = [] if entries else [int(self.today.timestamp()) * 1_000_000]
        for number, start in enumerate(self.starts + running):
            if entries:
                each = (f"(SELECT value AS e FROM generate_series(1, {entries}) AS value)" if self.cluster else
                        f"(WITH RECURSIVE s(e) AS (SELECT 1 UNION ALL SELECT e + 1 FROM s WHERE e < {entries}) SELECT e FROM s)")
                hour = 3_600_000_000
                self.sql(f"""INSERT INTO ledger (account_id, sequence, service_id, session_id, from_at, until_at, in_octets, out_octets, seconds, sessions, cause, recorded_at) SELECT {base} + n, {number * entries} + e, {base} + n, {base} + n, {start} + e * CAST({hour} AS BIGINT),
                    {start} + (e + 1) * CAST({hour} AS BIGINT), 1000003 * CAST(n % 997 AS BIGINT), 100000007 * CAST(n % 991 AS BIGINT), 3600, 0, 'usage', {start}
                    FROM {series} AS series CROSS JOIN {each} AS entries ORDER BY n, e""")
            self.sql(f"""INSERT INTO ledger_total (service_id, period_start_at, whole, last_sequence, records, in_octets, out_octets, seconds, sessions, f0, f1, f2, f3, f4, f5, f6, f7) SELECT {base} + n, {start}, {whole}, {number + 1} * 720, 720, 1000003 * CAST(n % 99991 AS BIGINT),
                100000007 * CAST(n % 9973 AS BIGINT), 2592000, 3, n, n, n, n, n, n, n, n FROM {series} AS series ORDER BY n""")
        if entries:
            # What the running period holds so far.
            hour, start = 3_600_000_000, int(self.today.timestamp()) * 1_000_000
            self.running = max(1, int((datetime.datetime.now(datetime.timezone.utc) - self.today).total_seconds() // 3600))
            each = (f"(SELECT value AS e FROM generate_series(1, {self.running}) AS value)" if self.cluster else
                    f"(WITH RECURSIVE s(e) AS (SELECT 1 UNION ALL SELECT e + 1 FROM s WHERE e < {self.running}) SELECT e FROM s)")
            self.sql(f"""INSERT INTO ledger (account_id, sequence, service_id, session_id, from_at, until_at, in_octets, out_octets, seconds, sessions, cause, recorded_at) SELECT {base} + n, {len(self.starts) * entries} + e, {base} + n, {base} + n, {start} + (e - 1) * CAST({hour} AS BIGINT),
                {start} + e * CAST({hour} AS BIGINT), 1000003 * CAST(n % 997 AS BIGINT), 100000007 * CAST(n % 991 AS BIGINT), 3600, 0, 'usage', {start}
                FROM {series} AS series CROSS JOIN {each} AS entries ORDER BY n, e""")
        if self.cluster:
            self.sql("ANALYZE")

    def balances(self, rate, seconds):
        """Of 1,000 queries, alone and beside accounting."""
        def asked():
            times = []
            connection = http.client.HTTPConnection("127.0.0.1", self.http)
            for number in range(1000):
                began = time.monotonic()
                status, body = self.ask("GET", f"/v1/tenants/bench/accounts/b{number % self.size + 1}/balance", None, connection)
                assert status == 200, body
                times.append((time.monotonic() - began) * 1000)
            times.sort()
            return statistics.median(times), times[int(len(times) * 0.99)]
        with self.daemon():
            alone = asked()
            if not rate:
                return alone, None
            meanwhile = self.load(rate, seconds, 3)
            time.sleep(1)
            beside = asked()
            meanwhile.communicate()
        return alone, beside

    def daemon(self):
        return Daemon(self)

    def ask(self, method, path, document=None, connection=None):
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.http)
        connection.request(method, path, json.dumps(document) if document else None,
                           {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def drop(self):
        if self.cluster:
            self.cluster.sql("postgres", "-c", f"DROP DATABASE {self.url.split('/')[3].split('?')[0]} WITH (FORCE)")
        for file in self.folder.glob("lastmile*.db*"):
            file.unlink()


class Daemon:
    def __init__(self, site):
        self.site = site

    def __enter__(self):
        self.process = subprocess.Popen([self.site.program, "--config", self.site.config, "serve"])
        accounting.wait_for_http(self.site.http, 0.05)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


if __name__ == "__main__":
    main()
