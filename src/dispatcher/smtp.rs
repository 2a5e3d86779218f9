//! A small SMTP client that hands one mail to the installation's relay and knows how sure it is of what became of it.
//!
//! **Source**: RFC 5321, RFC 3207 (STARTTLS), RFC 4954 (AUTH PLAIN).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::outgoing::{Answer, Mail, message};
use crate::vocabulary::Secret;

/// How the relay is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Plain, on this machine or its own network.
    None,
    StartTls,
    /// From the first octet (RFC 8314).
    Tls,
}

/// The installation's mail relay.
#[derive(Clone)]
pub struct Relay {
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub login: Option<(String, Secret)>,
    pub tls: Arc<ClientConfig>,
}

/// For the whole of it.
const PATIENCE: Duration = Duration::from_secs(14);
/// Octets of a line, and lines of a reply.
const LINE_MAX: u64 = 4096;
const LINES_MAX: usize = 100;

/// Where it ended.
enum Ended {
    /// Nothing was handed over: it may be tried again.
    Before(String),
    /// The relay refused it for good.
    Refused(String),
    /// It was handed over, and no answer came: it may have been taken.
    Unclear(String),
}

impl Relay {
    /// Hands a mail over. `Refused` also when it may have been taken: whether it is sent again is a person's to say.
    pub async fn send(&self, mail: &Mail<'_>) -> Answer {
        let mut handed = false;
        let sent = timeout(PATIENCE, self.hand_over(mail, &mut handed)).await;
        let late = || format!("no answer within {PATIENCE:?}");
        match sent.unwrap_or_else(|_| Err(if handed { Ended::Unclear(late()) } else { Ended::Before(late()) })) {
            Ok(()) => Answer::Taken,
            Err(Ended::Before(why)) => Answer::Failed(why),
            Err(Ended::Refused(why)) => Answer::Refused(why),
            Err(Ended::Unclear(why)) => Answer::Refused(format!("{why}; the mail may have been taken")),
        }
    }

    async fn hand_over(&self, mail: &Mail<'_>, handed: &mut bool) -> Result<(), Ended> {
        let before = |error: std::io::Error| Ended::Before(format!("{}:{}: {error}", self.host, self.port));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(before)?;
        match self.security {
            Security::None => {
                let mut talk = Talk::new(stream);
                talk.greeted().await?;
                self.converse(&mut talk, mail, handed).await
            }
            Security::Tls => {
                let mut talk = Talk::new(self.secured(stream).await?);
                talk.greeted().await?;
                self.converse(&mut talk, mail, handed).await
            }
            Security::StartTls => {
                let mut talk = Talk::new(stream);
                talk.greeted().await?;
                talk.hello().await?;
                talk.ask("STARTTLS", 220).await?;
                // What came before the encryption is forgotten.
                let mut talk = Talk::new(self.secured(talk.stream.into_inner()).await?);
                self.converse(&mut talk, mail, handed).await
            }
        }
    }

    async fn secured(&self, stream: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Ended> {
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| Ended::Before(format!("{} is no name", self.host)))?;
        let connected = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
        connected.map_err(|error| Ended::Before(format!("{}: no TLS: {error}", self.host)))
    }

    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        talk: &mut Talk<S>,
        mail: &Mail<'_>,
        handed: &mut bool,
    ) -> Result<(), Ended> {
        talk.hello().await?;
        if let Some((user, password)) = &self.login {
            let told = STANDARD.encode(format!("\0{user}\0{}", password.expose()));
            talk.ask(&format!("AUTH PLAIN {told}"), 235).await.map_err(|ended| match ended {
                // A wrong password is mended in the configuration, not in the mail.
                Ended::Refused(why) => Ended::Before(format!("the relay refuses the login: {why}")),
                other => other,
            })?;
        }
        talk.ask(&format!("MAIL FROM:<{}>", mail.from.address), 250).await?;
        talk.ask(&format!("RCPT TO:<{}>", mail.to.address), 250).await?;
        talk.ask("DATA", 354).await?;
        *handed = true;
        let unclear = |ended| match ended {
            Ended::Before(why) if !why.starts_with("the relay said") => Ended::Unclear(why),
            other => other,
        };
        talk.say(&message(mail)).await.map_err(unclear)?;
        talk.ask(".", 250).await.map_err(unclear)?;
        // It is taken; how the farewell goes does not matter.
        let _ = talk.say("QUIT\r\n").await;
        Ok(())
    }
}

struct Talk<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn greeted(&mut self) -> Result<(), Ended> {
        self.reply(220).await
    }

    async fn hello(&mut self) -> Result<(), Ended> {
        self.ask("EHLO lastmile.localdomain", 250).await
    }

    async fn say(&mut self, text: &str) -> Result<(), Ended> {
        let written = self.stream.get_mut().write_all(text.as_bytes()).await;
        let written = match written {
            Ok(()) => self.stream.get_mut().flush().await,
            Err(error) => Err(error),
        };
        written.map_err(|error| Ended::Before(format!("the connection ended: {error}")))
    }

    async fn ask(&mut self, command: &str, wanted: u16) -> Result<(), Ended> {
        self.say(&format!("{command}\r\n")).await?;
        self.reply(wanted).await
    }

    /// Reads a reply of one or more lines. A 4xx may pass, a 5xx will not.
    async fn reply(&mut self, wanted: u16) -> Result<(), Ended> {
        let mut text = String::new();
        for _ in 0..LINES_MAX {
            let mut line = String::new();
            let mut bounded = tokio::io::AsyncReadExt::take(&mut self.stream, LINE_MAX);
            let read = bounded.read_line(&mut line).await;
            match read {
                Ok(length) if length > 0 && line.ends_with('\n') => {}
                Ok(_) => return Err(Ended::Before("the connection ended".to_owned())),
                Err(error) => return Err(Ended::Before(format!("the connection ended: {error}"))),
            }
            text = line.trim().to_owned();
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        let code: u16 = text.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        match code {
            code if code == wanted || (wanted == 250 && code == 251) => Ok(()),
            500..=599 => Err(Ended::Refused(format!("the relay said {text}"))),
            _ => Err(Ended::Before(format!("the relay said {text}"))),
        }
    }
}
