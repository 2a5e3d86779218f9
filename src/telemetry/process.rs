//! The `process_*` metrics every Prometheus user expects, read from `/proc/self` at the moment of the scrape.

use std::fmt::Write;
use std::fs;

/// Linux reports process times in hundredths of a second to every program, whatever the kernel ticks at.
const USER_TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

/// Appends the metrics of this process; a value the kernel does not tell is left out.
pub fn render(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command name may hold spaces; fields count from the closing parenthesis.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    if let (Some(user), Some(system)) = (number(11), number(12)) {
        let seconds = (user + system) as f64 / USER_TICKS_PER_SECOND;
        metric(out, "process_cpu_seconds_total", "counter", "Processor time used, user and system.", seconds);
    }
    if let Some(pages) = number(21) {
        let bytes = (pages * PAGE_BYTES) as f64;
        metric(out, "process_resident_memory_bytes", "gauge", "Memory held in RAM.", bytes);
    }
    if let Some(bytes) = number(20) {
        metric(out, "process_virtual_memory_bytes", "gauge", "Address space reserved.", bytes as f64);
    }
    if let (Some(ticks), Some(boot)) = (number(19), boot_seconds()) {
        let seconds = boot as f64 + ticks as f64 / USER_TICKS_PER_SECOND;
        metric(out, "process_start_time_seconds", "gauge", "When the process started, Unix time.", seconds);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        metric(out, "process_open_fds", "gauge", "Open file descriptors.", open.count() as f64);
    }
    if let Some(limit) = max_fds() {
        metric(out, "process_max_fds", "gauge", "File descriptors the process may open.", limit as f64);
    }
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

fn boot_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}
