#!/usr/bin/env python3
"""What the fold pays for the sums that billing reads and for thresholds: CPU microseconds a record, with and without.

usage: bench/fold.py [--sessions N] [--rounds R] [--databases sqlite,postgres]

The same load on daemons that take turns: without sums by period (a trigger lets no row of `ledger_total` in; computing them
stays), with them, with thresholds besides that nobody reaches, and with thresholds that everybody crosses. CPU counts all
of answering, journal and fold, and PostgreSQL's processes; what a part costs is the difference of two rows.
"""
import argparse, os, pathlib, shutil, statistics, subprocess, tempfile

import accounting

USAGE = """
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "standard"
unit_amount = "0.05"
"""
THRESHOLD = """
[[tariff.threshold]]
at = "{} GB"
meter = "data"
do = ["notify"]
"""
KINDS = {"without sums": "", "with sums": "", "and thresholds far away": THRESHOLD.format(1_000_000_000), "and thresholds crossed": THRESHOLD.format(10)}
SKIP_SQLITE = "CREATE TRIGGER bench_skip BEFORE INSERT ON ledger_total BEGIN SELECT RAISE(IGNORE); END"
SKIP_POSTGRES = """CREATE FUNCTION bench_skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER bench_skip BEFORE INSERT ON ledger_total FOR EACH ROW EXECUTE FUNCTION bench_skip()"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgres")
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "accounting_load"], cwd=accounting.ROOT, check=True)
    catalog = accounting.CATALOG.read_text()
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        cluster = accounting.Postgres(folder / "pg") if "postgres" in options.databases else None
        try:
            for database in options.databases.split(","):
                results = {kind: [] for kind in KINDS}
                for _ in range(options.rounds):
                    for kind, threshold in KINDS.items():
                        results[kind].append(measured(folder, database, cluster, kind, catalog + USAGE + threshold, options.sessions))
                print(f"\nfold, {database}, {options.sessions * 5:,} records a round, median of {options.rounds} rounds in turn\n")
                print("| fold | CPU us/record | of all rounds |\n|---|---|---|")
                for kind, costs in results.items():
                    print(f"| {kind} | {statistics.median(costs):.1f} | {', '.join(f'{cost:.1f}' for cost in costs)} |", flush=True)
        finally:
            if cluster:
                cluster.stop()


def measured(folder, database, cluster, kind, catalog, sessions):
    work = pathlib.Path(tempfile.mkdtemp(dir=folder))
    os.chmod(work, 0o755)
    accounting.CATALOG = work / "catalog.toml"
    accounting.CATALOG.write_text(catalog)
    url = f"sqlite://{work}/lastmile.db" if database == "sqlite" else cluster.database()
    server = accounting.Lastmile(work, url, cluster if database == "postgres" else None)
    try:
        if kind == "without sums" and database == "sqlite":
            subprocess.run(["sqlite3", "-cmd", ".timeout 5000", work / "lastmile.db", SKIP_SQLITE], check=True)
        elif kind == "without sums":
            cluster.sql(url.split("/")[3].split("?")[0], "-c", SKIP_POSTGRES)
        return accounting.measure(server, sessions, 64, work)["cpu_us"]
    finally:
        server.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
