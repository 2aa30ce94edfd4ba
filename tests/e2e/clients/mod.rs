//! A game client's view: bytes, order, limits, and the end of its connection.

mod blacklist;
mod connection;
mod flood;
mod health;
mod hostile;
mod memory;
mod npm;
mod random;
mod reference;
mod room;
mod tls;
mod wire;
