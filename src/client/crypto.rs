//! Signed messages: each body carries an RSA signature of its other members. Nothing is encrypted.
//!
//! Source: pomelo 2.2.7 `connector` component, `verifyMessage`; node-bignumber 1.2.1;
//! `tests/vectors/client/rsa.json`

use std::borrow::Cow;

use md5::Md5;
use rsa::BoxedUint;
use rsa::traits::PublicKeyParts as _;
use serde_json::Value;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::limits::{RSA_KEY_BITS_MAX, RSA_KEY_BITS_MIN};
use crate::wire::json;

/// Member of a body that holds the signature.
const SIGNATURE: &str = "__crypto__";

/// The key that verifies the messages of a client.
#[derive(Debug)]
pub struct PublicKey(rsa::PublicKey);

impl PublicKey {
    /// Reads `sys.rsa` of a handshake: `rsa_n`, the modulus in hex, and `rsa_e`, the exponent.
    ///
    /// As in Pomelo, an exponent in quotes is read as decimal.
    /// Bound: the modulus has `limits::RSA_KEY_BITS_MIN` to `_MAX` bits, the exponent at most 33
    pub fn from_json(rsa: &Value) -> Option<Self> {
        let modulus = bytes_of_hex(rsa.get("rsa_n")?.as_str()?)?;
        let exponent: u64 = match rsa.get("rsa_e")? {
            Value::Number(number) => number.as_u64()?,
            Value::String(text) => text.parse().ok()?,
            _ => return None,
        };
        let modulus = BoxedUint::from_be_slice_vartime(&modulus);
        let range = RSA_KEY_BITS_MIN..=RSA_KEY_BITS_MAX;
        rsa::PublicKey::new_with_size_limits(modulus, BoxedUint::from(exponent), range)
            .ok()
            .map(Self)
    }

    /// Returns the bits of the modulus in `sys.rsa`, whatever else it has.
    pub fn bits(rsa: &Value) -> usize {
        let digits = rsa.get("rsa_n").and_then(Value::as_str).unwrap_or_default();
        let digits = digits.trim_start_matches('0');
        let first = digits.chars().next().and_then(|digit| digit.to_digit(16));
        let first = first.map_or(0, |digit| u32::BITS - digit.leading_zeros());
        4 * digits.len().saturating_sub(1) + first as usize
    }

    /// Verifies a body. Returns it without its signature, as `JSON.stringify` prints it, or `None` if
    /// the body is not an object or not signed with this key.
    ///
    /// Cost: the body is parsed and printed; up to four exponentiations, of which real clients need
    /// one.
    pub fn verify(&self, body: &[u8]) -> Option<Vec<u8>> {
        let Value::Object(mut members) = json::parse(body)? else {
            return None;
        };
        let signature = members.shift_remove(SIGNATURE)?;
        let signature = self.signature(signature.as_str()?)?;
        let mut text = Vec::new();
        json::write_value(&mut text, &Value::Object(members));
        let signed = signed_bytes(str::from_utf8(&text).ok()?);
        let key = &self.0;
        let is_signed = key.pkcs1v15_verify::<Sha256>(&signed, &signature).is_ok()
            || key.pkcs1v15_verify::<Sha1>(&signed, &signature).is_ok()
            || key.pkcs1v15_verify::<Sha512>(&signed, &signature).is_ok()
            || key.pkcs1v15_verify::<Md5>(&signed, &signature).is_ok();
        is_signed.then_some(text)
    }

    /// Decodes a signature. As in Pomelo, characters other than hex digits are skipped. The result must
    /// be as long as the modulus.
    fn signature(&self, text: &str) -> Option<Vec<u8>> {
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let bits = self.0.n().bit_width_vartime() as usize;
        debug_assert!((RSA_KEY_BITS_MIN..=RSA_KEY_BITS_MAX).contains(&bits));
        (digits.len() == bits.div_ceil(4))
            .then(|| bytes_of_hex(&digits))
            .flatten()
    }
}

/// Returns `None` if the text is empty or not hex.
fn bytes_of_hex(digits: &str) -> Option<Vec<u8>> {
    let nibbles = digits.chars().map(|digit| digit.to_digit(16));
    let nibbles: Vec<u8> = nibbles
        .map(|nibble| nibble.map(|nibble| nibble as u8))
        .collect::<Option<_>>()?;
    let (first, rest) = nibbles.split_at(nibbles.len() % 2);
    let pairs = rest.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    let bytes: Vec<u8> = first.iter().copied().chain(pairs).collect();
    (!bytes.is_empty()).then_some(bytes)
}

/// Returns the bytes to hash. As in Pomelo, a text with a Chinese character is encoded as UTF-8 twice,
/// the first time each UTF-16 unit alone.
fn signed_bytes(text: &str) -> Cow<'_, [u8]> {
    let is_chinese = |c| ('\u{4e00}'..='\u{9fa5}').contains(&c);
    if !text.contains(is_chinese) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(2 * text.len());
    let mut again = |byte: u16| {
        let mut buffer = [0; 2];
        let character = char::from(byte as u8);
        out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
    };
    for unit in text.encode_utf16() {
        match unit {
            0..0x80 => again(unit),
            0x80..0x800 => {
                again(0xc0 | unit >> 6);
                again(0x80 | unit & 0x3f);
            }
            _ => {
                again(0xe0 | unit >> 12);
                again(0x80 | unit >> 6 & 0x3f);
                again(0x80 | unit & 0x3f);
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A public key without a known private key.
    fn key() -> PublicKey {
        let rsa = json!({"rsa_n": format!("c{}1", "f".repeat(254)), "rsa_e": 65537});
        PublicKey::from_json(&rsa).expect("a key")
    }

    #[test]
    fn a_key_that_cannot_be_used_is_refused() {
        let good = "c3".repeat(64);
        for (rsa_n, rsa_e) in [
            (json!("c3f1"), json!(65537)),
            (json!("c3".repeat(513)), json!(65537)),
            (json!(""), json!(65537)),
            (json!("xyz"), json!(65537)),
            (json!(7), json!(65537)),
            (json!("c2".repeat(64)), json!(65537)),
            (json!(good), json!(1)),
            (json!(good), json!(-3)),
            (json!(good), json!(1_u64 << 33)),
            (json!(good), json!("10001x")),
            (json!(good), json!(null)),
        ] {
            let rsa = json!({"rsa_n": rsa_n, "rsa_e": rsa_e});
            assert!(PublicKey::from_json(&rsa).is_none(), "{rsa}");
        }
        for rsa in [json!({}), json!([]), json!(1), json!({"rsa_n": good})] {
            assert!(PublicKey::from_json(&rsa).is_none(), "{rsa}");
        }
        let quoted = json!({"rsa_n": good, "rsa_e": "65537"});
        assert!(PublicKey::from_json(&quoted).is_some());
    }

    #[test]
    fn a_body_that_is_not_a_signed_object_is_refused() {
        let zeros = format!("{{\"__crypto__\":\"{}\"}}", "0".repeat(256));
        for body in [
            "null",
            "1",
            "\"x\"",
            "[]",
            "{}",
            "",
            "{",
            "{\"__crypto__\":1}",
            &zeros,
        ] {
            assert_eq!(key().verify(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_key_and_no_body_panics(
            rsa_n in "[0-9a-fA-F]{0,300}|.{0,20}",
            rsa_e in any::<u64>(),
            body in ".{0,40}",
            signature in "[0-9a-f]{0,260}",
        ) {
            let rsa = json!({"rsa_n": rsa_n, "rsa_e": rsa_e});
            if let Some(key) = PublicKey::from_json(&rsa) {
                let _ = key.verify(body.as_bytes());
                let signed = json!({"m": body, "__crypto__": signature}).to_string();
                prop_assert_eq!(key.verify(signed.as_bytes()), None);
            }
        }
    }
}
