//! Who a node is: a key of its own (P-384), with which it signs the time of every call.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p384::SecretKey;
use p384::ecdsa::signature::hazmat::PrehashSigner;
use p384::ecdsa::{DerSignature, SigningKey};
use p384::elliptic_curve::sec1::ToSec1Point;
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use sha2::{Digest, Sha256};

use crate::error::FlowerError;

/// A node's key pair.
pub struct Identity {
    secret: SecretKey,
    signing: SigningKey,
    public_pem: Vec<u8>,
}

impl Identity {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Errors
    /// [`FlowerError::Key`] if the system gives none.
    pub fn generate() -> Result<Self, FlowerError> {
        loop {
            let mut bytes = [0; 48];
            getrandom::fill(&mut bytes)
                .map_err(|error| FlowerError::Key(format!("the system gives no random numbers: {error}")))?;
            // Fails for zero and for what exceeds the group's order: about never.
            if let Ok(secret) = SecretKey::from_slice(&bytes) {
                return Self::new(secret);
            }
        }
    }

    /// The one in a PEM file: `PRIVATE KEY` or `EC PRIVATE KEY`, not encrypted.
    ///
    /// # Errors
    /// [`FlowerError::Key`] if it is another kind of key, or none.
    pub fn from_pem(text: &str) -> Result<Self, FlowerError> {
        let secret =
            SecretKey::from_pkcs8_pem(text).map_err(|_| ()).or_else(|()| SecretKey::from_sec1_pem(text));
        let secret = secret.map_err(|error| {
            FlowerError::Key(format!(
                "not a P-384 private key in PEM format ({error}); `fedper key FILE` makes one, and so does \
                 `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`"
            ))
        })?;
        Self::new(secret)
    }

    fn new(secret: SecretKey) -> Result<Self, FlowerError> {
        let pem = secret.public_key().to_public_key_pem(LineEnding::LF);
        let pem = pem.map_err(|error| FlowerError::Key(error.to_string()))?;
        Ok(Self { signing: SigningKey::from(&secret), public_pem: pem.into_bytes(), secret })
    }

    /// The private key as a PEM file (`PRIVATE KEY`).
    ///
    /// # Errors
    /// [`FlowerError::Key`] if it cannot be encoded.
    pub fn to_pem(&self) -> Result<String, FlowerError> {
        let pem = self.secret.to_pkcs8_pem(LineEnding::LF);
        Ok(pem.map_err(|error| FlowerError::Key(error.to_string()))?.to_string())
    }

    /// The public key as a SuperLink knows it: a SubjectPublicKeyInfo in PEM format.
    pub fn public_pem(&self) -> &[u8] {
        &self.public_pem
    }

    /// The public key as one line in OpenSSH's format, as `flwr supernode register` takes it.
    pub fn public_openssh(&self) -> String {
        let point = self.secret.public_key().to_sec1_point(false);
        let mut blob = Vec::new();
        for part in [&b"ecdsa-sha2-nistp384"[..], b"nistp384", point.as_bytes()] {
            blob.extend_from_slice(&(part.len() as u32).to_be_bytes());
            blob.extend_from_slice(part);
        }
        format!("ecdsa-sha2-nistp384 {}", STANDARD.encode(blob))
    }

    /// The headers that every call of a node carries, signed at `time`.
    pub fn headers(&self, time: SystemTime) -> [(&'static str, String); 3] {
        let timestamp = iso_8601(time);
        let digest = Sha256::digest(timestamp.as_bytes());
        // The nonce follows from key and message (RFC 6979): no random numbers to go wrong.
        let signature: DerSignature = self.signing.sign_prehash(&digest).expect("a digest is long enough");
        [
            ("flwr-public-key", STANDARD.encode(&self.public_pem)),
            ("flwr-timestamp", timestamp),
            ("flwr-signature", STANDARD.encode(signature.as_bytes())),
        ]
    }
}

/// A name that nobody else has: 32 hexadecimal digits from the operating system's random numbers.
///
/// # Errors
/// [`FlowerError::Key`] if the system gives none.
pub fn random_name() -> Result<String, FlowerError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| FlowerError::Key(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// UTC with microseconds, such as `2026-11-22T18:48:00.901000+00:00`.
fn iso_8601(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1 March of year 0, in 400-year eras: http://howardhinnant.github.io/date_algorithms.html
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p384::ecdsa::VerifyingKey;
    use p384::ecdsa::signature::hazmat::PrehashVerifier;

    use super::*;

    #[test]
    fn timestamps_by_hand() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000005+00:00"),
            (951_782_399, "2000-02-28T23:59:59.000005+00:00"),
            (951_868_799, "2000-02-29T23:59:59.000005+00:00"),
            (1_795_373_280, "2026-11-22T18:48:00.000005+00:00"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(5);
            assert_eq!(iso_8601(time), expected);
        }
    }

    #[test]
    fn a_key_comes_back_from_its_file_and_its_signature_verifies() {
        let identity = Identity::generate().unwrap();
        let again = Identity::from_pem(&identity.to_pem().unwrap()).unwrap();
        assert_eq!(identity.public_pem(), again.public_pem());
        let [(_, _), (_, timestamp), (_, signature)] = again.headers(SystemTime::now());
        let signature = DerSignature::from_bytes(&STANDARD.decode(signature).unwrap()).unwrap();
        let key = VerifyingKey::from(&identity.signing);
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        key.verify_prehash(&digest(&timestamp), &signature).unwrap();
        assert!(key.verify_prehash(&digest("2026"), &signature).is_err());
        assert_ne!(identity.public_pem(), Identity::generate().unwrap().public_pem());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let error = Identity::from_pem("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n");
        assert!(error.err().unwrap().to_string().contains("not a P-384 private key"));
    }
}
