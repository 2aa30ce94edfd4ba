//! The server's side of WebSocket: the HTTP upgrade, and frames read in place.
//!
//! tangelo unmasks a client's frame where it lies in the read buffer. A server's frame is a short header in
//! front of a payload that exists already, so nothing is copied. tangelo accepts no extension, so the
//! reserved bits are always zero.

mod frame;
#[cfg(test)]
mod tests;
mod upgrade;

pub use frame::{
    Frame, HEADER_BYTES_MAX, Header, Opcode, WebSocketError, close_code, decode, decode_unmasked,
    header, payload_bytes, write_close,
};
pub use upgrade::{
    HttpError, Upgrade, UpgradeRequest, http_header, is_token_byte, parse_request, write_response,
    write_switching_protocols,
};
