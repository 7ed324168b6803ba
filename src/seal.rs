//! Sealed keys: the match key of a row that must be found again although it left the source.
//!
//! A key is sealed with AES-256-GCM-SIV (RFC 8452) under a key derived from the state's secret (label
//! `reverse-etl/1/seal`). The nonce is the start of the key hash, so nothing random is needed: the same key has the same nonce
//! and the same sealed form. Should two keys share a nonce, 96 of the 128 bits, this cipher still hides both. The whole key
//! hash is authenticated as well: a sealed key moved to another row does not open.

use aes_gcm_siv::{
    Aes256GcmSiv, KeyInit, Nonce,
    aead::{Aead, Payload},
};

use crate::{
    Error, ErrorKind, Result,
    fingerprint::{KeyHash, Secret},
    record::Key,
};

#[derive(Clone)]
pub(crate) struct Sealer(Aes256GcmSiv);

impl Sealer {
    pub(crate) fn new(secret: &Secret) -> Result<Self> {
        Ok(Self(Aes256GcmSiv::new(&secret.derive::<32>("seal")?.into())))
    }

    pub(crate) fn seal(&self, hash: KeyHash, key: &Key) -> Result<Vec<u8>> {
        let aad = hash.to_bytes();
        self.0.encrypt(&nonce(hash), Payload { msg: key.as_str().as_bytes(), aad: &aad }).map_err(|_| {
            Error::new(ErrorKind::Config, "a key is too long to be sealed: shorten the key column")
        })
    }

    pub(crate) fn open(&self, hash: KeyHash, sealed: &[u8]) -> Result<Key> {
        let aad = hash.to_bytes();
        let opened = self.0.decrypt(&nonce(hash), Payload { msg: sealed, aad: &aad }).ok();
        opened.and_then(|bytes| String::from_utf8(bytes).ok()).map(Key::new).ok_or_else(|| {
            Error::new(
                ErrorKind::StateDamaged,
                "a sealed key in the state does not open: the state was altered; start a new state, whose first run sends every row",
            )
        })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

fn nonce(hash: KeyHash) -> Nonce {
    let [start @ .., _, _, _, _] = hash.to_bytes();
    start.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_for_its_own_row_and_secret_only() {
        let sealer = Sealer::new(&Secret::new([1; 32])).unwrap();
        let (hash, other) = (KeyHash::from_u128(1), KeyHash::from_u128(2));
        let hidden = sealer.seal(hash, &Key::new("ada@shop.test")).unwrap();
        assert!(!String::from_utf8_lossy(&hidden).contains("ada"));
        assert_eq!(sealer.open(hash, &hidden).unwrap().as_str(), "ada@shop.test");
        assert!(sealer.open(other, &hidden).is_err());
        assert!(Sealer::new(&Secret::new([2; 32])).unwrap().open(hash, &hidden).is_err());
        assert!(sealer.open(hash, &hidden[1..]).is_err());
    }

    #[test]
    fn a_sealed_key_is_the_same_in_every_version() {
        let sealer = Sealer::new(&Secret::new([7; 32])).unwrap();
        let hidden = sealer.seal(KeyHash::from_u128(u128::MAX / 3), &Key::new("ada@shop.test")).unwrap();
        assert_eq!(hex::encode(hidden), "b50268992ed56901eeaced4284b444259b5e7bb4488369ca2fc91e1930");
    }
}
