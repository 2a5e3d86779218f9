//! Seals secrets that must be recoverable (HOUSE decision 11): XChaCha20-Poly1305, bound to the place they are stored at.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::StoreError;
use crate::vocabulary::{Secret, hex};

const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
/// First octet of a sealed value: the format's version.
const FORMAT: u8 = 1;

/// Seals and opens secrets, and makes keyed hashes that tell a change without opening.
///
/// **Shape** of a sealed value: version octet (1), 24 octets nonce, ciphertext with its 16-octet tag.
#[derive(Clone)]
pub struct Sealer {
    current: [u8; KEY_LENGTH],
    previous: Option<[u8; KEY_LENGTH]>,
}

impl Sealer {
    /// Reads the key file; for SQLite (`default_file`) makes one, mode 0600, when none is configured and none is there.
    pub(super) fn load(
        key_file: Option<&Path>,
        previous_file: Option<&Path>,
        default_file: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let current = match (key_file, default_file) {
            (Some(path), _) => read_key(path)?,
            (None, Some(path)) if path.exists() => read_key(path)?,
            (None, Some(path)) => make_key(path)?,
            (None, None) => {
                return Err(StoreError::Configuration(
                    "[secrets] key_file is needed with PostgreSQL: 32 random octets as 64 hexadecimal digits"
                        .to_owned(),
                ));
            }
        };
        let previous = previous_file.map(read_key).transpose()?;
        Ok(Self { current, previous })
    }

    /// A sealer over a given key, for tests and the demo.
    pub fn from_key(key: [u8; KEY_LENGTH]) -> Self {
        Self { current: key, previous: None }
    }

    /// Seals `secret` for one place; `place` names tenant, table, id and column and must be given again to open.
    pub fn seal(&self, place: &str, secret: &Secret) -> Result<Vec<u8>, StoreError> {
        self.seal_bytes(place, secret.expose().as_bytes())
    }

    /// Seals any octets, for example a snapshot file.
    pub fn seal_bytes(&self, place: &str, clear: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0u8; NONCE_LENGTH];
        getrandom::fill(&mut nonce).map_err(|error| StoreError::Database(format!("no randomness: {error}")))?;
        let cipher = XChaCha20Poly1305::new(Key::from_slice(&self.current));
        let payload = Payload { msg: clear, aad: place.as_bytes() };
        let ciphertext = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| StoreError::Database("a value is too long to be sealed".to_owned()))?;
        Ok([&[FORMAT], nonce.as_slice(), &ciphertext].concat())
    }

    /// Opens a sealed secret with the current key, else with the one before the rotation.
    ///
    /// **Errors**: wrong key, wrong place or damaged octets; the secret must be pushed again.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Secret, StoreError> {
        let clear = self.open_bytes(place, sealed)?;
        let text = String::from_utf8(clear).map_err(|_| StoreError::Corrupt {
            table: "secret",
            column: "sealed",
            id: place.to_owned(),
        })?;
        Ok(Secret::new(text))
    }

    pub fn open_bytes(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let corrupt = || StoreError::Corrupt { table: "secret", column: "sealed", id: place.to_owned() };
        if sealed.len() < 1 + NONCE_LENGTH || sealed[0] != FORMAT {
            return Err(corrupt());
        }
        let (nonce, ciphertext) = sealed[1..].split_at(NONCE_LENGTH);
        [Some(self.current), self.previous]
            .iter()
            .flatten()
            .find_map(|key| {
                let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
                XChaCha20Poly1305::new(Key::from_slice(key)).decrypt(XNonce::from_slice(nonce), payload).ok()
            })
            .ok_or_else(corrupt)
    }

    /// A keyed hash, HMAC-SHA256 under the installation's key; `label` keeps uses apart.
    pub fn keyed_hash(&self, label: &str, data: &[u8]) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.current).expect("HMAC takes keys of any length");
        mac.update(label.as_bytes());
        mac.update(&[0]);
        mac.update(data);
        mac.finalize().into_bytes().into()
    }

    /// Whether `hash` is the keyed hash of `data` under the current key, or under the one before the rotation.
    pub fn is_keyed_hash(&self, label: &str, data: &[u8], hash: &[u8]) -> bool {
        let before = self.previous.map(|previous| Self { current: previous, previous: None });
        [Some(self), before.as_ref()]
            .into_iter()
            .flatten()
            .any(|sealer| bool::from(sealer.keyed_hash(label, data).as_slice().ct_eq(hash)))
    }

    /// The keyed hash of a secret as hexadecimal text: equal only for equal secrets at the same place.
    pub fn digest(&self, place: &str, secret: &Secret) -> String {
        hex(&self.keyed_hash(place, secret.expose().as_bytes())[..16])
    }
}

fn read_key(path: &Path) -> Result<[u8; KEY_LENGTH], StoreError> {
    let refuse = |why: String| StoreError::Configuration(format!("key file {}: {why}", path.display()));
    let octets = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    if let Ok(key) = <[u8; KEY_LENGTH]>::try_from(octets.as_slice()) {
        return Ok(key);
    }
    let text = std::str::from_utf8(&octets).unwrap_or_default().trim();
    let mut key = [0u8; KEY_LENGTH];
    let usable = text.len() == KEY_LENGTH * 2
        && text.is_ascii()
        && key.iter_mut().enumerate().all(|(index, octet)| {
            u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map(|value| *octet = value).is_ok()
        });
    if usable { Ok(key) } else { Err(refuse("must hold 32 octets, or 64 hexadecimal digits".to_owned())) }
}

fn make_key(path: &Path) -> Result<[u8; KEY_LENGTH], StoreError> {
    let refuse = |why: String| StoreError::Configuration(format!("key file {}: {why}", path.display()));
    let mut key = [0u8; KEY_LENGTH];
    getrandom::fill(&mut key).map_err(|error| refuse(error.to_string()))?;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match file {
        Ok(mut file) => {
            file.write_all(format!("{}\n", hex(key)).as_bytes()).map_err(|error| refuse(error.to_string()))?;
            file.sync_all().map_err(|error| refuse(error.to_string()))?;
            file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|error| refuse(error.to_string()))?;
            Ok(key)
        }
        // Another process of ours was a moment faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => read_key(path),
        Err(error) => Err(refuse(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_at_its_own_place_and_with_a_known_key() {
        let old = Sealer::from_key([1; 32]);
        let sealed = old.seal("acme/secret/1/radius.password", &Secret::new("correct horse")).expect("sealed");
        assert_eq!(old.open("acme/secret/1/radius.password", &sealed).expect("opened").expose(), "correct horse");
        assert!(old.open("acme/secret/2/radius.password", &sealed).is_err());
        assert!(Sealer::from_key([2; 32]).open("acme/secret/1/radius.password", &sealed).is_err());
        let rotated = Sealer { current: [2; 32], previous: Some([1; 32]) };
        assert!(rotated.open("acme/secret/1/radius.password", &sealed).is_ok());
        let mut damaged = sealed.clone();
        *damaged.last_mut().expect("octets") ^= 1;
        assert!(old.open("acme/secret/1/radius.password", &damaged).is_err());
    }

    #[test]
    fn a_made_key_is_private_and_read_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("lastmile.key");
        let first = Sealer::load(None, None, Some(&path)).expect("made");
        let mode = fs::metadata(&path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Sealer::load(None, None, Some(&path)).expect("read");
        assert_eq!(first.keyed_hash("x", b"y"), again.keyed_hash("x", b"y"));
    }
}
