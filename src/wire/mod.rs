//! Formats: bytes in, values out.
//!
//! | format | file | source of truth | vectors |
//! |---|---|---|---|
//! | package | [`package`] | pomelo-protocol 0.1.6 | `client/package.json` |
//! | message | [`message`] | pomelo-protocol 0.1.6 | `client/message.json` |
//! | handshake and kick bodies | [`handshake`] | Pomelo 2.2.7 | `client/handshake.json` |
//! | variable-length integers | [`varint`] | pomelo-protocol, MQTT 3.1.1 | with the above |
//! | JSON, scanned and spliced | [`json`] | ECMAScript `JSON` | `client/malformed.json` |
//! | compressed bodies | [`protobuf`] | pomelo-protobuf 0.4.0, pinus-protobuf 1.7.4 | `client/protobuf-*.json` |
//! | WebSocket, server side | [`websocket`] | RFC 6455 | its examples |
//! | addresses in headers of proxies | [`forwarded`] | RFC 7239 | in its tests |
//! | PROXY protocol | [`proxy`] | HAProxy, `doc/proxy-protocol.txt` | in its tests |
//! | MQTT subset | [`pomelo::mqtt`] | pomelo-rpc 1.0.7 | `rpc/*.jsonl` |
//! | calls between servers | [`pomelo::rpc`] | pomelo-rpc 1.0.7 | `rpc/*.jsonl` |
//! | talk with the master | [`pomelo::admin`] | pomelo-admin 1.0.1 | `rpc/pomelo-master-startup.jsonl` |
//!
//! **Invariants**: no input panics; decoding allocates nothing and borrows from the input; "not
//! enough bytes yet" is `Ok(None)`, an error means that the sender broke the format; errors are `Copy`.
//!
//! **Absent**: state, time, configuration, sockets.
//!
//! **Where to start reading**: [`package::decode`], then [`message::decode`].

pub mod forwarded;
pub mod handshake;
pub mod json;
pub mod message;
pub mod package;
pub mod pomelo;
pub mod protobuf;
pub mod proxy;
pub mod varint;
pub mod websocket;
