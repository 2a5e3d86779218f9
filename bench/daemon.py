#!/usr/bin/env python3
"""The daemon itself: time until ready on an existing database, resident memory when idle, durable account pushes a second.

usage: bench/daemon.py [--pushes N] [--connections C] [--rounds R]

Builds the release binary and the push generator, starts every server itself on loopback ports and ends it by its pid.
"""
import argparse, json, os, pathlib, statistics, subprocess, tempfile, time

import accounting
from accounting import ROOT, TARGET

CATALOG = ROOT / "bench" / "catalog.toml"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pushes", type=int, default=10000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "lastmile", "--example", "push_load"], cwd=ROOT, check=True)
    rows = {}
    with tempfile.TemporaryDirectory(prefix="lastmile-bench-") as folder:
        os.chmod(folder, 0o755)
        folder = pathlib.Path(folder)
        cluster = accounting.Postgres(folder / "pg")
        try:
            for turn in range(options.rounds):
                for name, url in (
                    ("SQLite", lambda d: f"sqlite://{d}/lastmile.db"),
                    ("PostgreSQL", lambda d: cluster.database()),
                ):
                    work = folder / f"{name}{turn}"
                    work.mkdir(mode=0o755)
                    rows.setdefault(name, []).append(measure(work, url(work), cluster if name == "PostgreSQL" else None, options))
        finally:
            cluster.stop()
    print(f"\ndaemon, {options.pushes} pushes over {options.connections} connections, median of {options.rounds} rounds in turn\n")
    head = ("database", "pushes/s", "p50 ms", "p99 ms", "CPU us/push", "ready ms", "idle resident MB")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, results in rows.items():
        middle = lambda key: statistics.median(result[key] for result in results)
        print(f"| {name} | {middle('pushes_per_second'):,.0f} | {middle('p50_ms'):.1f} | {middle('p99_ms'):.1f} | {middle('cpu_us'):.0f} "
              f"| {middle('ready_ms'):.0f} | {middle('rss_mb'):.0f} |")


def measure(work, url, cluster, options):
    daemon = accounting.Lastmile(work, url, cluster)
    command = [TARGET / "release/lastmile", "--config", work / "lastmile.toml"]
    subprocess.run([*command, "catalog", "apply", CATALOG], check=True, stdout=subprocess.DEVNULL)
    made = subprocess.run([*command, "--json", "key", "create", "--tenant", "bench", "--role", "push"],
                          check=True, capture_output=True, text=True)
    key_file = work / "api-key"
    key_file.write_text(json.loads(made.stdout)["key"])
    before = daemon.cpu_seconds()
    output = subprocess.run(
        [TARGET / "release/examples/push_load", f"127.0.0.1:{daemon.http}", "bench", key_file,
         str(options.pushes), str(options.connections)],
        check=True, capture_output=True, text=True)
    result = json.loads(output.stdout.strip().splitlines()[-1])
    result["cpu_us"] = (daemon.cpu_seconds() - before) * 1e6 / options.pushes
    daemon.stop()
    ready = []
    for _ in range(5):
        began = time.monotonic()
        daemon = accounting.Lastmile(work, url, cluster, quick=True)
        ready.append((time.monotonic() - began) * 1000)
        if _ < 4:
            daemon.stop()
    result["ready_ms"] = statistics.median(ready)
    time.sleep(5)
    result["rss_mb"] = daemon.resident_mb()
    daemon.stop()
    return result


if __name__ == "__main__":
    main()
