//! An operator's view: the command line, signals, the operators' port, the log, limits, proxies, TLS, and threads that are pinned, held or idle.

mod admin;
mod check;
mod closes;
mod drain;
mod holds;
mod idle;
mod listeners;
mod notify;
mod pause;
mod pinning;
mod proxies;
mod reload;
mod signals;
mod start;
mod tls;
