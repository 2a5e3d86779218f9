//! Sends real, signed RADIUS accounting at a bounded rate and writes down the truth: a load generator for `lastmile serve`.
//!
//! A closed loop: at most `--window` reports are unanswered; with `--rate` an open one. A session's next report goes out
//! after its former one was answered or given up, as a NAS does (with `--reorder`, sometimes before). A report that is
//! not answered is sent again with a new identifier, authenticator and Acct-Delay-Time (RFC 2866 section 4.1). The faults
//! of real networks and NAS can be mixed in; what a collector must find in spite of them is written down, so that a store
//! can be compared with it, also after a crash. The same seed gives the same sessions.
//!
//! `options`: what to do · `plan`: sessions, and the truth about them · `wire`: their packets · `line`: one socket's loop ·
//! `ledger`: what all lines share: the truth written down, and the tally.

mod ledger;
mod line;
mod options;
mod plan;
mod random;
mod wire;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;

use ledger::Ledger;
use line::Line;
use options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(fault) = options.fault() {
        eprintln!("accounting_load: {fault}");
        return ExitCode::FAILURE;
    }
    match run(&options) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(wrong)) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("accounting_load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything and prints the summary; gives what went wrong, in words.
fn run(options: &Options) -> io::Result<Option<String>> {
    let ledger = Arc::new(Ledger::new(options)?);
    let started = Instant::now();
    let lines: Vec<_> = (0..options.sockets)
        .map(|number| {
            let line = Line::new(number, options.clone(), ledger.clone(), started)?;
            Ok(std::thread::spawn(move || line.run()))
        })
        .collect::<io::Result<_>>()?;
    for line in lines {
        line.join().map_err(|_| io::Error::other("a line panicked"))??;
    }
    let seconds = started.elapsed().as_secs_f64();
    line::reboot_all(options, &ledger)?;
    ledger.end(seconds)
}
