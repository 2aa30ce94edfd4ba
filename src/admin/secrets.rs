//! The values that no operator has to see.

use serde_json::Value;

/// Parts of the keys whose values are secret.
const SECRET: [&str; 4] = ["password", "passwd", "token", "secret"];

/// Replaces the values of secret keys.
pub(super) fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.to_ascii_lowercase();
                match SECRET.iter().any(|part| key.contains(part)) {
                    true => *value = "***".into(),
                    false => mask(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_secret_keys_are_masked_at_any_depth() {
        let mut value =
            json!({"name": "ann", "accessToken": "x", "a": [{"PassWord": {"b": 1}}], "secret": 3});
        mask(&mut value);
        let masked = json!({"name": "ann", "accessToken": "***", "a": [{"PassWord": "***"}], "secret": "***"});
        assert_eq!(value, masked);
    }
}
