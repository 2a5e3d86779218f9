//! A receiver of webhooks that answers as a test says and keeps what it got, octet for octet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// How a request is answered.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    /// Waits before it answers.
    pub after: Duration,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}

type Rule = Arc<dyn Fn(&Got) -> Reply + Send + Sync>;

/// It listens until the test's process ends.
pub struct Receiver {
    pub port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    rule: Arc<Mutex<Rule>>,
}

impl Receiver {
    pub fn start(rule: impl Fn(&Got) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Arc::new(rule)));
        let (kept, asked) = (got.clone(), rule.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, asked) = (kept.clone(), asked.clone());
                std::thread::spawn(move || serve(&stream, &kept, &asked));
            }
        });
        Self { port, got, rule }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// From now on it answers so.
    pub fn answer(&self, rule: impl Fn(&Got) -> Reply + Send + Sync + 'static) {
        *self.rule.lock().expect("a rule") = Arc::new(rule);
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().expect("what came").clone()
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Vec<Got>>, asked: &Mutex<Rule>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    while let Some(got) = read(&mut reader) {
        kept.lock().expect("what came").push(got.clone());
        let rule = asked.lock().expect("a rule").clone();
        let reply = rule(&got);
        std::thread::sleep(reply.after);
        let mut head = format!("HTTP/1.1 {} As asked\r\nContent-Length: 2\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = stream;
        if stream.write_all(format!("{head}\r\nok").as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Got> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, text)| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Got { path, headers, body: String::from_utf8(body).ok()? })
}
