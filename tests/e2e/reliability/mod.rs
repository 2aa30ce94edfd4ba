//! The promises of a gateway under attack and faults, each with the load under which it was held.
//!
//! [`attacks`] plays one attack after the other beside a hundred clients that must not notice; CI plays a small part of each.
//! All of it, and `docs/reliability.md` anew, by hand:
//!
//! ```text
//! TANGELO_WRITE_REFERENCE=1 cargo test --release --test e2e all_attacks -- --ignored --nocapture
//! TANGELO_WRITE_REFERENCE=1 cargo test --test e2e all_faults -- --ignored --nocapture
//! TANGELO_WRITE_REFERENCE=1 cargo test --release --test e2e soak -- --ignored --nocapture
//! ```

mod attacks;
mod one_way;
mod report;
mod soak;
mod stage;
mod strangers;
mod suite;
