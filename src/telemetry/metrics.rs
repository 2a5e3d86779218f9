//! The metric families, their names and help texts, and their rendering as Prometheus text.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use super::labels::{
    Direction, Kind, KindResult, Nas, NasKind, NasReason, NasResult, Outcome, Reason, Request, Target, TargetState,
    Tenant,
};
use super::process;

/// A gauge in seconds or another fraction.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Every metric of the daemon. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    pub radius_requests: Family<NasKind, Counter>,
    pub radius_responses: Family<Nas, Counter>,
    pub radius_dropped: Family<NasReason, Counter>,
    pub radius_duplicates: Family<Nas, Counter>,
    pub fold_duplicates: Counter,
    pub radius_quarantined: Counter,
    pub radsec_connections: Family<Nas, Gauge>,
    pub radsec_refused: Family<Reason, Counter>,
    pub radsec_closed: Family<NasReason, Counter>,
    pub journal_records: Counter,
    pub journal_sealed_records: Counter,
    pub journal_commit_seconds: Histogram,
    pub journal_batch_records: Histogram,
    pub journal_failures: Counter,
    pub fold_records: Counter,
    pub fold_seconds: Histogram,
    pub fold_lag_records: Gauge,
    pub fold_lag_seconds: FloatGauge,
    pub sessions_active: Gauge,
    pub nas_last_report_age_seconds: Family<Nas, FloatGauge>,
    pub nas_reports_overdue: Family<Nas, Gauge>,
    pub nas_sessions_open: Family<Nas, Gauge>,
    pub nas_sessions_stale: Family<Nas, Gauge>,
    pub nas_previous_secret_timestamp_seconds: Family<Nas, Gauge>,
    pub nas_control_requests: Family<NasResult, Counter>,
    pub nas_control_waiting: Family<Nas, Gauge>,
    pub nas_control_away: Family<Nas, Gauge>,
    pub nas_control_seconds: Histogram,
    pub usage_bytes: Family<Direction, Counter>,
    pub http_requests: Family<Request, Counter>,
    pub http_request_seconds: Histogram,
    pub pushes: Family<Outcome, Counter>,
    pub ingest_records: Family<Outcome, Counter>,
    pub ingest_refused: Family<Reason, Counter>,
    pub changes_held: Gauge,
    pub reconcile_findings: Family<Kind, Counter>,
    pub jobs: Family<TargetState, Gauge>,
    pub job_attempts: Family<TargetState, Counter>,
    pub job_seconds: Family<Target, Histogram, fn() -> Histogram>,
    pub jobs_oldest_seconds: FloatGauge,
    pub tftp_transfers: Family<Outcome, Counter>,
    pub tftp_sent_bytes: Counter,
    pub dhcp_requests: Family<Outcome, Counter>,
    pub dhcp_replies: Family<Outcome, Counter>,
    pub dhcp_dropped: Family<Reason, Counter>,
    pub dhcp_journal_commits: Counter,
    pub tod_answers: Counter,
    pub modems_polled: Family<Outcome, Counter>,
    pub drift_found: Family<Target, Counter>,
    pub bill_runs: Family<Outcome, Counter>,
    pub bill_lines: Counter,
    pub audit_sealed: Counter,
    pub audit_chain_sequence: Family<Tenant, Gauge>,
    pub outlet_deliveries: Family<KindResult, Counter>,
    pub outlet_lag_seconds: Family<Kind, FloatGauge>,
    pub outlet_waiting: Family<Kind, Gauge>,
    pub exceptions_open: Gauge,
    pub database_up: Gauge,
    pub reloads: Family<Outcome, Counter>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All families, registered under `lastmile_*`, at zero.
    pub fn new() -> Self {
        let mut r = Registry::with_prefix("lastmile");
        let build: Family<Vec<(String, String)>, Gauge> = Family::default();
        build.get_or_create(&vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]).set(1);
        r.register("build_info", "The running version; always 1", build);
        let fast = || Histogram::new(FAST_SECONDS);
        let slow: fn() -> Histogram = || Histogram::new(SLOW_SECONDS);
        macro_rules! add {
            ($metric:expr, $name:literal, $help:literal) => {{
                let metric = $metric;
                r.register($name, $help, metric.clone());
                metric
            }};
        }
        Self {
            radius_requests: add!(Family::default(), "radius_requests", "Accepted RADIUS requests"),
            radius_responses: add!(
                Family::default(),
                "radius_responses",
                "RADIUS answers sent, after the commit, by client"
            ),
            radius_dropped: add!(
                Family::default(),
                "radius_dropped",
                "RADIUS datagrams not answered, by client and reason"
            ),
            radius_duplicates: add!(
                Family::default(),
                "radius_duplicates",
                "Identical copies of Accounting-Requests, by client"
            ),
            fold_duplicates: add!(
                Counter::default(),
                "fold_duplicates",
                "Reports that say what an earlier one said, signed anew"
            ),
            radius_quarantined: add!(
                Counter::default(),
                "radius_quarantined",
                "Records kept and answered that could not be interpreted"
            ),
            radsec_connections: add!(Family::default(), "radsec_connections", "Open RadSec connections by client"),
            radsec_refused: add!(
                Family::default(),
                "radsec_refused",
                "RadSec connections refused before the first packet, by reason"
            ),
            radsec_closed: add!(
                Family::default(),
                "radsec_closed",
                "RadSec connections that ended, by client and reason"
            ),
            journal_records: add!(Counter::default(), "journal_records", "Accounting records made durable"),
            journal_sealed_records: add!(
                Counter::default(),
                "journal_sealed_records",
                "Accounting records sealed into compressed runs"
            ),
            journal_commit_seconds: add!(fast(), "journal_commit_seconds", "Time to make one batch durable"),
            journal_batch_records: add!(
                Histogram::new(BATCH_RECORDS),
                "journal_batch_records",
                "Records made durable by one commit"
            ),
            journal_failures: add!(Counter::default(), "journal_failures", "Batches that could not be made durable"),
            fold_records: add!(Counter::default(), "fold_records", "Journal records folded into sessions"),
            fold_seconds: add!(fast(), "fold_seconds", "Time to fold one batch"),
            fold_lag_records: add!(Gauge::default(), "fold_lag_records", "Journal records not folded yet"),
            fold_lag_seconds: add!(FloatGauge::default(), "fold_lag_seconds", "Age of the oldest record not folded"),
            sessions_active: add!(Gauge::default(), "sessions_active", "Open accounting sessions"),
            nas_last_report_age_seconds: add!(
                Family::default(),
                "nas_last_report_age_seconds",
                "Time since the last report of a NAS arrived"
            ),
            nas_reports_overdue: add!(
                Family::default(),
                "nas_reports_overdue",
                "Whether a NAS has open sessions and sent nothing for three of its intervals (1) or not (0)"
            ),
            nas_sessions_open: add!(Family::default(), "nas_sessions_open", "Open accounting sessions of a NAS"),
            nas_sessions_stale: add!(
                Family::default(),
                "nas_sessions_stale",
                "Open sessions of a NAS without a report for three intervals"
            ),
            nas_previous_secret_timestamp_seconds: add!(
                Family::default(),
                "nas_previous_secret_timestamp_seconds",
                "When a client last signed with its previous secret, Unix time"
            ),
            nas_control_requests: add!(
                Family::default(),
                "nas_control_requests",
                "Requests to a NAS about a session, by client, kind and result; retransmissions are not counted"
            ),
            nas_control_waiting: add!(
                Family::default(),
                "nas_control_waiting",
                "Sessions about which a client's NAS is to be asked or has not answered"
            ),
            nas_control_away: add!(
                Family::default(),
                "nas_control_away",
                "Whether a client's NAS left its last requests about sessions unanswered (1) or not (0)"
            ),
            nas_control_seconds: add!(
                slow(),
                "nas_control_seconds",
                "Time until a NAS answered a request about a session, or was given up"
            ),
            usage_bytes: add!(Family::default(), "usage_bytes", "Octets written to the ledger"),
            http_requests: add!(Family::default(), "http_requests", "Answered HTTP requests"),
            http_request_seconds: add!(fast(), "http_request_seconds", "Time to answer an HTTP request"),
            pushes: add!(Family::default(), "pushes", "Account pushes by result"),
            ingest_records: add!(
                Family::default(),
                "ingest_records",
                "Records of billing systems read by a source profile, by result"
            ),
            ingest_refused: add!(
                Family::default(),
                "ingest_refused",
                "Requests and connections of billing systems that were refused as a whole, by reason"
            ),
            changes_held: add!(
                Gauge::default(),
                "changes_held",
                "Changes that take service away and wait for an operator"
            ),
            reconcile_findings: add!(
                Family::default(),
                "reconcile_findings",
                "Subscribers and services that reconciliations found, by class"
            ),
            jobs: add!(Family::default(), "jobs", "Provisioning jobs by state"),
            job_attempts: add!(Family::default(), "job_attempts", "Attempts of provisioning jobs by result"),
            job_seconds: add!(Family::new_with_constructor(slow), "job_seconds", "Time of one attempt of a job"),
            jobs_oldest_seconds: add!(FloatGauge::default(), "jobs_oldest_seconds", "Age of the oldest waiting job"),
            tftp_transfers: add!(Family::default(), "tftp_transfers", "TFTP transfers by result"),
            dhcp_requests: add!(Family::default(), "dhcp_requests", "DHCP messages of devices, by type"),
            dhcp_replies: add!(Family::default(), "dhcp_replies", "DHCP answers sent, by type"),
            dhcp_dropped: add!(Family::default(), "dhcp_dropped", "DHCP messages not answered, by reason"),
            dhcp_journal_commits: add!(
                Counter::default(),
                "dhcp_journal_commits",
                "Times leases were made durable, many together"
            ),
            tod_answers: add!(Counter::default(), "tod_answers", "Time of day told"),
            tftp_sent_bytes: add!(Counter::default(), "tftp_sent_bytes", "Octets of files sent by TFTP"),
            modems_polled: add!(Family::default(), "modems_polled", "Modems asked how they are, by outcome"),
            drift_found: add!(Family::default(), "drift_found", "Differences from what is desired found, by kind"),
            bill_runs: add!(Family::default(), "bill_runs", "Bill runs by result"),
            bill_lines: add!(Counter::default(), "bill_lines", "Invoice lines issued"),
            audit_sealed: add!(
                Counter::default(),
                "audit_sealed_deeds",
                "Deeds of the audit given their place in a chain"
            ),
            audit_chain_sequence: add!(
                Family::default(),
                "audit_chain_sequence",
                "Deeds in a tenant's audit chain, as its signed head says"
            ),
            outlet_deliveries: add!(
                Family::default(),
                "outlet_deliveries",
                "Attempts to deliver an event, by kind of outlet and result"
            ),
            outlet_lag_seconds: add!(
                Family::default(),
                "outlet_lag_seconds",
                "Age of the oldest event that no attempt was made for, by kind of outlet"
            ),
            outlet_waiting: add!(
                Family::default(),
                "outlet_waiting",
                "Events that are to be delivered again, by kind of outlet"
            ),
            exceptions_open: add!(Gauge::default(), "exceptions_open", "Exceptions that wait for a person"),
            database_up: add!(Gauge::default(), "database_up", "Whether the database answered last (1) or not (0)"),
            reloads: add!(Family::default(), "reloads", "Reloads of the configuration by result"),
            registry: Arc::new(r),
        }
    }

    /// The page of `/metrics`, Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut open_metrics = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut open_metrics, &self.registry);
        let mut out = prometheus_text(&open_metrics);
        process::render(&mut out);
        out
    }
}

/// OpenMetrics leaves `_total` out of the counter's HELP and TYPE and ends with EOF; the text format that every scraper
/// and `promtool` reads wants the sample's name there and knows no EOF.
fn prometheus_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut held: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            held = Some(help);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or((kind, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            let help = held.take().and_then(|text| text.split_once(' ')).map_or("", |(_, help)| help);
            out.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if line != "# EOF" {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

const FAST_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const SLOW_SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
const BATCH_RECORDS: [f64; 8] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_carry_total_in_help_type_and_sample() {
        let metrics = Metrics::new();
        metrics.radius_dropped.get_or_create(&NasReason::new("", "unknown_nas")).inc();
        let text = metrics.render();
        assert!(text.contains("# TYPE lastmile_radius_dropped_total counter\n"), "{text}");
        assert!(text.contains("lastmile_radius_dropped_total{nas=\"\",reason=\"unknown_nas\"} 1\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(!text.contains("EOF"), "{text}");
    }
}
