#!/usr/bin/env python3
"""Usage rows into priced lines, beside DuckDB: `bench/rating.py [--rows N] [--accounts N] [--rounds R]`.

Both have the same rows in memory and use one thread; they take turns. Ours is `examples/rating_speed`, which rates with
the crate's calendar, period finding and pricing. DuckDB sums and prices with exact DECIMAL arithmetic in one statement;
anchor days are 1 to 28 and the zone is UTC, so that its SQL needs no clamping and no clocks. Both must give the same
lines, the same total to the cent and the same sum of each tier to the last digit. DuckDB comes from PyPI, in a virtual
environment of its own.
"""
import argparse, decimal, json, os, pathlib, resource, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RATE = """
CREATE OR REPLACE TABLE line AS
WITH period AS (
    SELECT usage.account,
           date_trunc('month', usage.used_at::DATE - (account.anchor - 1)) AS month,
           SUM(usage.octets)::BIGINT AS octets
    FROM usage JOIN account ON account.account = usage.account GROUP BY 1, 2),
tier AS (
    SELECT account, month, octets,
           least(octets, 50000000000)::DECIMAL(18, 0) AS q1,
           greatest(least(octets, 200000000000) - 50000000000, 0)::DECIMAL(18, 0) AS q2,
           greatest(least(octets, 500000000000) - 200000000000, 0)::DECIMAL(18, 0) AS q3,
           greatest(octets - 500000000000, 0)::DECIMAL(18, 0) AS q4
    FROM period),
priced AS (
    SELECT *, q1 * 0.00000000000::DECIMAL(11, 11) AS a1, q2 * 0.00000000005::DECIMAL(11, 11) AS a2,
           q3 * 0.00000000003::DECIMAL(11, 11) AS a3, q4 * 0.00000000002::DECIMAL(11, 11) AS a4
    FROM tier)
SELECT *, round(a1 + a2 + a3 + a4, 2) AS amount FROM priced
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    duckdb = peer()
    subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "rating_speed"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        made = f"{folder}/made"
        ours = subprocess.Popen([TARGET / "release/examples/rating_speed", "--rows", str(options.rows), "--accounts", str(options.accounts), "--write", made],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert ours.stdout.readline() == "ready\n"
        database = duckdb.connect()
        database.execute("SET threads = 1")
        database.execute(f"CREATE TABLE account AS SELECT * FROM read_csv('{made}.accounts.csv', header = false, columns = {{'account': 'BIGINT', 'anchor': 'INTEGER'}})")
        database.execute(f"CREATE TABLE usage AS SELECT account, make_timestamp(micros) AS used_at, octets FROM read_csv('{made}.usage.csv', header = false, columns = {{'account': 'BIGINT', 'micros': 'BIGINT', 'octets': 'BIGINT'}})")
        rounds = {"Lastmile": [], f"DuckDB {duckdb.__version__}": []}
        try:
            for _ in range(options.rounds):
                for name, results in rounds.items():
                    results.append(ask(ours, "rate") if name == "Lastmile" else rated(database))
            alone = [ask(ours, "price") for _ in range(options.rounds)]
        finally:
            ours.stdin.close()
            ours.wait()
    facts = {(result["lines"], result["total"], tuple(map(decimal.Decimal, result["tiers"]))) for results in rounds.values() for result in results}
    assert len(facts) == 1, facts
    lines, total, tiers = facts.pop()
    print(f"\n{options.rows:,} rows of {options.accounts:,} accounts into {lines:,} lines; every round of both: {decimal.Decimal(total) / 100:,} USD, "
          f"tiers {', '.join(f'{tier.normalize():f}' for tier in tiers)}; one thread, medians of {options.rounds} rounds in turn\n")
    print("| rating in memory | CPU s | wall s | of these summing |\n|---|---|---|---|")
    middle = lambda results, key: statistics.median(result[key] for result in results)
    for name, results in rounds.items():
        summing = f"{middle(results, 'cpu_summing'):.2f}" if "cpu_summing" in results[0] else ""
        print(f"| {name} | {middle(results, 'cpu'):.2f} | {middle(results, 'wall'):.2f} | {summing} |")
    rate = statistics.median(result["lines"] / result["cpu"] for result in alone)
    print(f"\nthe pricing function alone, four graduated tiers: {rate / 1e6:.2f} million lines/s on a core")


def ask(ours, what):
    ours.stdin.write(what + "\n")
    ours.stdin.flush()
    return json.loads(ours.stdout.readline())


def rated(database):
    spent = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    wall, cpu = time.monotonic(), spent()
    database.execute(RATE)
    wall, cpu = time.monotonic() - wall, spent() - cpu
    lines, total, *tiers = database.execute("SELECT count(*), sum(amount), sum(a1), sum(a2), sum(a3), sum(a4) FROM line").fetchone()
    return {"wall": wall, "cpu": cpu, "lines": lines, "total": int(total * 100), "tiers": tiers}


def peer():
    """DuckDB, from a virtual environment where this Python has none."""
    try:
        import duckdb
        return duckdb
    except ModuleNotFoundError:
        pass
    home = TARGET / "bench-venv"
    if pathlib.Path(sys.prefix) == home:
        sys.exit("DuckDB is not in " + str(home))
    if not (home / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/pip", "install", "--quiet", "duckdb"], check=True)
    os.execv(home / "bin/python", [str(home / "bin/python"), *sys.argv])


if __name__ == "__main__":
    main()
