//! Which server of a type: the default route of both dialects.

use crate::config::Dialect;

/// Index into a list of `count` servers for a session with this uid text (`""` when unbound).
///
/// As pomelo: |crc32| of the low byte of each UTF-16 unit, taken as a signed number. As pinus: crc32
/// of the UTF-8 bytes, unsigned. An unbound session always gets the first server.
///
/// Bound: `count > 0`.
pub fn default_route(dialect: Dialect, uid: &str, count: usize) -> usize {
    hop!();
    debug_assert!(count > 0);
    if uid.is_empty() || count == 1 {
        return 0;
    }
    let mut hasher = crc32fast::Hasher::new();
    let hash = match dialect {
        Dialect::Pinus => {
            hasher.update(uid.as_bytes());
            hasher.finalize()
        }
        Dialect::Pomelo => {
            for unit in uid.encode_utf16() {
                hasher.update(&[unit as u8]);
            }
            (hasher.finalize() as i32).unsigned_abs()
        }
    };
    hash as usize % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_choose_what_the_reference_chooses() {
        for (uid, pomelo, pinus) in [
            ("", [0, 0, 0], [0, 0, 0]),
            ("1", [1, 2, 3], [1, 2, 3]),
            ("10001", [1, 1, 0], [1, 1, 0]),
            ("alice", [1, 2, 0], [1, 2, 0]),
            ("bob", [0, 2, 2], [0, 2, 4]),
            ("a", [1, 1, 4], [1, 0, 2]),
            ("123456789", [0, 2, 4], [0, 2, 2]),
            ("é", [1, 2, 0], [0, 2, 1]),
            ("张三", [1, 1, 3], [0, 1, 1]),
            ("😀", [1, 1, 2], [0, 1, 1]),
        ] {
            let choose = |dialect| [2, 3, 5].map(|count| default_route(dialect, uid, count));
            assert_eq!(choose(Dialect::Pomelo), pomelo, "pomelo {uid}");
            assert_eq!(choose(Dialect::Pinus), pinus, "pinus {uid}");
        }
    }
}
