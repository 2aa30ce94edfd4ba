//! The command `check`: tests the configuration and its environment before a start, and says what to change.
//!
//! It opens the ports and dials the master and the other servers, but it does not join the cluster: a running
//! tangelo with the same ports is a problem too, and a token that the master refuses is not seen.

use std::fmt;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::listen::AddressKey;
use super::{assets, executor, host, listen};
use crate::admin;
use crate::checked::CheckedConfig;
use crate::config::{Config, ListenAddress, Master, Server};
use crate::error::{Error, Result};
use crate::tls::{self, CertificateStatus};

/// Exit code when there are problems, as for a start that is refused.
const PROBLEMS: i32 = 2;
/// Longest time for connecting to the master.
const MASTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers that are dialled at the same time.
const DIALS_MAX: usize = 64;

/// Tests everything, writes one line for each result, and returns the exit code. `problems` are those of the
/// configuration.
pub(super) fn run(config: &Config, problems: Vec<Error>) -> i32 {
    let mut report = Report::default();
    let is_readable = problems.is_empty();
    let sources = match &*config.sources.read {
        [] => "the defaults".into(),
        sources => sources.join(", "),
    };
    problems
        .into_iter()
        .for_each(|problem| report.problem(problem));
    // The check of a start adds warnings.
    let checked = CheckedConfig::new(config.clone());
    let warnings = checked.map_or_else(
        |_| config.warnings.clone(),
        |checked| checked.warnings.clone(),
    );
    warnings.iter().for_each(|text| report.warning(text));
    if is_readable {
        report.ok(format!("configuration: {sources}"));
    }
    machine(config, &mut report);
    if is_readable {
        files(config, &mut report);
        ports(config, &mut report);
        servers(config, &mut report);
    } else {
        report.warning(
            "ports, files, master and servers are not tested before the configuration is right",
        );
    }
    report.end()
}

/// Tests the limits of this process, and io_uring.
fn machine(config: &Config, report: &mut Report) {
    let shards = host::shards(config);
    let cores = host::cores().len();
    if shards > cores {
        report.warning(format!(
            "shards: {shards} shards share {cores} cores, which costs CPU per message; lower shards to {cores}, or \
             give this process more cores (taskset, CPUAffinity= of systemd, --cpus of docker)"
        ));
    }
    let limits = host::MachineLimits::raise();
    let files = limits.check_files(config, shards);
    if files.is_ok() {
        let clients = host::sockets_max(config);
        let clients = clients.min(config.client.max_connections.unwrap_or(clients));
        match limits.few_clients(config, shards) {
            Some(text) => report.warning(text),
            None => report.ok(format!("file limit: enough for {clients} clients")),
        }
    }
    report.add(files, "");
    let memory = limits.check_memory(shards);
    // Without memory the probe would say the same again.
    let is_probed = memory.is_ok();
    report.add(
        memory,
        format!("memory lock limit: enough for {shards} shards"),
    );
    if is_probed {
        report.add(executor::probe(), "io_uring: works here");
    }
}

/// Tests the files that a start reads beside the configuration.
fn files(config: &Config, report: &mut Report) {
    // The configuration has passed this check.
    let Ok(checked) = CheckedConfig::new(config.clone()) else {
        return;
    };
    let client = &config.client;
    if client.use_protobuf {
        report.add(assets::protos(config).map(drop), "protos: can be read");
    }
    if config.uses_tls() {
        match tls::check_files(config) {
            Ok(certificates) => certificates.into_iter().for_each(|status| match status {
                CertificateStatus::Valid(text) => report.ok(format!("certificate: {text}")),
                CertificateStatus::Warning(text) => {
                    report.warning(format!("certificate: {text}"));
                }
                CertificateStatus::Invalid(text) => report.problem(format!("certificate: {text}")),
            }),
            Err(error) => report.problem(error),
        }
    }
    if client.blacklist_file.is_some() {
        let read = assets::host_filter(&checked).map(drop);
        report.add(read, "client.blacklist_file: can be read");
    }
}

/// Tests the ports, as a start opens them: all at once.
fn ports(config: &Config, report: &mut Report) {
    let listeners = config.client_listeners().into_iter();
    let clients: Vec<_> = listeners
        .map(|listener| listen::bind_one(config, listener, 1))
        .collect();
    let calls = [
        (config.rpc.listen, AddressKey::Rpc),
        (config.rpc.tls_listen, AddressKey::RpcTls),
    ];
    let calls = calls.map(|(address, key)| Some((address?, listen::bind_rpc(address?, key))));
    for opened in clients {
        match opened {
            Ok((listener, _)) => {
                let address = listener.address;
                report.ok(format!("port for clients: {address} is free"));
            }
            Err(error) => report.problem(error),
        }
    }
    for (address, opened) in calls.into_iter().flatten() {
        report.add(
            opened.map(drop),
            format!("port for calls: {address} is free"),
        );
    }
    if let Some(address) = &config.admin.listen {
        match admin::test(address) {
            Ok(()) => report.ok(format!("operators' port: {address} is free")),
            // The start does not fail for it, but nobody would see the health checks.
            Err(error) => report.problem(format!(
                "admin.listen: cannot listen on {address}: {error}; stop the program that listens there, or choose \
                 another admin.listen"
            )),
        }
        if let (ListenAddress::Tcp(_), Some(path)) = (address, &config.admin.token_file)
            && let Err(fault) = admin::token(path)
        {
            report.problem(format!("admin.token_file: {}: {fault}", path.display()));
        }
    }
}

/// Dials the master and the other servers.
fn servers(config: &Config, report: &mut Report) {
    if let Some(master) = &config.master {
        test_master(config, master, report);
    }
    let timeout = config.rpc.connect_timeout;
    for servers in config.servers.chunks(DIALS_MAX) {
        let dialled: Vec<io::Result<()>> = std::thread::scope(|scope| {
            let dial = |server: &Server| {
                let (host, port) = (server.host.clone(), server.port);
                scope.spawn(move || dial(&host, port, timeout))
            };
            let threads: Vec<_> = servers.iter().map(dial).collect();
            let panicked = |_| Err(io::Error::other("the test panicked"));
            let joined = threads
                .into_iter()
                .map(|it| it.join().unwrap_or_else(panicked));
            joined.collect()
        });
        for (server, dialled) in servers.iter().zip(dialled) {
            let Server { id, host, port, .. } = server;
            match dialled {
                Ok(()) => report.ok(format!("server {id}: {host}:{port} takes connections")),
                Err(error) => report.problem(format!(
                    "server {id}: cannot connect to {host}:{port}: {error}; start it, or correct its host and port"
                )),
            }
        }
    }
}

fn test_master(config: &Config, master: &Master, report: &mut Report) {
    let Master { host, port, .. } = master;
    match dial(host, *port, MASTER_TIMEOUT) {
        Ok(()) => report.ok(format!("master: {host}:{port} takes connections")),
        Err(error) => report.problem(format!(
            "master: cannot connect to {host}:{port}: {error}; start the master, or correct its host and port in \
             master.json"
        )),
    }
    // Null stands for an adminServer.json without this type, and a master refuses a type that it does not list.
    if master.token == Some(Value::Null) {
        report.problem(format!(
            "adminServer.json: no entry has the type {:?}, so the master will refuse this server; add one with this \
             type and a token",
            config.server_type
        ));
    }
}

/// Opens a connection, by any address of the host, and closes it.
fn dial(host: &str, port: u16, timeout: Duration) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The lines of the results.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    problems: usize,
}

impl Report {
    fn ok(&mut self, text: impl fmt::Display) {
        self.lines.push(format!("ok       {text}"));
    }

    fn warning(&mut self, text: impl fmt::Display) {
        self.lines.push(format!("warning  {text}"));
    }

    fn problem(&mut self, text: impl fmt::Display) {
        self.problems += 1;
        self.lines.push(format!("problem  {text}"));
    }

    /// Adds a result; `ok` is the line of a good one, and empty for none.
    fn add(&mut self, result: Result<()>, ok: impl AsRef<str>) {
        match result {
            Err(error) => self.problem(error),
            Ok(()) if ok.as_ref().is_empty() => {}
            Ok(()) => self.ok(ok.as_ref()),
        }
    }

    /// Writes the lines to standard output and returns the exit code.
    fn end(mut self) -> i32 {
        self.lines.push(match self.problems {
            0 => "no problem found".into(),
            1 => "1 problem".into(),
            problems => format!("{problems} problems"),
        });
        let text = self.lines.join("\n") + "\n";
        let _ = io::stdout().write_all(text.as_bytes());
        match self.problems {
            0 => 0,
            _ => PROBLEMS,
        }
    }
}
