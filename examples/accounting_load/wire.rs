//! Signed packets of a plan's reports, and packets no collector may answer.

use std::io;

use lastmile::radius::{BuildError, RequestBuilder, attribute};
use lastmile::vocabulary::Secret;
use md5::{Digest, Md5};

use crate::options::Options;
use crate::plan::{Plan, Report, START, STOP};
use crate::random::Random;

const ACCOUNTING_ON: u32 = 7;
/// What a forged packet claims beyond the truth: impossible to overlook where it is counted.
const FORGED_OCTETS: u64 = 7_000_000_000;

/// A report, signed.
pub fn packet(
    options: &Options,
    secret: &Secret,
    plan: &Plan,
    report: &Report,
    identifier: u8,
    delay: u32,
) -> io::Result<Vec<u8>> {
    let low = |octets: u64| (octets & u64::from(u32::MAX)) as u32;
    let host = u32::try_from(plan.number).unwrap_or(0);
    let user = options.user_pattern.replace("{}", &plan.user.to_string());
    let mut builder = head(options, identifier, report.kind, plan.nas, delay, report.at)
        .text(attribute::ACCT_SESSION_ID, &plan.id)
        .text(attribute::USER_NAME, &user)
        .integer(attribute::NAS_PORT, host)
        .address(attribute::FRAMED_IP_ADDRESS, (0x6440_0000_u32 | (host & 0x3f_ffff)).to_be_bytes().into())
        .text(
            attribute::CALLING_STATION_ID,
            &format!("02-00-{:02X}-{:02X}-{:02X}-00", host >> 16 & 255, host >> 8 & 255, host & 255),
        );
    if report.kind != START {
        let (up, down) = report.shown;
        builder = builder
            .integer(attribute::ACCT_SESSION_TIME, report.seconds)
            .integer(attribute::ACCT_INPUT_OCTETS, low(up))
            .integer(attribute::ACCT_OUTPUT_OCTETS, low(down));
        if !options.no_gigawords {
            builder = builder
                .integer(attribute::ACCT_INPUT_GIGAWORDS, low(up >> 32))
                .integer(attribute::ACCT_OUTPUT_GIGAWORDS, low(down >> 32));
        }
    }
    if report.kind == STOP {
        builder = builder.integer(attribute::ACCT_TERMINATE_CAUSE, 1);
    }
    sign(builder, secret)
}

/// A NAS's Accounting-On.
pub fn accounting_on(options: &Options, secret: &Secret, nas: usize, identifier: u8, at: u32) -> io::Result<Vec<u8>> {
    sign(head(options, identifier, ACCOUNTING_ON, nas, 0, at).text(attribute::ACCT_SESSION_ID, "00000000"), secret)
}

fn head(options: &Options, identifier: u8, kind: u32, nas: usize, delay: u32, at: u32) -> RequestBuilder {
    let mut builder = RequestBuilder::accounting(identifier);
    if options.message_authenticator {
        builder = builder.message_authenticator();
    }
    builder = builder
        .integer(attribute::ACCT_STATUS_TYPE, kind)
        .text(attribute::NAS_IDENTIFIER, &options.nas_name(nas))
        .address(attribute::NAS_IP_ADDRESS, [192, 0, 2, (nas % 250 + 1) as u8].into())
        .integer(attribute::ACCT_DELAY_TIME, delay);
    if !options.no_event_timestamp {
        let told = i64::from(at) + options.skew_of(nas);
        builder = builder.integer(attribute::EVENT_TIMESTAMP, u32::try_from(told).unwrap_or(0));
    }
    builder
}

fn sign(builder: RequestBuilder, secret: &Secret) -> io::Result<Vec<u8>> {
    builder.sign(secret).map_err(|error: BuildError| io::Error::other(error))
}

/// A packet that claims too much usage of a session and is wrong in one of six ways.
pub fn forged(
    options: &Options,
    secret: &Secret,
    plan: &Plan,
    report: &Report,
    identifier: u8,
    random: &mut Random,
) -> io::Result<Vec<u8>> {
    let claimed = Report { shown: (report.shown.0 + FORGED_OCTETS, report.shown.1 + FORGED_OCTETS), ..*report };
    let wrong = Secret::new("not-the-secret");
    let way = random.below(6);
    let signed_with = if way == 0 { &wrong } else { secret };
    let mut octets = packet(options, signed_with, plan, &claimed, identifier, 0)?;
    let length = octets.len();
    match way {
        // Signed by somebody else.
        0 => {}
        // Changed on its way.
        1 => octets[length - 1] ^= 0x10,
        // Another authenticator.
        2 => octets[4 + random.below(16) as usize] ^= 0x40,
        // Shorter than it says.
        3 => octets.truncate(length / 2),
        // Signed as it is, with an attribute that runs past the end, or with one of no length.
        _ => {
            octets[21] = if way == 4 { 250 } else { 0 };
            sign_again(&mut octets, secret);
        }
    }
    Ok(octets)
}

/// RFC 2866 section 3: MD5 over the packet with a zero authenticator, and the secret.
fn sign_again(octets: &mut [u8], secret: &Secret) {
    octets[4..20].fill(0);
    let signature = Md5::new().chain_update(&*octets).chain_update(secret.expose()).finalize();
    octets[4..20].copy_from_slice(&signature);
}

pub fn authenticator(packet: &[u8]) -> [u8; 16] {
    let mut authenticator = [0; 16];
    if packet.len() >= 20 {
        authenticator.copy_from_slice(&packet[4..20]);
    }
    authenticator
}
