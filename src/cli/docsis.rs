//! `docsis encode` and `docsis decode`: one configuration file of a modem or an MTA between bytes and readable TOML.
//!
//! Needs no database, and no configuration: without one the CMTS' shared secret comes from `--secret-file` or is not known.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::docsis::{DocsisError, MAX_FILE_OCTETS, decode, encode, verify};
use crate::vocabulary::{Fault, Secret};

/// The commands of `lastmile docsis`.
#[derive(Subcommand)]
pub enum DocsisCommand {
    /// Make a configuration file from its readable form.
    Encode {
        /// The readable form, as `decode` prints it.
        file: PathBuf,
        /// Where to write the configuration file.
        #[arg(short, long, value_name = "OUT")]
        output: PathBuf,
        /// The CMTS' shared secret, instead of `[docsis]` of the configuration.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Print a configuration file in its readable form.
    Decode {
        file: PathBuf,
        /// The CMTS' shared secret, instead of `[docsis]` of the configuration.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
}

/// Runs one of them.
pub fn run(command: DocsisCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        DocsisCommand::Encode { file, output, secret_file } => {
            encode_file(&file, &output, secret_file.as_deref(), context)
        }
        DocsisCommand::Decode { file, secret_file } => decode_file(&file, secret_file.as_deref(), context),
    }
}

fn encode_file(file: &Path, output: &Path, secret: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    let text = String::from_utf8(read(file)?)
        .map_err(|_| CliError::failed(format!("{} is not UTF-8: encode takes the readable form", file.display())))?;
    let secret = shared_secret(secret, context)?;
    let encoded = encode(&text, secret.as_ref().map(|secret| secret.expose().as_bytes()));
    let encoded = encoded.map_err(|error| refusal(file, error))?;
    tell(file, &encoded.faults);
    std::fs::write(output, &encoded.bytes)
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", output.display())))?;
    if context.json {
        context.print_json(&json!({ "output": output, "bytes": encoded.bytes.len(), "faults": encoded.faults }))?;
    }
    Ok(Exit::Done)
}

fn decode_file(file: &Path, secret: Option<&Path>, context: &Context) -> Result<Exit, CliError> {
    let bytes = read(file)?;
    let secret = shared_secret(secret, context)?;
    let decoded = decode(&bytes, secret.as_ref().map(|secret| secret.expose().as_bytes()));
    let decoded = decoded.map_err(|error| refusal(file, error))?;
    tell(file, &decoded.faults);
    if let Some(signer) = signer(&bytes, secret.as_ref(), context) {
        eprintln!("{}: signed with {signer}", file.display());
    }
    if context.json {
        let document: toml::Table = decoded.toml.parse()?;
        context.print_json(&json!({ "bytes": bytes.len(), "file": document, "faults": decoded.faults }))?;
    } else {
        context.print(&decoded.toml)?;
    }
    Ok(Exit::Done)
}

/// The secret of `--secret-file`, else of the configuration, else none. A configuration that is not there is no fault;
/// one that cannot be used is told, because a MIC made without its secret would be refused by the CMTS.
fn shared_secret(file: Option<&Path>, context: &Context) -> Result<Option<Secret>, CliError> {
    if let Some(file) = file {
        let text = String::from_utf8(read(file)?)
            .map_err(|_| CliError::failed(format!("{} holds no text", file.display())))?;
        let secret = text.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            return Err(CliError::failed(format!("{} is empty", file.display())));
        }
        return Ok(Some(Secret::new(secret)));
    }
    if !context.config_path.exists() {
        return Ok(None);
    }
    match context.config() {
        Ok(config) => Ok(config.docsis.and_then(|docsis| docsis.shared_secret)),
        Err(error) => {
            eprintln!("lastmile: no shared secret taken from {}: {}", context.config_path.display(), error.message);
            Ok(None)
        }
    }
}

/// Which secret of a `[[cmts]]` a modem's file is signed with, where it is not the one that was tried.
fn signer(bytes: &[u8], tried: Option<&Secret>, context: &Context) -> Option<String> {
    let signed = |secret: &Secret| verify(bytes, secret).is_ok();
    if !context.config_path.exists() || tried.is_some_and(signed) {
        return None;
    }
    let all = context.config().ok()?.cmts;
    let named = all.iter().flat_map(|cmts| {
        let of = |key, secret: &Option<Secret>| Some((format!("{key} of {}", cmts.name), secret.clone()?));
        [of("shared_secret", &cmts.shared_secret), of("previous_shared_secret", &cmts.previous_shared_secret)]
    });
    named.flatten().find(|(_, secret)| signed(secret)).map(|(name, _)| name)
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::failed(format!("cannot read {}: {error}", file.display()));
    let size = std::fs::metadata(file).map_err(failed)?.len();
    // A readable form is several times as long as its file.
    if size > 16 * MAX_FILE_OCTETS as u64 {
        return Err(CliError::failed(format!("{} is too long for a configuration file", file.display())));
    }
    std::fs::read(file).map_err(failed)
}

fn refusal(file: &Path, error: DocsisError) -> CliError {
    if let DocsisError::Faults(faults) = &error {
        tell(file, faults);
    }
    CliError::failed(format!("{}: {error}", file.display()))
}

fn tell(file: &Path, faults: &[Fault]) {
    for fault in faults {
        eprintln!("{}: {}: {}", file.display(), fault.pointer, fault.detail);
    }
}
