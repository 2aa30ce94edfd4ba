//! Compressed bodies: JSON text on this side, protobuf of Pomelo's own kind on the client's.
//!
//! | file | content |
//! |---|---|
//! | `schema` | `serverProtos.json` and `clientProtos.json`: checked once, all names resolved to indices |
//! | `encode` | JSON text → bytes |
//! | `coerce` | the number that JavaScript makes of a JSON value |
//! | `decode` | bytes → JSON text |
//!
//! Shape:  fields of `head: varint (tag << 3 | wire type)` · `value`; a `repeated` number has one
//!         head, a count and bare values; `map` and `obj` a count and bare keys and values
//! Bound:  `limits::PROTOBUF_*`
//! Source: pomelo-protobuf 0.4.0, pinus-protobuf 1.7.4; `tests/vectors/client/protobuf-*.json`
//!
//! As pomelo: the wire type of a head is written, but never read; the schema alone rules.
//!
//! Unlike pomelo: names that every JavaScript object inherits (`toString`) mean nothing; an array or
//! a string in place of a message has no members, an object in place of an array no elements. A
//! `map` is an object in JSON, where the reference has no form for it: a backend gets `{}`, and
//! what a backend sends is refused.

mod coerce;
mod decode;
mod encode;
mod schema;

pub use self::decode::DecodeError;
pub use self::encode::{BadBody, ProtoEncodeError};
pub use self::schema::{Doubt, Flavour, ProtoDefinition, ProtoId, Schema, SchemaError, version};

#[cfg(test)]
mod tests;
