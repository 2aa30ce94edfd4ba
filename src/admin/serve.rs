//! The listening socket of the operators' port, and its connections.
//!
//! Each connection has one request, and its time from the first byte to the last one is bounded. So a slow or silent
//! client keeps its place only for that time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use futures_lite::future;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::ListenAddress;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX, ADMIN_HEAD_TIMEOUT, ADMIN_REQUEST_TIMEOUT,
};
use crate::metrics::{self, Counter};
use crate::net::unix_socket::{self, SocketFile};

/// Time between two attempts to open the port.
const RETRY: Duration = Duration::from_secs(1);
/// Pause after a failed accept: the process has no descriptors or no memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 128;
/// Mode of the unix socket: only this user can reach it.
const SOCKET_MODE: u32 = 0o600;

/// Serves the port until `ended`.
pub(super) fn run(address: &ListenAddress, router: &Router, ended: oneshot::Receiver<()>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::warn!(%error, "admin.listen: cannot start the operators' port");
            return;
        }
    };
    let serve = async { accept(&open(address).await, router).await };
    let end = async { drop(ended.await) };
    runtime.block_on(future::or(serve, end));
}

enum Listener {
    Tcp(TcpListener),
    /// The file goes before its socket closes.
    Unix {
        _file: SocketFile,
        listener: UnixListener,
    },
}

/// Opens the port, and tries for ever. The first failure is a warning.
async fn open(address: &ListenAddress) -> Listener {
    let mut is_first = true;
    loop {
        match listen(address) {
            Ok((listener, address)) => {
                tracing::info!("the operators' port listens on {address}");
                return listener;
            }
            Err(error) if is_first => tracing::warn!(
                "admin.listen = {address}: cannot open the operators' port: {error}; tangelo serves its clients without it, \
                 and tries again each second"
            ),
            Err(_) => {}
        }
        is_first = false;
        sleep(RETRY).await;
    }
}

fn listen(address: &ListenAddress) -> io::Result<(Listener, String)> {
    match address {
        ListenAddress::Tcp(address) => {
            let listener = TcpListener::from_std(tcp(*address)?.into())?;
            let address = listener.local_addr()?;
            Ok((Listener::Tcp(listener), format!("http://{address}/")))
        }
        ListenAddress::Unix(path) => {
            let (_file, socket) = unix_socket::listen(path, SOCKET_MODE, BACKLOG)?;
            let listener = UnixListener::from_std(socket.into())?;
            Ok((Listener::Unix { _file, listener }, address.to_string()))
        }
    }
}

/// Opens the port and closes it at once.
///
/// Errors: those of the system, by which the port cannot be opened now
pub(crate) fn test(address: &ListenAddress) -> io::Result<()> {
    match address {
        ListenAddress::Tcp(address) => tcp(*address).map(drop),
        ListenAddress::Unix(path) => unix_socket::listen(path, SOCKET_MODE, BACKLOG).map(drop),
    }
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Accepts connections for ever.
async fn accept(listener: &Listener, router: &Router) {
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEAD_TIMEOUT)
        .max_buf_size(ADMIN_HEAD_BYTES_MAX);
    let mut connections = Connections {
        http,
        router,
        open: JoinSet::new(),
    };
    loop {
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                let address = Some(address.to_string().into());
                connections.take(
                    stream,
                    AdminClient {
                        address,
                        ..AdminClient::default()
                    },
                );
            }),
            Listener::Unix { listener, .. } => listener
                .accept()
                .await
                .map(|(stream, _)| connections.take(stream, AdminClient::default())),
        };
        if accepted.is_err() {
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// The one who asks.
#[derive(Debug, Clone, Default)]
pub(super) struct AdminClient {
    /// Its address; `None` through the unix socket.
    pub(super) address: Option<Arc<str>>,
    /// True if the answer has no end of its own.
    pub(super) lasts: Arc<AtomicBool>,
}

/// The open connections. Dropping them closes them.
struct Connections<'a> {
    http: http1::Builder,
    router: &'a Router,
    open: JoinSet<()>,
}

impl Connections<'_> {
    /// Serves a connection, unless too many are open.
    fn take(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        caller: AdminClient,
    ) {
        while self.open.try_join_next().is_some() {}
        if self.open.len() >= ADMIN_CONNECTIONS_MAX {
            metrics::count_for_process(Counter::AdminRefused);
            return;
        }
        let lasts = caller.lasts.clone();
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            router.call(request)
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        self.open.spawn(async move {
            let mut connection = pin!(connection);
            let is_late = loop {
                match timeout(ADMIN_REQUEST_TIMEOUT, &mut connection).await {
                    Ok(served) => break served.is_err_and(|error| error.is_timeout()),
                    Err(_) if lasts.load(Ordering::Relaxed) => {}
                    Err(_) => break true,
                }
            };
            if is_late {
                metrics::count_for_process(Counter::AdminLate);
            }
        });
    }
}
