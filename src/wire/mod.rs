//! Bytes in, values out.
pub mod json;
pub mod websocket;
