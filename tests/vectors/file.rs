//! Reading the vector files.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Bytes, written as hex in the files and in failures.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.map(Self).ok_or_else(|| format!("no hex: {text}"))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for byte in self.0.iter().take(300) {
            write!(text, "{byte:02x}")?;
        }
        write!(f, "{text} ({} bytes)", self.0.len())
    }
}

/// The cases of a file of `client/`.
pub(crate) fn cases<C: DeserializeOwned>(text: &str) -> Vec<C> {
    #[derive(Deserialize)]
    struct File<C> {
        cases: Vec<C>,
    }
    let file: File<C> = serde_json::from_str(text).expect("a vector file");
    assert!(!file.cases.is_empty());
    file.cases
}

/// The lines of a transcript.
pub(crate) fn lines<L: DeserializeOwned>(text: &str) -> Vec<L> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of a transcript"))
        .collect()
}
