//! What the compiler says to somebody whose handler is not one.
//!
//! The texts in `tests/compile/*.stderr` are those of the toolchain of `rust-toolchain.toml`;
//! `TRYBUILD=overwrite cargo test --test compile` writes those of another one.

#[test]
fn a_wrong_handler_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
