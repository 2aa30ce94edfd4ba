//! Handlers, filters, remotes and tasks that an application writes, and the examples.

mod configuration;
mod delegate;
mod delegate_asked;
mod delegate_package;
mod delegate_restarts;
mod delegates;
mod examples;
mod extractors;
mod filters;
mod full_mesh;
mod gate;
mod handlers;
mod handshake;
mod lifecycle;
mod misbehaving;
mod pomelo_chat;
mod pool;
mod protobuf;
mod readme;
mod redis;
mod schedulers;
mod session;
