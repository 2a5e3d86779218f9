//! The daemon under a private journald: its lines carry fields that `journalctl` finds.

use std::process::Command;

use serde_json::Value;

use crate::harness::daemon::Site;

/// In a mount namespace of its own: a journal, the daemon until it serves, and its lines as JSON.
const SCRIPT: &str = r#"
mount -t tmpfs tmpfs /run || exit 77
mkdir -p /run/systemd/journal /run/log/journal /run/systemd/system
echo b08dfa6083e7567a1921a715000001fb > /run/machine-id
mount --bind /run/machine-id /etc/machine-id || exit 77
/lib/systemd/systemd-journald > /run/journald.out 2>&1 & journald=$!
for i in $(seq 50); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
[ -S /run/systemd/journal/socket ] || { kill $journald; exit 77; }
"$1" --config "$2" serve & daemon=$!
for i in $(seq 200); do curl -sf -o /dev/null "http://127.0.0.1:$3/readyz" && break; sleep 0.1; done
kill -TERM $daemon
wait $daemon; status=$?
for i in $(seq 50); do
    journalctl --no-pager -q -D /run/log/journal | grep -q Stopped. && break; sleep 0.1
done
journalctl --no-pager -q -D /run/log/journal -o json _PID=$daemon
kill $journald; wait $journald
exit $status
"#;

#[test]
fn log_lines_carry_fields_in_the_journal() {
    let site = Site::sqlite();
    site.edit("format = \"text\"", "format = \"journald\"");
    let (config, port) = (site.config.display().to_string(), site.http_port.to_string());
    let output = Command::new("timeout")
        .args(["90", "unshare", "-m", "--propagation", "private", "bash", "-c", SCRIPT, "journald"])
        .args([env!("CARGO_BIN_EXE_lastmile"), &config, &port])
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        // 77 is the script's word for a machine that cannot; 1 is what `unshare` says when it may not.
        Ok(output) if !matches!(output.status.code(), Some(1 | 77)) => panic!("{output:?}"),
        cannot => {
            let why = cannot.map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
            println!("NOT RUN: log_lines_carry_fields_in_the_journal: no private journald here: {why:?}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let started = lines.iter().find(|line| line["LASTMILE_VERSION"] == env!("CARGO_PKG_VERSION"));
    let started = started.unwrap_or_else(|| panic!("no line with LASTMILE_VERSION in {text}"));
    assert_eq!(started["PRIORITY"], "6", "{started:#}");
    assert_eq!(started["SYSLOG_IDENTIFIER"], "lastmile", "{started:#}");
    let message = started["MESSAGE"].as_str().expect("a message");
    assert!(message.contains(&format!("Serving HTTP on 127.0.0.1:{port}")), "{message}");
}
