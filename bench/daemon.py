#!/usr/bin/env python3
"""The daemon itself: time until ready on an existing database, resident memory when idle, durable account pushes a second.

usage: bench/daemon.py [--pushes N] [--connections C] [--rounds R] [--no-build]

Three passes of pushes: accounts that are new, the same ones changed, the same ones as they are stored. The CPU time is the
daemon's and the database's, and counts what follows a push as far as it is done meanwhile.

Builds the release binary and the push generator, starts every server itself on loopback ports and ends it by its pid.
"""
import argparse, json, os, pathlib, statistics, subprocess, tempfile, time

import accounting
from accounting import ROOT, TARGET

CATALOG = ROOT / "bench" / "catalog.toml"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pushes", type=int, default=10000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    if not options.no_build:
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
    middle = lambda results, *keys: statistics.median(of(result, keys) for result in results)
    head = ("database", "push", "pushes/s", "p50 ms", "p99 ms", "CPU us/push")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, results in rows.items():
        for kind in ("create", "update", "unchanged"):
            print(f"| {name} | {kind} | {middle(results, kind, 'pushes_per_second'):,.0f} | {middle(results, kind, 'p50_ms'):.1f} "
                  f"| {middle(results, kind, 'p99_ms'):.1f} | {middle(results, kind, 'cpu_us'):.0f} |")
    print("\n| database | ready ms | idle resident MB |\n|---|---|---|")
    for name, results in rows.items():
        print(f"| {name} | {middle(results, 'ready_ms'):.0f} | {middle(results, 'rss_mb'):.0f} |")


def of(result, keys):
    for key in keys:
        result = result[key]
    return result


def measure(work, url, cluster, options):
    daemon = accounting.Lastmile(work, url, cluster)
    command = [TARGET / "release/lastmile", "--config", work / "lastmile.toml"]
    subprocess.run([*command, "catalog", "apply", CATALOG], check=True, stdout=subprocess.DEVNULL)
    made = subprocess.run([*command, "--json", "key", "create", "--tenant", "bench", "--role", "push"],
                          check=True, capture_output=True, text=True)
    key_file = work / "api-key"
    key_file.write_text(json.loads(made.stdout)["key"])
    load = subprocess.Popen(
        [TARGET / "release/examples/push_load", f"127.0.0.1:{daemon.http}", "bench", key_file,
         str(options.pushes), str(options.connections), "2"],
        stdout=subprocess.PIPE, text=True)
    result, before = {}, daemon.cpu_seconds()
    for line in load.stdout:
        now, told = daemon.cpu_seconds(), json.loads(line)
        result[told["kind"]] = {**told, "cpu_us": (now - before) * 1e6 / options.pushes}
        before = now
    assert load.wait() == 0, "the load failed"
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
