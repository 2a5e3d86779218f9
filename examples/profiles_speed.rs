//! How many foreign records one core turns into checked account changes in a second, by format; and writes back.
//!
//! `cargo run --release --example profiles_speed [SECONDS]` prints a table; a row runs for SECONDS (1 by default). The
//! records of a row differ in their keys, and each becomes a document or patch that the room of accounts has checked.

use std::fmt::Write;
use std::time::{Duration, Instant};

use lastmile::mediation::{Facts, Profile};
use serde_json::json;

/// What the daemon allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of one input.
const ROUND: u64 = 1_000;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    println!("| one core | octets a record | records/s | µs each |");
    println!("|---|---|---|---|");
    row("csv: homegrown-csv, an account a row", "homegrown-csv", time, &[csv()]);
    row("csv: omnia360, two rows an account", "omnia360", time, &[grouped()]);
    row("csv: glds-wincable, a printed report of three rows", "glds-wincable", time, &[report()]);
    row("fixed: azar", "azar", time, &[fixed()]);
    row("json: powercode, a list", "powercode", time, &[json_list()]);
    row("json: uisp-service, a webhook each", "uisp-service", time, &each(uisp));
    row("xml: platypus, a list", "platypus", time, &[xml_list()]);
    row("xml: icoms, an order with two services each", "icoms", time, &each(icoms));
    row("form: freeside-cable, a call each", "freeside-cable", time, &each(form));
    row("env: billmax-service, a hook each", "billmax-service", time, &each(environment));
    println!();
    println!("| one core, written back | octets a line | lines/s | µs each |");
    println!("|---|---|---|---|");
    for (profile, out) in
        [("billmax-service", "cdr"), ("azar", "charges"), ("icoms", "charges"), ("homegrown-csv", "iif")]
    {
        written(profile, out, time);
    }
}

fn row(name: &str, profile: &str, time: Duration, inputs: &[Vec<u8>]) {
    let profile = Profile::named(profile).expect("a shipped profile");
    let octets: usize = inputs.iter().map(Vec::len).sum();
    let begun = Instant::now();
    let (mut records, mut rounds) = (0u64, 0u64);
    while begun.elapsed() < time {
        for input in inputs {
            for outcome in profile.changes(&input[..]) {
                let change = outcome.result.expect("a sound record").expect("one for us");
                assert!(std::hint::black_box(change).account.is_some());
                records += 1;
            }
        }
        rounds += 1;
    }
    assert_eq!(records, rounds * ROUND, "{name}");
    print(name, octets as u64 / ROUND, records, begun.elapsed());
}

fn written(profile: &str, out: &str, time: Duration) {
    let source = Profile::named(profile).expect("a shipped profile");
    let facts: Facts = vec![("created_at".to_owned(), "2026-11-02T06:00:00Z".to_owned())];
    let lines: Vec<serde_json::Value> = (0..ROUND)
        .map(|n| {
            json!({
                "id": format!("il_2026-10_{n}"), "account": format!("26-{n}"), "service": format!("{n}-1"), "username": "jdoe",
                "kind": "usage", "description": "Data, 50 GB over", "quantity": "1234.5", "unit": "GB", "amount": "12.50",
                "period": { "start": "2026-10-01T05:00:00Z", "end": "2026-11-01T05:00:00Z" },
            })
        })
        .collect();
    let begun = Instant::now();
    let (mut count, mut octets) = (0, 0);
    while begun.elapsed() < time {
        let mut file = Vec::new();
        source.outs[out].write(lines.iter().cloned(), &facts, &mut file).expect("written");
        octets = file.len() as u64 / ROUND;
        count += ROUND;
    }
    print(&format!("{profile}: {out}"), octets, count, begun.elapsed());
}

fn print(name: &str, octets: u64, records: u64, took: Duration) {
    let rate = records as f64 / took.as_secs_f64();
    let thousands = rate as u64 / 1000;
    println!("| {name} | {octets} | {thousands},{:03} | {:.1} |", rate as u64 % 1000, 1e6 / rate);
}

fn each(make: fn(u64) -> String) -> Vec<Vec<u8>> {
    (0..ROUND).map(|n| make(n).into_bytes()).collect()
}

fn joined(head: &str, make: impl Fn(u64) -> String, tail: &str) -> Vec<u8> {
    let mut text = head.to_owned();
    for n in 0..ROUND {
        text.push_str(&make(n));
    }
    text.push_str(tail);
    text.into_bytes()
}

fn mac(n: u64) -> String {
    format!("02005E{n:06X}")
}

fn csv() -> Vec<u8> {
    let head = "Cust#;Name;Package;Modem;Tel;State of account;Monthly charges;Bill day\n";
    let row = |n| format!("A-{n};Doe, Jane;Gold;{};217 555 0114;live;1.049,95;17\n", mac(n));
    joined(head, row, &format!("END;{ROUND}\n"))
}

fn grouped() -> Vec<u8> {
    let head = "AccountNumber,CustomerName,ServiceStatus,ServiceCode,DeviceMAC,Tn,HouseNumber,HouseSuffix,PreDirectional,Street,\
        StreetSuffix,PostDirectional,Apartment,City,StateAbbreviation,CountryAbbreviation,PostalCode,PostalCodePlus4,TaxArea\n";
    let place = "14,,N,MAIN,ST,,4,SPRINGFIELD,IL,USA,62701,1234,IL167";
    let rows = |n| {
        let (mac, tail) = (mac(2 * n), n % 10_000);
        format!("{n},DOE JANE,Active,NET100,{mac},,{place}\n{n},DOE JANE,Active,POTSIP,{mac},217555{tail:04},{place}\n")
    };
    joined(head, rows, &format!("#rows,{}\n", 2 * ROUND))
}

fn report() -> Vec<u8> {
    let rows = |n| {
        let mac = mac(2 * n);
        format!(
            "101-{n:05},JANE DOE,,,UNIT 4,,,1,I100,INTERNET 100,{mac},,49.95,,,49.95\n\
             ,,,,14 N MAIN ST,,,1,TEL,PHONE LINE,{mac},2175550114,20.00,,,20.00\n\
             ,,,,\"SPRINGFIELD, IL 62701\",,,1,DISC,BUNDLE DISC,,,-5.00,,,-5.00\n"
        )
    };
    joined("FR#,Name,,,Address,,,Qty,Pkg,Package,,,Amt,,,Total\n", rows, "Report Criteria:,,,,,,,,,,,,,,,\n")
}

fn fixed() -> Vec<u8> {
    let row = |n| {
        let (name, street, city) = ("DOE JANE", "14 N MAIN ST", "SPRINGFIELD");
        format!("{n:010}{name:<25}{street:<30}{city:<20}IL627011234ANET100  {}\n", mac(n))
    };
    joined("H20261120AZARLIKE\n", row, &format!("T{ROUND:07}\n"))
}

fn json_list() -> Vec<u8> {
    let item = |n| {
        let comma = if n == 0 { "" } else { "," };
        format!(
            "{comma}\n{{\"CustomerID\": {n}, \"FirstName\": \"Jane\", \"LastName\": \"Doe\", \"Status\": \"Active\", \"BillDay\": \"15\", \
             \"Email\": \"jane@example.net\", \"Phone\": \"217-555-0114\", \"Street\": \"14 N Main St\", \"City\": \"Springfield\", \
             \"State\": \"IL\", \"Zip\": \"62701\", \"Username\": \"jdoe{n}\", \"Password\": \"s3cret99\", \
             \"MonthlyInternet\": \"Residential 100\", \"Balance\": -12.50}}"
        )
    };
    joined(&format!("{{\"total\": {ROUND}, \"customers\": ["), item, "]}")
}

fn uisp(n: u64) -> String {
    json!({
        "uuid": "5c1c1a8e-6c0f-4e6b-9a6e-3d1b3e1f0a11", "changeType": "edit", "entity": "service", "entityId": n.to_string(),
        "extraData": { "entity": {
            "id": n, "clientId": 164 + n, "status": 1, "servicePlanId": 9, "price": 155.0, "activeFrom": "2023-10-02T00:00:00-0700",
            "activeTo": null, "street1": "25 Quail Lane", "city": "Los Altos", "zipCode": "94022",
            "attributes": [{ "key": "modemMac", "value": mac(n) }, { "key": "radiusUser", "value": format!("c{n}") }],
        } },
    })
    .to_string()
}

fn xml_list() -> Vec<u8> {
    let head = format!("<PLATXML><body><data_block><count>{ROUND}</count><attributes>");
    let item = |n| {
        format!(
            "<data_block><id>{n}</id><name>Doe &amp; Sons</name><username>jdoe{n}</username><password>s3cret99</password>\
             <d_active>Y</d_active><crid>5561</crid><phone>217.555.0114</phone><email>jane@example.net</email>\
             <addr1>14 N Main St</addr1><city>Springfield</city><state>IL</state><zip>62701</zip></data_block>\n"
        )
    };
    joined(&head, item, "</attributes></data_block></body></PLATXML>")
}

fn icoms(n: u64) -> String {
    let mac = mac(2 * n);
    let mut text = format!(
        "<icomsOrder><accountIdentification><siteReference>26</siteReference><accountNumber>{n}</accountNumber>\
         </accountIdentification><customer><name>DOE, JANE</name><phone>2175550114</phone></customer>"
    );
    for (category, code, number) in [("D", "HSD100", ""), ("T", "TEL1", "<telephone>2175550114</telephone>")] {
        let _ = write!(
            text,
            "<service><serviceCategoryCode>{category}</serviceCategoryCode><serviceOccurance>1</serviceOccurance>\
             <serviceCode>{code}</serviceCode><action>IN</action><equipment>{mac}</equipment>{number}</service>"
        );
    }
    text + "</icomsOrder>"
}

fn form(n: u64) -> String {
    format!(
        "action=insert&svcnum={n}&custnum=2{n}&modelnum=SB6190&serialnum=372115&mac_addr={}&plan=cable-100&first=Jane&last=Doe&\
         address1=14+N+Main+St&city=Springfield&state=IL&zip=62701",
        mac(n)
    )
}

fn environment(n: u64) -> String {
    format!(
        "NEW=1\0NEW_number={n}\0NEW_account=2{n}\0NEW_state=Open\0NEW_d01=jdoe{n}\0NEW_d02=Tr0ub4dor\0NEW_price=49.95\0\
         NEW_resources=1,3\0NEW_description=Cable 100/10 Capped\0NEW_d03={}\0USER_email=jane@example.net\0ACCOUNT_number=2{n}\0\
         ACCOUNT_cfname=Jane\0ACCOUNT_clname=Doe\0ACCOUNT_address1=14 N Main St\0ACCOUNT_city=Springfield\0ACCOUNT_bstate=IL\0\
         ACCOUNT_zip=62701\0ACCOUNT_phone1=(217) 555-0114\0",
        mac(n)
    )
}
