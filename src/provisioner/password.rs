//! Turns a mailbox's clear password into the `{SCHEME}hash` that Dovecot verifies, off the async threads.
//!
//! In: a clear password and the scheme. Out: text for PostfixAdmin's `mailbox.password`. It is called only when the
//! password changed, because each hash costs milliseconds of a core on purpose. It never stores or logs anything.

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use sha_crypt::ShaCrypt;
use thiserror::Error;

use crate::vocabulary::Secret;

/// Twelve random octets are sixteen characters of salt: crypt(3) uses no more, and a longer one would be stored but
/// not compared, so that every login failed.
const SHA512_SALT_OCTETS: usize = 12;
const ARGON2_SALT_OCTETS: usize = 16;

/// RFC 9106's second recommendation, less memory: 19 MiB, two passes, so that a mail host checks many logins at once.
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;

/// How a mailbox password is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// glibc's `$6$`: understood by Dovecot, passwd and FreeRADIUS alike.
    #[default]
    Sha512Crypt,
    /// Memory-hard, where Dovecot was built with libsodium (Debian's is).
    Argon2id,
}

#[derive(Debug, Error)]
pub enum PasswordError {
    /// The machine has no randomness or memory now: try again later.
    #[error("the password could not be hashed: {0}")]
    Hash(String),
    /// crypt(3) ends a password at the first NUL: it would accept a shorter one.
    #[error("the password holds a NUL character; set another one")]
    Nul,
}

/// Hashes `password` on a thread that may block.
pub async fn hash(scheme: Scheme, password: Secret) -> Result<String, PasswordError> {
    tokio::task::spawn_blocking(move || hash_blocking(scheme, &password))
        .await
        .map_err(|error| PasswordError::Hash(error.to_string()))?
}

fn hash_blocking(scheme: Scheme, password: &Secret) -> Result<String, PasswordError> {
    let clear = password.expose().as_bytes();
    if clear.contains(&0) {
        return Err(PasswordError::Nul);
    }
    match scheme {
        Scheme::Sha512Crypt => {
            let salt = random::<SHA512_SALT_OCTETS>()?;
            let hash = ShaCrypt::SHA512.hash_password_with_salt(clear, &salt).map_err(failed)?;
            Ok(format!("{{SHA512-CRYPT}}{hash}"))
        }
        Scheme::Argon2id => {
            let salt = random::<ARGON2_SALT_OCTETS>()?;
            let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, 1, None).map_err(failed)?;
            let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_with_salt(clear, &salt)
                .map_err(failed)?;
            Ok(format!("{{ARGON2ID}}{hash}"))
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], PasswordError> {
    let mut octets = [0u8; N];
    getrandom::fill(&mut octets).map_err(failed)?;
    Ok(octets)
}

fn failed(error: impl std::fmt::Display) -> PasswordError {
    PasswordError::Hash(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Asks glibc's crypt(3), the one Dovecot uses, through Perl.
    fn crypt(password: &str, setting: &str) -> String {
        let mut child = Command::new("perl")
            .args(["-e", "my ($p, $s) = map { chomp; $_ } <STDIN>; print crypt($p, $s)"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("perl is part of every Debian");
        write!(child.stdin.take().expect("stdin is piped"), "{password}\n{setting}\n").expect("perl reads");
        String::from_utf8(child.wait_with_output().expect("perl ends").stdout).expect("a hash is ASCII")
    }

    #[test]
    fn crypt_of_the_c_library_agrees_with_our_sha512_hash() {
        for password in ["Secret!23", "pä ßwörd 🐟", "", "x".repeat(200).as_str()] {
            let hash = hash_blocking(Scheme::Sha512Crypt, &Secret::new(password)).expect("hashing works");
            let stored = hash.strip_prefix("{SHA512-CRYPT}").expect("the scheme is named");
            assert_eq!(crypt(password, stored), stored);
        }
    }

    #[test]
    fn each_hash_has_its_own_salt() {
        let hashes: std::collections::HashSet<String> =
            (0..4).map(|_| hash_blocking(Scheme::Argon2id, &Secret::new("same")).expect("hashing works")).collect();
        assert_eq!(hashes.len(), 4);
        assert!(hashes.iter().all(|hash| hash.starts_with("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")), "{hashes:?}");
    }

    #[test]
    fn password_with_nul_is_refused() {
        assert!(matches!(hash_blocking(Scheme::Sha512Crypt, &Secret::new("a\0b")), Err(PasswordError::Nul)));
    }
}
