//! Pushes accounts to a running daemon over a few connections and prints how fast it was, as one JSON object.
//!
//! `push_load ADDRESS TENANT KEY_FILE [PUSHES] [CONNECTIONS] [PASSES]`: every push of the first pass creates an account of
//! its own with one internet service (modem and login) and waits for its durable answer; each further pass pushes all of
//! them again, changed (by turns 1 and 2 guests), and one more pass pushes what is stored already. One line a pass. The
//! catalog must have bill cycle `c15` and plan `res-100`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, tenant, key_file, rest @ ..] = arguments.as_slice() else {
        return Err("push_load ADDRESS TENANT KEY_FILE [PUSHES] [CONNECTIONS] [PASSES]".into());
    };
    let number = |at: usize, default: u64| rest.get(at).map_or(Ok(default), |text| text.parse());
    let (pushes, connections, passes) = (number(0, 10_000)?, number(1, 16)?, number(2, 1)?);
    let key = std::fs::read_to_string(key_file)?.trim().to_owned();
    let mut seed = [0u8; 4];
    getrandom::fill(&mut seed)?;
    let run = u32::from_be_bytes(seed);
    let last = if passes > 1 { passes + 1 } else { passes };
    for pass in 1..=last {
        let kind = match pass {
            1 => "create",
            _ if pass > passes => "unchanged",
            _ => "update",
        };
        // What is pushed again unchanged is what the pass before it said.
        let load =
            Load { address: address.clone(), tenant: tenant.clone(), key: key.clone(), run, pass: pass.min(passes) };
        print_pass(kind, connections, pushes, Arc::new(load))?;
    }
    Ok(())
}

struct Load {
    address: String,
    tenant: String,
    key: String,
    run: u32,
    pass: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn print_pass(kind: &str, connections: u64, pushes: u64, load: Arc<Load>) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (load, next) = (load.clone(), next.clone());
            std::thread::spawn(move || client(&load, &next, pushes))
        })
        .collect();
    let mut waits = Vec::new();
    for client in clients {
        waits.extend(client.join().map_err(|_| "a client panicked")??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort();
    let at =
        |share: f64| waits.get(((waits.len() as f64 - 1.0) * share) as usize).map_or(0.0, |w| w.as_secs_f64() * 1e3);
    println!(
        "{}",
        serde_json::json!({
            "kind": kind,
            "pushes": waits.len(),
            "connections": connections,
            "seconds": (seconds * 1e3).round() / 1e3,
            "pushes_per_second": (waits.len() as f64 / seconds).round(),
            "p50_ms": (at(0.5) * 1e3).round() / 1e3,
            "p99_ms": (at(0.99) * 1e3).round() / 1e3,
        })
    );
    Ok(())
}

fn client(load: &Load, next: &AtomicU64, pushes: u64) -> Result<Vec<Duration>, Failure> {
    let Load { address, tenant, key, run, pass } = load;
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut waits = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= pushes {
            return Ok(waits);
        }
        let body = account(*run, number, *pass);
        let id = format!("load-{run:08x}-{number}");
        let request = format!(
            "PUT /v1/tenants/{tenant}/accounts/{id} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = Instant::now();
        writer.write_all(request.as_bytes())?;
        let status = answer(&mut reader)?;
        waits.push(sent.elapsed());
        if !matches!(status, 200 | 201) {
            return Err(format!("push {id} was answered with {status}").into());
        }
    }
}

fn account(run: u32, number: u64, pass: u64) -> String {
    // Locally administered addresses: 22 bits of the run and 18 of the number keep runs apart.
    let mac = 0x0200_0000_0000u64 | (u64::from(run >> 10) << 18) | (number & 0x3_ffff);
    let mac = format!("{mac:012x}");
    serde_json::json!({
        "source_revision": pass, "status": "active", "bill_cycle": "c15", "name": "Load Test",
        "devices": [{"id": "gw1", "cm_mac": mac}],
        "services": [{
            "id": "s1", "type": "internet", "plan": "res-100", "device": "gw1", "billing_from": "2026-11-01", "max_cpe": 2 - pass % 2,
            "radius": {"username": format!("u{run:08x}-{number}@acme"), "password": "a-password-of-usual-length"},
        }],
    })
    .to_string()
}

fn answer(reader: &mut BufReader<TcpStream>) -> Result<u16, Failure> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).ok_or("no status")?.parse()?;
    let mut length = 0usize;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0u8; length];
    reader.read_exact(&mut body)?;
    Ok(status)
}
